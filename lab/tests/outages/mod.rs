//! Outages: an API server, the operator, the webhook, its valid certificates or a part of etcd's history is missing
//! for a while and comes back. An upgrade from the previous release is one too. These tests show what
//! docs/availability.md says.
//!
//! Every story breaks its control plane, so each has its own. The operator and the webhook are real processes with the
//! rights of their installed `ServiceAccount`s. [`kubelet`](crate::simulated::kubelet) simulates the nodes. [`creator`]
//! creates pods all the time and notes what became of each.
//!
//! - [`servers`]: API servers are killed and restarted, a second one joins, and one lags behind at a cut-over.
//! - [`operator`]: the operator is down while everything changes, and comes back as another release.
//! - [`webhook`]: its replicas are killed under load, and stopped until their certificates have expired.
//! - [`slow`]: the API server answers late, refuses all calls for a minute, and changes its certificate.
//! - [`store`]: etcd is restored to an older snapshot.

mod creator;
mod operator;
mod servers;
mod slow;
mod store;
mod webhook;
mod world;
