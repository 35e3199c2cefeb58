//! The conditions `Reconciling` and `Stalled`, by which tools that know kstatus tell whether an object gets on. As
//! kstatus expects, each is present only while it is true. What they say is said by other conditions, too.

use super::Facts;
use super::message::{Assessment, assess};
use otelagent_api::{RECONCILING, STALLED};

/// Which of the two is present, if any.
pub(super) fn progress(
    facts: &Facts,
    accepted: &Assessment,
    ready: &Assessment,
    switching: &Assessment,
) -> Option<(&'static str, Assessment)> {
    // An older route that pods still use holds up nothing: the operator cannot end it by itself.
    let underway = match &facts.serving {
        None => Some(ready),
        Some((serving, _)) if *serving != facts.wanted => Some(switching),
        Some(_) => Some(ready).filter(|ready| ready.reason == "NotRolledOut"),
    };
    let is_refused = !facts.problems.is_empty();
    let (type_, says) = if is_refused {
        // Only a change of this spec, or of what it contradicts, helps.
        (STALLED, accepted)
    } else {
        (RECONCILING, underway?)
    };
    Some((type_, assess(true, says.reason, says.message.clone())))
}

#[cfg(test)]
mod tests {
    use super::super::conditions::tests::facts;
    use super::*;
    use crate::build::Problem;
    use crate::status::report;
    use crate::switching::WorkloadState;
    use otelagent_api::Mode;

    /// The conditions of both types, as type, status and reason.
    fn reported(facts: &Facts) -> Vec<String> {
        let conditions = report(facts, None).conditions.into_iter();
        let found = conditions.filter(|found| [RECONCILING, STALLED].contains(&&*found.type_));
        let words = found.map(|found| format!("{} {} {}", found.type_, found.status, found.reason));
        words.collect()
    }

    #[test]
    fn refused_spec_is_stalled_and_a_switch_that_gets_ready_reconciles() {
        assert!(reported(&facts(0)).is_empty());
        let mut refused = facts(0);
        refused.problems.push(Problem {
            reason: "InvalidValue",
            message: "why".into(),
        });
        assert_eq!(reported(&refused), ["Stalled True InvalidValue"]);

        let mut waiting = facts(0);
        waiting.wanted = Mode::HostPort;
        waiting.wanted_workload = Some(WorkloadState::pending("an image"));
        assert_eq!(reported(&waiting), ["Reconciling True AgentsNotReady"]);
        let mut first = facts(0);
        (first.serving, first.serving_workload) = (None, None);
        assert_eq!(reported(&first), ["Reconciling True FirstAgentsNotReady"]);
    }

    #[test]
    fn roll_out_reconciles_and_an_older_route_in_use_does_not() {
        let mut older = facts(0);
        older.older_routes.push(Mode::HostPort);
        assert!(reported(&older).is_empty());
        let mut rolling = facts(0);
        let workload = rolling.serving_workload.as_mut().unwrap();
        workload.outdated = vec!["node n1: agent a has an older configuration".into()];
        assert_eq!(reported(&rolling), ["Reconciling True NotRolledOut"]);
    }
}
