//! What is read of the cluster's objects, as the operator and `kubectl otelagent` decode them.
//!
//! | module | decodes |
//! |---|---|
//! | [`decode`] | `OtelAgent`s, each by itself |
//! | [`partial`] | pods, nodes and namespaces, to the relevant fields |

mod decode;
mod partial;

pub use decode::{Decoded, Unreadable};
pub use partial::{HealthAddress, Labels, PartialNamespace, PartialNode, PartialPod, STARTING};
