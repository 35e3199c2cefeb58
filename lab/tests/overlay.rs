//! Overlays of kustomize over `manifests`.

use std::path::Path;

/// A path in the repository, relative to a directory: kustomize takes no absolute ones.
pub(crate) fn in_repository(directory: &Path, path: &str) -> String {
    let from = directory.canonicalize().unwrap();
    let up = "../".repeat(from.components().count() - 1);
    let to = demo::repository().join(path).canonicalize().unwrap();
    format!("{up}{}", to.to_string_lossy().trim_start_matches('/'))
}
