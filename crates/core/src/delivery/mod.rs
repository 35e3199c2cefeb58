//! Whether telemetry gets through: which agents to ask, and what their answers say together.
//!
//! The operator asks in rounds: every agent on a node, and of sidecars a sample that rotates. What agents say is
//! not trusted, because anyone who runs a pod can answer in the place of its sidecar: texts are cut and cleaned.

mod answer;
mod record;
mod summary;

pub use answer::{AgentAnswer, ConfigurationWord, DeliveryAnswer};
pub use record::{Askable, DeliveryRecord, Target};
pub use summary::{DeliverySummary, Group};
