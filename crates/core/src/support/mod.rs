//! What a support bundle holds: which objects, and what is left of each.

mod contents;
mod removal;

pub use contents::{BundledKind, CONTENTS, Where};
pub use removal::{REMOVED, without_secrets};
