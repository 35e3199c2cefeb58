//! Every decision of the operator, as pure functions: values in, values out.
//!
//! | module | decides |
//! |---|---|
//! | [`build`] | whether a spec is valid, and which objects each mode needs |
//! | [`inject`] | pod and recipe to injected pod, and the same as admission policies |
//! | [`switching`] | which modes are in use, and which serves |
//! | [`restart`] | which workloads to restart, and when |
//! | [`status`] | conditions, counts and events |
//! | [`names`] | every name the operator gives or reads |
//!
//! The crate depends on no runtime, no client, no clock and no log.

pub mod build;
pub mod inject;
pub mod names;
mod quantity;
pub mod restart;
pub mod status;
pub mod switching;

/// An error with its causes, in one line.
pub fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
