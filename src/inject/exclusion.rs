//! Of several `OtelAgent`s that select one pod the oldest wins.
//!
//! The API server runs policies in random order, so who wins must be written into the policies of all
//! who lose. Must not know policies.

use super::Selection;

/// An `OtelAgent` that selects pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `metadata.creationTimestamp` in RFC 3339 and UTC, as the API server writes it: such texts sort
    /// by time.
    pub created: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// What it selects; for one with a broken spec what it last selected.
    pub selection: Selection,
}

impl Candidate {
    fn rank(&self) -> (&str, &str, &str) {
        (&self.created, &self.namespace, &self.name)
    }
}

/// Those that come before `me` and may select a pod of mine, oldest first. `others` may hold `me`.
pub fn winners<'a>(me: &Candidate, others: &'a [Candidate]) -> Vec<&'a Candidate> {
    let before =
        |other: &&Candidate| other.rank() < me.rank() && other.selection.may_overlap(&me.selection);
    let mut winners: Vec<&Candidate> = others.iter().filter(before).collect();
    winners.sort_unstable_by_key(|winner| winner.rank());
    winners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Selector;
    use crate::inject::Namespaces;

    fn candidate(created: &str, namespace: &str, name: &str, selected: &str) -> Candidate {
        let selection = Selection {
            namespaces: Namespaces::Named(selected.into()),
            pods: Selector::default(),
        };
        Candidate {
            created: created.into(),
            namespace: namespace.into(),
            name: name.into(),
            selection,
        }
    }

    #[test]
    fn the_oldest_wins_then_namespace_and_name() {
        let all = [
            candidate("2026-11-22T10:00:01Z", "a", "a", "shop"),
            candidate("2026-11-22T10:00:00Z", "b", "b", "shop"),
            candidate("2026-11-22T10:00:00Z", "b", "a", "shop"),
            candidate("2026-11-22T09:00:00Z", "b", "z", "elsewhere"),
        ];
        let names = |me: &Candidate| {
            winners(me, &all)
                .iter()
                .map(|w| w.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&all[0]), ["a", "b"]);
        assert_eq!(names(&all[1]), ["a"]);
        assert!(names(&all[2]).is_empty());
    }
}
