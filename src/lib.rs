//! The otelagent operator.
//!
//! Pure rooms take values and return values; they know no client, clock, randomness or log:
//! - [`names`]: every name given or read.
//! - [`api`]: what users write and read.
//! - [`inject`]: pod and recipe to injected pod, and the same as admission policies.

pub mod api;
pub mod inject;
pub mod names;
