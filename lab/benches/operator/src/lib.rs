//! Only benchmarks: `operator.rs` and `scale`.
