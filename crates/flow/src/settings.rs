//! What the configuration says about an upstream.

use std::time::Duration;

/// Bounds and times of a flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The upper bound of attempts in flight; 0 counts as 1.
    pub max_in_flight: usize,
    /// The size of a full batch in uncompressed bytes.
    pub max_batch: usize,
    /// The time limit of an attempt, from the last progress of its body to the answer.
    pub timeout: Duration,
    /// What follows a failure.
    pub retry: Retry,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Without it, the first failure of a batch is its last.
    pub enabled: bool,
    /// The first wait.
    pub initial_interval: Duration,
    /// The longest wait, unless the upstream asks for more; also the wait while the upstream refuses the way.
    pub max_interval: Duration,
    /// The growth from one wait to the next.
    pub multiplier: f64,
    /// Each wait varies by this share, 0 to 1, in both directions.
    pub randomization_factor: f64,
    /// A batch is given up this long after its first attempt; zero means never.
    pub max_elapsed_time: Duration,
    /// The longest wait that an upstream can ask for.
    pub max_wait: Duration,
    /// Whether batches wait while the upstream refuses the way (401, 404, ...), or says that a quota is exhausted
    /// without naming a wait. The OTLP specification wants them dropped.
    pub hold: bool,
}
