//! Precedence of `OtelAgent`s whose selections overlap: the oldest injects a pod that several select.
//!
//! The API server runs policies in random order, so the policies of younger `OtelAgent`s exclude the pods
//! of older ones.

use std::collections::{BTreeMap, BTreeSet};

use super::cel::selected;
use super::selection::{Namespaces, Selection};
use otelagent_api::Selector;

/// Most characters of an expression that exclusions may take; the API server allows 100,000.
const MAX_EXCLUSIONS: usize = 50_000;

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
    /// Its selection; with an invalid spec the last valid one.
    pub selection: Selection,
}

impl Candidate {
    fn rank(&self) -> (&str, &str, &str) {
        (&self.created, &self.namespace, &self.name)
    }
}

/// Those that take precedence over `me` and may select the same pods, oldest first. `others` may contain
/// `me`.
pub fn preceding<'a>(me: &Candidate, others: &'a [Candidate]) -> Vec<&'a Candidate> {
    let before =
        |other: &&Candidate| other.rank() < me.rank() && other.selection.may_overlap(&me.selection);
    let mut preceding: Vec<&Candidate> = others.iter().filter(before).collect();
    preceding.sort_unstable_by_key(|other| other.rank());
    preceding
}

/// The selections to exclude for these. If not all selectors fit, whole namespaces are excluded instead,
/// starting with those whose own `OtelAgent`s have the longest selectors: a user's long selectors must not
/// stop others from injecting.
pub fn exclusions(preceding: &[Candidate]) -> Vec<Selection> {
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    let mut left = MAX_EXCLUSIONS;
    for other in preceding {
        let length = length(&other.selection);
        match &other.selection.namespaces {
            Namespaces::Named(namespace) => *words.entry(namespace).or_default() += length,
            // Only platform namespaces, which are trusted, select namespaces by label.
            Namespaces::Labelled(_) => left = left.saturating_sub(length),
        }
    }
    let mut taken: usize = words.values().sum();
    let mut by_length: Vec<(&str, usize)> = words.into_iter().collect();
    by_length.sort_by_key(|(namespace, length)| (std::cmp::Reverse(*length), *namespace));
    let mut whole: BTreeSet<&str> = BTreeSet::new();
    for (namespace, length) in by_length {
        if taken <= left {
            break;
        }
        taken -= length.saturating_sub(self::length(&all_of(namespace)));
        whole.insert(namespace);
    }
    let (mut excluded, mut said) = (Vec::new(), BTreeSet::new());
    for other in preceding {
        match &other.selection.namespaces {
            Namespaces::Named(namespace) if whole.contains(namespace.as_str()) => {
                if said.insert(namespace) {
                    excluded.push(all_of(namespace));
                }
            }
            _ => excluded.push(other.selection.clone()),
        }
    }
    excluded
}

fn all_of(namespace: &str) -> Selection {
    Selection {
        namespaces: Namespaces::Named(namespace.to_owned()),
        pods: Selector::default(),
    }
}

/// The length of the expression that excludes these pods, in characters.
fn length(selection: &Selection) -> usize {
    let terms = selected(selection, &[]);
    terms.iter().map(|term| term.chars().count() + 8).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn oldest_agent_precedes_then_namespace_and_name() {
        let all = [
            candidate("2026-11-22T10:00:01Z", "a", "a", "shop"),
            candidate("2026-11-22T10:00:00Z", "b", "b", "shop"),
            candidate("2026-11-22T10:00:00Z", "b", "a", "shop"),
            candidate("2026-11-22T09:00:00Z", "b", "z", "elsewhere"),
        ];
        let names = |me: &Candidate| {
            preceding(me, &all)
                .iter()
                .map(|other| other.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&all[0]), ["a", "b"]);
        assert_eq!(names(&all[1]), ["a"]);
        assert!(names(&all[2]).is_empty());
    }

    #[test]
    fn exclusions_fit_when_others_write_endless_selectors() {
        let wordy = |namespace: &str, length: usize| {
            let mut wordy = candidate("2026-11-22T10:00:00Z", namespace, "a", namespace);
            let labels = [("a".to_owned(), "x".repeat(length))];
            wordy.selection.pods.match_labels = labels.into();
            wordy
        };
        let few = [wordy("a", 10), wordy("b", 10)];
        let as_they_are: Vec<Selection> = few.iter().map(|one| one.selection.clone()).collect();
        assert_eq!(exclusions(&few), as_they_are);
        let mut many: Vec<Candidate> = (0..20).map(|_| wordy("evil", 4000)).collect();
        many.extend(few);
        let expected = [vec![all_of("evil")], as_they_are].concat();
        assert_eq!(
            exclusions(&many),
            expected,
            "and no other selection changes"
        );
    }
}
