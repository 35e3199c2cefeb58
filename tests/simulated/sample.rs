//! Which runs are drawn where not all are run.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Whether everything is run.
pub(super) fn full() -> bool {
    std::env::var("OTELAGENT_FULL").is_ok_and(|value| value == "1")
}

/// `size` of the `items`, or all of them in a full run: by `OTELAGENT_SEED`, always the same without.
pub(super) fn drawn<T: std::fmt::Debug>(items: Vec<T>, size: usize) -> Vec<T> {
    if full() {
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

/// Fixed where none is given: what fails then fails because of the change that was made.
fn seed() -> String {
    std::env::var("OTELAGENT_SEED").unwrap_or_else(|_| "2".into())
}
