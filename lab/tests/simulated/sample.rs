//! The sample of runs for `make test`.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::test_scale::{is_full, seed};

/// `size` of the `items`, or all of them in a full run: by `OTELAGENT_SEED`, always the same without.
pub(super) fn drawn<T: std::fmt::Debug>(items: Vec<T>, size: usize) -> Vec<T> {
    if is_full() {
        return items;
    }
    let seed = seed();
    let mut ranked: Vec<(u64, T)> = items
        .into_iter()
        .map(|item| {
            let mut hasher = DefaultHasher::new();
            (&seed, format!("{item:?}")).hash(&mut hasher);
            (hasher.finish(), item)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    println!(
        "{size} of {} drawn; OTELAGENT_SEED={seed} draws them again",
        ranked.len()
    );
    ranked
        .into_iter()
        .take(size)
        .map(|(_, item)| item)
        .collect()
}
