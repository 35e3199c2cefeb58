//! How much of what takes long is tried, the same for all tests.

/// Whether everything is, as in `make test-full`.
pub(crate) fn is_full() -> bool {
    std::env::var("OTELAGENT_FULL").is_ok_and(|value| value == "1")
}

/// The words with which the runs begin that alone are made, as they are printed; `OTELAGENT_ONLY`.
pub(crate) fn only() -> Option<String> {
    std::env::var("OTELAGENT_ONLY").ok()
}

/// What samples are drawn by where not everything is tried. Fixed where `OTELAGENT_SEED` gives none: what
/// fails then fails because of the change that was made.
pub(crate) fn seed() -> String {
    std::env::var("OTELAGENT_SEED").unwrap_or_else(|_| "2".into())
}
