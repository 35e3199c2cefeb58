//! How much of the long tests runs, and on which release: the same for all tests.

use testbed::KubernetesVersion;

/// Whether everything runs, as in `make test-full`.
pub(crate) fn is_full() -> bool {
    std::env::var("OTELAGENT_FULL").is_ok_and(|value| value == "1")
}

/// Whether to make the run whose line begins with these words. `OTELAGENT_ONLY` is the beginning of the lines of
/// the only runs to make.
pub(crate) fn is_wanted(words: &str) -> bool {
    let only = std::env::var("OTELAGENT_ONLY").unwrap_or_default();
    only.starts_with(words) || words.starts_with(&only)
}

/// The seed of samples. It is fixed unless `OTELAGENT_SEED` gives one, so that a failure comes from the change under
/// test and not from chance.
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
