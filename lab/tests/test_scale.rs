//! How much of what takes long is tried, and on which release, the same for all tests.

use testbed::KubernetesVersion;

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

/// The release of the API server for tests that are not about one: the newest, unless `OTELAGENT_KUBERNETES` names
/// another.
pub(crate) fn release() -> KubernetesVersion {
    let named = std::env::var("OTELAGENT_KUBERNETES").ok();
    let named = named.filter(|named| !named.is_empty());
    named.map_or_else(KubernetesVersion::default, |named| named.parse().unwrap())
}
