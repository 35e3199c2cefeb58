//! `status`: what became of each `OtelAgent`, from the object down to agents and workloads.

mod assemble;
mod report;
mod view;

pub use assemble::assemble;
pub use report::{
    AgentPodReport, AgentReport, AgentWorkloadReport, ConditionReport, MissedReport,
    NamespaceReport, NodeReport, StatusReport, WorkloadReport,
};
pub use view::view;
