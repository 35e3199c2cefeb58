//! What the answers of many agents say together, in a size that a status can have.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use otelagent_api::DeliveryCounts;

/// Most reasons that are kept.
const MAX_GROUPS: usize = 3;
/// Most agents that are named for each reason.
const MAX_PLACES: usize = 3;

/// The counts, and the reasons of agents that do not deliver or do not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliverySummary {
    /// The numbers.
    pub counts: DeliveryCounts,
    /// Whether sidecars were asked, of which there may be more.
    pub is_sample: bool,
    /// Agents that do not deliver, by reason, the most frequent first.
    pub failing: Vec<Group>,
    /// Agents that do not answer, by reason, the most frequent first.
    pub unanswered: Vec<Group>,
}

/// What an agent counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Counted<'a> {
    Delivering,
    Idle,
    Failing(&'a str),
    Unanswered(&'a str),
}

/// Agents with one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The reason.
    pub reason: String,
    /// How many there are.
    pub agents: usize,
    /// Some of them, such as `node n1`.
    pub places: Vec<String>,
}

impl DeliverySummary {
    /// Sums up agents: the place of each, whether it is a sidecar, and what it counts as.
    pub(super) fn of<'a>(agents: impl Iterator<Item = (&'a str, bool, Counted<'a>)>) -> Self {
        let mut summary = Self::default();
        let (mut failing, mut unanswered) = (Reasons::default(), Reasons::default());
        for (place, is_sidecar, counted) in agents {
            let counts = &mut summary.counts;
            counts.asked += 1;
            summary.is_sample |= is_sidecar;
            match counted {
                Counted::Delivering => counts.delivering += 1,
                Counted::Idle => counts.idle += 1,
                Counted::Failing(why) => {
                    counts.failing += 1;
                    failing.add(why, place);
                }
                Counted::Unanswered(why) => {
                    counts.unanswered += 1;
                    unanswered.add(why, place);
                }
            }
        }
        summary.failing = failing.groups();
        summary.unanswered = unanswered.groups();
        summary
    }
}

#[derive(Default)]
struct Reasons<'a>(BTreeMap<&'a str, (usize, BTreeSet<&'a str>)>);

impl<'a> Reasons<'a> {
    fn add(&mut self, reason: &'a str, place: &'a str) {
        let (agents, places) = self.0.entry(reason).or_default();
        *agents += 1;
        // An agent and its successor are on one node.
        places.insert(place);
    }

    fn groups(self) -> Vec<Group> {
        let mut groups: Vec<_> = self.0.into_iter().collect();
        groups.sort_by_key(|(_, (agents, _))| Reverse(*agents));
        let group = |(reason, (agents, places)): (&str, (usize, BTreeSet<&str>))| {
            let places = places.into_iter().take(MAX_PLACES);
            Group {
                reason: reason.to_owned(),
                agents,
                places: places.map(str::to_owned).collect(),
            }
        };
        groups.into_iter().take(MAX_GROUPS).map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_frequent_reasons_come_first_and_all_is_bounded() {
        let places: Vec<String> = (0..1000).map(|n| format!("node n{n:04}")).collect();
        let reasons: Vec<String> = (0..1000)
            .map(|n| {
                if n % 2 == 0 {
                    "timed out".to_owned()
                } else {
                    format!("error {n}")
                }
            })
            .collect();
        let agents = places.iter().zip(&reasons);
        let summary = DeliverySummary::of(
            agents.map(|(place, reason)| (place.as_str(), false, Counted::Failing(reason))),
        );
        assert_eq!((summary.counts.asked, summary.counts.failing), (1000, 1000));
        assert_eq!(summary.failing.len(), MAX_GROUPS);
        let expected = Group {
            reason: "timed out".into(),
            agents: 500,
            places: vec![
                "node n0000".into(),
                "node n0002".into(),
                "node n0004".into(),
            ],
        };
        assert_eq!(summary.failing[0], expected);
        assert!(!summary.is_sample && summary.unanswered.is_empty());
    }

    #[test]
    fn agent_and_its_successor_on_one_node_are_two_agents() {
        let agent = ("node a", false, Counted::Unanswered("timed out"));
        let summary = DeliverySummary::of([agent.clone(), agent].into_iter());
        assert_eq!(summary.counts.unanswered, 2);
        let group = &summary.unanswered[0];
        assert_eq!((group.agents, group.places.len()), (2, 1));
    }
}
