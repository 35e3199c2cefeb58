//! Only benchmarks: `operator.rs`, `start_gate.rs` and `scale`.
