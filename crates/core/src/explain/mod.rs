//! Why a pod is injected or not, and what injection does to it, for people who ask.
//!
//! | module | says |
//! |---|---|
//! | [`mod@checks`] | which rule of a selection a pod meets, one by one |
//! | [`mod@edits`] | what one pod has that another has not |
//! | [`mod@renewed`] | the pod that would be made now in the place of a running one |

mod checks;
mod edits;
mod renewed;

pub use checks::{Check, checks};
pub use edits::{Edit, Path, added, drift, edits};
pub use renewed::{pod_of, renewed};
