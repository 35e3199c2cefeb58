//! Outages: an API server, the operator, the webhook, valid certificates or a part of etcd's history is missing for
//! a while and comes back; also the previous release. These tests show what docs/availability.md says of each.
//!
//! Every story has a control plane of its own, since it breaks something of it; the operator and the
//! webhook are real processes with the rights of their installed `ServiceAccount`s. Nodes are
//! [`kubelet`](crate::simulated::kubelet)'s. Pods are created all the while by [`creator`], which notes what
//! became of each.
//!
//! - [`servers`]: API servers are killed, started again, joined by a second one, and left behind at a cut-over.
//! - [`operator`]: the operator is down while everything changes, and comes back as another release.
//! - [`webhook`]: its replicas are killed under load, and stopped until their certificates have expired.
//! - [`store`]: etcd is set back to an older snapshot.

mod creator;
mod operator;
mod servers;
mod store;
mod webhook;
mod world;
