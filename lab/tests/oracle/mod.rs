//! What must hold of an `OtelAgent`, stated once and asked everywhere: after crashes, after random edits
//! of the spec, after whatever else a test does to the operator.
//!
//! It reads the cluster's objects as JSON and knows the operator's names, but none of its decisions: what
//! `switching` or `status` would say is never asked.
//!
//! - **End state** ([`end_state`]): once settled, the objects of an `OtelAgent` are those of a run without
//!   faults, and those of a fresh object with the same spec. Compared after [`end_state::normalised`],
//!   whose list of what may differ is short and reviewed: identities, moments, what the server allots, and
//!   what a run was told to choose for itself (its name, its node ports).
//! - **Summary** ([`log::summary`]): how often each object was made and removed. A repair may cost one more
//!   proof of a policy for each pass that was spoiled; it never makes or removes a workload, a Service or a binding once more.
//! - **Quiescence**: settled, nothing is written, though watches start anew and passes are forced. Whoever
//!   runs the operator counts its writes, or sees that no `resourceVersion` moves.
//! - **Invariants** ([`log::violations`]) on everything an independent watcher saw, in the order of the
//!   cluster's one clock (etcd's revision):
//!   a path that live pods use was not removed; once something served, a bound policy and a ready agent
//!   behind it stood at every moment; an agent stood on the node of every live pod of its mode; nothing
//!   was made outside of the scope. Of requests (whoever sends them records them): every DELETE names the
//!   uid it means.
//! - **Truth** ([`truth`]): what the status says is so. A pod created now (by dry run) is what
//!   `status.mode` promises, pods and agents are counted anew, and each condition is held against that.
//!
//! A log without an error proves nothing: 41 of the 46 bugs Sieve found were silent (OSDI'22).

pub(crate) mod end_state;
pub(crate) mod log;
mod read;
mod truth;

pub(crate) use read::{get, list, request};
pub(crate) use truth::truth_within;
