//! What manifests and rendered pods may hold, and that `docs/security-evidence.md` names tests that exist.

mod document;
mod grants;
mod manifests;
mod workflows;
