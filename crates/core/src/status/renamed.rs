//! Reasons of conditions that a release renamed.
//!
//! A status that an older operator wrote still has the old name. The next report replaces it, without a
//! transition or an event. `docs/upgrading.md` lists the same names for scripts that read them.

use otelagent_api::{INJECTED, READY, SWITCHING};

/// Type of the condition, old reason, new reason.
const RENAMED: [(&str, &str, &str); 11] = [
    (READY, "VehicleNotReady", "FirstAgentsNotReady"),
    (READY, "ProofFailed", "VerificationFailed"),
    (READY, "NotInForce", "NotActive"),
    (SWITCHING, "VehicleNotReady", "AgentsNotReady"),
    (SWITCHING, "FirstVehicle", "FirstAgents"),
    (SWITCHING, "OldPathInUse", "OldRouteInUse"),
    (SWITCHING, "OldPathHeld", "OldRouteHeld"),
    (INJECTED, "VehicleNotReady", "FirstAgentsNotReady"),
    (INJECTED, "ProofFailed", "VerificationFailed"),
    (INJECTED, "InForce", "Active"),
    (INJECTED, "NotInForce", "NotActive"),
];

/// The present name of a condition's reason.
pub(super) fn present_reason<'a>(condition: &str, reason: &'a str) -> &'a str {
    let mut renamed = RENAMED.iter();
    renamed
        .find(|(type_, old, _)| (*type_, *old) == (condition, reason))
        .map_or(reason, |(_, _, new)| new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADING: &str = include_str!("../../../../docs/upgrading.md");

    #[test]
    fn no_two_reasons_of_a_condition_have_one_new_name() {
        for (at, (type_, _, new)) in RENAMED.iter().enumerate() {
            let same = |other: &&(&str, &str, &str)| other.0 == *type_ && other.2 == *new;
            assert_eq!(RENAMED[at + 1..].iter().find(same), None);
        }
    }

    #[test]
    fn upgrade_notes_list_every_renamed_reason() {
        for (type_, old, new) in RENAMED {
            let row = format!("| `{type_}` | `{old}` | `{new}` |");
            assert!(UPGRADING.contains(&row), "{row}");
        }
    }
}
