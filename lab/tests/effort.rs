//! How much of what takes long is tried, the same for all tests.

/// Whether everything is, as in `make test-full`.
pub(crate) fn is_full() -> bool {
    std::env::var("OTELAGENT_FULL").is_ok_and(|value| value == "1")
}

/// Whether a run is to be made whose line is, or begins with, these words: `OTELAGENT_ONLY` says with which
/// the lines begin of the runs that alone are made.
pub(crate) fn is_wanted(words: &str) -> bool {
    let only = std::env::var("OTELAGENT_ONLY").unwrap_or_default();
    only.starts_with(words) || words.starts_with(&only)
}

/// What samples are drawn by where not everything is tried. Fixed where `OTELAGENT_SEED` gives none: what
/// fails then fails because of the change that was made.
pub(crate) fn seed() -> String {
    std::env::var("OTELAGENT_SEED").unwrap_or_else(|_| "2".into())
}
