//! `top`: agents by load and losses, their senders, and workloads by the telemetry of their sidecars.

mod assemble;
mod figures;
mod report;
mod view;

pub use assemble::{Sample, Target, assemble};
pub use figures::Figures;
pub use report::{AgentLoad, Order, SenderLoad, TopReport, WorkloadLoad};
pub use view::view;
