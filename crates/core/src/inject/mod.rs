//! Applies a recipe to a pod, as a function and as admission policies.
//!
//! The [`Recipe`] says as data what is injected. Two engines apply it and must agree: the function
//! [`pod::inject`], which the webhook uses, and the policy that [`policy::render`] renders. This module
//! does not know the modes' objects.

pub mod canary;
pub mod cel;
pub mod difference;
pub mod environment;
pub mod json;
pub mod kinds;
pub mod namespace_limits;
pub mod outline;
pub mod pod;
pub mod policy;
pub mod precedence;
pub mod reason;

mod advice;
mod attributes;
mod containers;
mod gate;
mod ports;
mod program;
mod recipe;
mod selection;
mod unfit;

pub use advice::advice_for;
pub use environment::EnvRule;
pub use pod::{Injection, inject};
pub use reason::Reason;
pub use recipe::{Moved, Recipe, StartGate};
pub use selection::{Namespaces, Selection};
