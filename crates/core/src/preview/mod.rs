//! What a changed spec will do, before it does.
//!
//! | module | says |
//! |---|---|
//! | `imagined` | what the operator's own plans make of a cluster in which everything succeeds |
//! | [`input`] | what a preview is made from |
//! | [`objects`] | which objects are made, changed, removed, or kept while pods use them |
//! | [`pods`] | which pods stay on their route, and whether a restart moves them |
//! | [`gaps`] | what was lost when such a change was measured |
//! | [`obstacles`] | what prevents the change, and what to look at |
//! | [`forecast`] | the preview, of all of these |

pub mod forecast;
pub mod gaps;
mod imagined;
pub mod input;
pub mod objects;
pub mod obstacles;
pub mod pods;

pub use forecast::{Course, Preview, preview};
pub use gaps::Gap;
pub use input::PreviewInput;
pub use objects::{ObjectChanges, ObjectName};
pub use obstacles::Obstacle;
pub use pods::{RestartEffect, StayingPods};
