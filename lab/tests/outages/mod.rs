//! Something is away for a while and comes back: an API server, the operator, the webhook, certificates that
//! hold, a part of etcd's history, the release before. What docs/availability.md says of each is shown here.
//!
//! Every story has a control plane of its own, since it breaks something of it; the operator and the
//! webhook are real processes with the rights of their installed `ServiceAccount`s. Nodes are
//! [`kubelet`](crate::simulated::kubelet)'s. Pods are created all the while by [`creator`], which notes what
//! became of each.
//!
//! - [`servers`]: API servers are killed, started again, joined by a second one, and left behind at a cut-over.
//! - [`operator`]: the operator is away while everything changes, and comes back as another release.
//! - [`webhook`]: its replicas are killed under load, and stopped until their certificates have run out.
//! - [`store`]: etcd is set back to an older snapshot.

mod creator;
mod operator;
mod servers;
mod store;
mod webhook;
mod world;
