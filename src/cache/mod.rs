//! What the watches have seen of the cluster.
//!
//! | module | holds |
//! |---|---|
//! | [`watches`] | one watch per kind, with back-off |
//! | [`stores`] | one store per kind |
//! | [`store`] | the cache of one watch, and the caches of nodes and namespaces |
//! | [`pods`] | the cluster's pods, a few fields each |
//! | [`events`] | warnings about agents that cannot be created or cannot start |
//! | [`mod@agent_workload`] | an agent workload with its pods and warnings |
//! | [`namespace_limits`] | LimitRanges and ResourceQuotas |
//! | [`refusals`] | which watches the API server refuses |
//! | [`trigger`] | which `OtelAgent`s a change concerns |

mod agent_workload;
mod events;
mod namespace_limits;
mod pods;
mod refusals;
mod store;
mod stores;
mod trigger;
mod watches;

pub(crate) use agent_workload::agent_workload;
pub(crate) use namespace_limits::{Demand, in_namespaces};
pub(crate) use pods::{CachedPod, Pods};
pub(crate) use store::Cached;
pub(crate) use stores::{Stores, admission_resource};
pub(crate) use trigger::Trigger;
pub(crate) use watches::build;
