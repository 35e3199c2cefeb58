//! `explain`: why a pod is injected or not, what injection adds to it now, and what differs from what runs.

mod assemble;
mod report;
mod view;

pub use assemble::{Subject, assemble};
pub use report::{
    CandidateReport, EditReport, Explanation, InjectionReport, PodExplanation, RuleReport,
};
pub use view::view;
