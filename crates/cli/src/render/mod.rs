//! `render` and `diff`: the objects of an `OtelAgent` as the operator makes them, and how those in a cluster differ.

mod compare;
mod rendering;
mod view;

pub use compare::{Comparison, ObjectDifference, compare};
pub use rendering::{AgentRendering, ProblemReport, Rendered, Rendering, Site, render};
pub use view::{diff_view, render_text};
