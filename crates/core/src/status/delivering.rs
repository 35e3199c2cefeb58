//! The condition `Delivering`: whether the upstream takes what agents send.

use super::message::{Assessment, assess, first_few, unknown};
use super::{Delivery, Facts};
use crate::delivery::{DeliverySummary, Group};

/// Reasons that need no action: nothing was sent yet, or no agent can be asked.
pub(super) const QUIET: [&str; 3] = ["Idle", "NotAsked", "OtherImage"];

/// No agent has been asked yet. One message for all causes, so that a change of the cause writes no status.
pub(super) fn not_asked() -> Assessment {
    unknown(
        "NotAsked",
        "no agent has been asked whether it delivers: none is ready, or the first answers are awaited",
    )
}

/// `None` while agents are being asked: the condition stays as reported.
pub(super) fn delivering(facts: &Facts) -> Option<Assessment> {
    if facts.serving.is_none() {
        return Some(not_asked());
    }
    match &facts.delivery {
        Delivery::OtherImage(image) => {
            let message = format!(
                "agents of {image} cannot be asked whether they deliver, because only the operator's own image answers; \
                 look at their metrics"
            );
            Some(unknown("OtherImage", message))
        }
        Delivery::Pending => None,
        Delivery::Known(summary) => Some(known(summary)),
    }
}

fn known(summary: &DeliverySummary) -> Assessment {
    let counts = &summary.counts;
    let what = if summary.is_sample {
        "agents asked"
    } else {
        "agents"
    };
    if counts.asked == 0 {
        return not_asked();
    }
    if counts.failing > 0 {
        let message = format!(
            "{} of {} {what} do not deliver: {}",
            counts.failing,
            counts.asked,
            named(&summary.failing, counts.failing)
        );
        return assess(false, "DeliveryFails", message);
    }
    let unanswered = named(&summary.unanswered, counts.unanswered);
    // A minority that answers says nothing about the rest.
    if counts.unanswered * 2 > counts.asked {
        let message = format!(
            "{} of {} {what} did not answer the operator: {unanswered}; let its pods reach spec.ports.health of the \
             agents",
            counts.unanswered, counts.asked
        );
        return unknown("NotReachable", message);
    }
    let unanswered = match counts.unanswered {
        0 => String::new(),
        some => format!("; {some} did not answer the operator: {unanswered}"),
    };
    if counts.delivering == 0 {
        let message = format!(
            "{} of {} {what} have delivered nothing yet{unanswered}",
            counts.idle, counts.asked
        );
        return unknown("Idle", message);
    }
    let idle = match counts.idle {
        0 => String::new(),
        some => format!(", {some} have delivered nothing yet"),
    };
    let message = format!(
        "{} of {} {what} deliver{idle}{unanswered}",
        counts.delivering, counts.asked
    );
    assess(true, "Delivering", message)
}

/// The reasons with the agents that have them: `refused (node a, node b and 3 more); timed out (node c)`.
fn named(groups: &[Group], agents: i32) -> String {
    let shown = groups.iter().map(|group| {
        let more = match group.agents - group.places.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{} ({}{more})", group.reason, group.places.join(", "))
    });
    let shown: Vec<String> = shown.collect();
    let listed: usize = groups.iter().map(|group| group.agents).sum();
    let agents = usize::try_from(agents).unwrap_or_default();
    let rest = match agents.saturating_sub(listed) {
        0 => String::new(),
        rest => format!("; {rest} for other reasons"),
    };
    first_few(&shown, "; ") + &rest
}

#[cfg(test)]
mod tests {
    use otelagent_api::DeliveryCounts;

    use super::super::conditions::tests::facts;
    use super::*;

    fn assessed(
        counts: [i32; 4],
        failing: &[(&str, usize)],
    ) -> (&'static str, &'static str, String) {
        let [delivering, idle, fail, unanswered] = counts;
        let groups = |reasons: &[(&str, usize)]| -> Vec<Group> {
            let groups = reasons.iter().map(|(reason, agents)| Group {
                reason: (*reason).into(),
                agents: *agents,
                places: (0..*agents).map(|n| format!("node n{n}")).take(3).collect(),
            });
            groups.collect()
        };
        let summary = DeliverySummary {
            counts: DeliveryCounts {
                asked: counts.iter().sum(),
                delivering,
                idle,
                failing: fail,
                unanswered,
            },
            is_sample: false,
            failing: groups(failing),
            unanswered: groups(
                &[("timed out", usize::try_from(unanswered).unwrap())]
                    [..usize::from(unanswered > 0)],
            ),
        };
        let mut facts = facts(0);
        facts.delivery = Delivery::Known(summary);
        let found = delivering_of(&facts);
        (found.status, found.reason, found.message)
    }

    fn delivering_of(facts: &Facts) -> Assessment {
        delivering(facts).unwrap()
    }

    #[test]
    fn failing_agents_make_it_false_with_their_errors_and_nodes() {
        let (status, reason, message) =
            assessed([994, 0, 6, 0], &[("refused", 4), ("timed out", 1)]);
        assert_eq!((status, reason), ("False", "DeliveryFails"));
        let expected = "6 of 1000 agents do not deliver: refused (node n0, node n1, node n2 and 1 more); \
                        timed out (node n0); 1 for other reasons";
        assert_eq!(message, expected);
        assert_eq!(assessed([0, 0, 1, 999], &[("refused", 1)]).0, "False");
    }

    #[test]
    fn silence_of_most_agents_is_unknown_and_never_false() {
        let (status, reason, message) = assessed([0, 0, 0, 2], &[]);
        assert_eq!((status, reason), ("Unknown", "NotReachable"));
        let expected = "2 of 2 agents did not answer the operator: timed out (node n0, node n1); let its pods reach \
                        spec.ports.health of the agents";
        assert_eq!(message, expected);
        assert_eq!(assessed([1, 0, 0, 2], &[]).1, "NotReachable");
        let (status, _, message) = assessed([2, 0, 0, 1], &[]);
        assert_eq!(status, "True");
        let expected = "2 of 3 agents deliver; 1 did not answer the operator: timed out (node n0)";
        assert_eq!(message, expected);
    }

    #[test]
    fn agents_that_have_sent_nothing_prove_nothing() {
        let (status, reason, _) = assessed([0, 3, 0, 0], &[]);
        assert_eq!((status, reason), ("Unknown", "Idle"));
        let (status, _, message) = assessed([1, 2, 0, 0], &[]);
        assert_eq!(status, "True");
        assert_eq!(
            message,
            "1 of 3 agents deliver, 2 have delivered nothing yet"
        );
    }

    #[test]
    fn no_agent_to_ask_is_unknown() {
        assert_eq!(assessed([0; 4], &[]).1, "NotAsked");
        let mut facts = facts(0);
        facts.delivery = Delivery::Pending;
        assert!(delivering(&facts).is_none(), "as it was reported");
        facts.delivery = Delivery::OtherImage("collector:1".into());
        let found = delivering_of(&facts);
        assert_eq!((found.status, found.reason), ("Unknown", "OtherImage"));
        assert!(found.message.contains("collector:1"));
        facts.serving = None;
        assert_eq!(delivering_of(&facts).reason, "NotAsked");
    }
}
