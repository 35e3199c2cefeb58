//! Status, reason and a message of a readable length for a condition.

use std::collections::BTreeMap;

use crate::pods::WorkloadRef;
use crate::switching::WorkloadState;
use otelagent_api::Mode;

/// How many items a message names.
const NAMED: usize = 3;

/// A condition before it has a type and a time.
pub(super) struct Assessment {
    pub(super) status: &'static str,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

pub(super) fn assess(status: bool, reason: &'static str, message: impl Into<String>) -> Assessment {
    Assessment {
        status: if status { "True" } else { "False" },
        reason,
        message: message.into(),
    }
}

/// A condition of which nothing is known.
pub(super) fn unknown(reason: &'static str, message: impl Into<String>) -> Assessment {
    Assessment {
        status: "Unknown",
        ..assess(false, reason, message)
    }
}

/// The names of these modes.
pub(super) fn all_of(modes: &[Mode]) -> String {
    let names: Vec<&str> = modes.iter().map(|mode| mode.as_str()).collect();
    names.join(", ")
}

/// The first few items, and how many more there are.
pub(super) fn first_few(all: &[String], separator: &str) -> String {
    let named = all[..all.len().min(NAMED)].join(separator);
    match all.len().saturating_sub(NAMED) {
        0 => named,
        rest => format!("{named} and {rest} more"),
    }
}

/// What an agent workload that is not ready everywhere waits for.
pub(super) fn waiting(workload: &WorkloadState) -> String {
    first_few(&workload.waiting_for(), "; ")
}

/// The first few owners of pods: `Deployment shop/cart: 3, Pod shop/one: 1 and 2 more`.
pub(super) fn name_owners(owners: &BTreeMap<WorkloadRef, usize>) -> String {
    let named: Vec<String> = owners
        .iter()
        .map(|(owner, pods)| format!("{owner}: {pods}"))
        .collect();
    first_few(&named, ", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_beyond_the_third_are_counted() {
        let owner = |name: &str| (WorkloadRef::of_shop("Deployment", name), 2);
        let owners = BTreeMap::from(["a", "b", "c", "d", "e"].map(owner));
        assert_eq!(
            name_owners(&owners),
            "Deployment shop/a: 2, Deployment shop/b: 2, Deployment shop/c: 2 and 2 more"
        );
    }
}
