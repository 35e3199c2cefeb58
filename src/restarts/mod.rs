//! What `controller::restart` needs to restart workloads.
//!
//! | module | does |
//! |---|---|
//! | [`memory`] | remembers what the last poll found |
//! | [`workloads`] | reads and patches workloads |

mod memory;
mod workloads;

pub(crate) use memory::RestartMemory;
pub(crate) use workloads::{ReadWorkload, Workloads};
