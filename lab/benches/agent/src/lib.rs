//! Measures the agent against its peers on one machine: own load generator and counting sink, every
//! program in the same run, interleaved, pinned to a core of its own.
//!
//! Knows nothing of the agent's insides: it is a process like the peers.

pub mod ids;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod peers;
pub mod report;
pub mod scenarios;
pub mod sink;
pub mod telemetry;
pub mod wire;

/// What most functions here return: a benchmark that cannot go on says why and ends.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
