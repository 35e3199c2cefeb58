//! What must hold of an `OtelAgent` at rest, stated once and asked by every suite: after crashes, after random
//! edits of the spec, after outages.
//!
//! It reads the cluster's objects as JSON, as kubectl shows them. It knows the names of labels and annotations,
//! and none of the operator's decisions: the rules here follow from `docs/` and from the descriptions of the CRD.
//!
//! - **Status** ([`mismatches`]): each field of the status, computed again from the cluster's objects.
//!   A [`Mismatch`] names the field, both values and the sentence that decides. Where the documentation leaves a
//!   value open, the checker accepts every value that the documentation allows.
//! - **Orphaned pods** ([`ClusterView::orphaned`]): pods injected for an `OtelAgent` that no longer exists. Whoever
//!   selects them counts them as missed.
//! - **End state** ([`end_state`]): the objects of a settled `OtelAgent` are those of a run without faults, and
//!   those of a new object with the same spec, after [`end_state::normalised`] has masked what may differ.
//! - **Summary** ([`log::summary`]): how often each object was made and removed. A repair may verify a policy again;
//!   it makes and removes no agent workload, Service or binding once more.
//! - **Quiescence**: a settled operator writes nothing. The suite that runs the operator counts its writes.
//! - **Invariants** ([`log::violations`]) on everything an independent watcher saw, ordered by etcd's revision.
//!
//! A log without an error verifies nothing: 41 of the 46 bugs Sieve found were silent (OSDI'22).

mod agents;
mod checker;
mod conditions;
mod delivery;
pub(crate) mod end_state;
mod injection;
pub(crate) mod log;
mod pods;
mod quotes;
mod read;
mod restarts;
mod selection;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use kube::Client;
use tokio::time::{Instant, sleep};

pub(crate) use checker::Mismatch;
use checker::StatusChecker;
pub(crate) use read::{get, list, request};
pub(crate) use view::ClusterView;

/// Between two reads of the cluster.
const PAUSE: Duration = Duration::from_millis(500);

/// Where the status contradicts the documentation, given these objects.
pub(crate) fn mismatches(view: &ClusterView) -> Vec<Mismatch> {
    let mut checker = StatusChecker::new(view);
    checker.generation();
    checker.agents();
    checker.pods();
    checker.conditions();
    checker.delivery();
    checker.restarts();
    checker.found
}

/// The mismatches that remain after `patience`; returns as soon as there are none. Counts lag behind the cluster
/// by a second or two.
///
/// # Errors
/// If the cluster cannot be read.
pub(crate) async fn mismatches_within(
    client: &Client,
    namespace: &str,
    name: &str,
    patience: Duration,
) -> Result<Vec<Mismatch>, String> {
    let end = Instant::now() + patience;
    loop {
        let found = mismatches(&ClusterView::read(client, namespace, name).await?);
        if found.is_empty() || Instant::now() > end {
            return Ok(found);
        }
        sleep(PAUSE).await;
    }
}
