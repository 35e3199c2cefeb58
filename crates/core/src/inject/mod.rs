//! Pure. Pod × recipe → pod, and the same as admission policies.
//!
//! What is injected is data, the [`Recipe`]; two engines apply it and must agree: the function
//! [`pod::inject`], with which the webhook answers, and the policy rendered by
//! [`policy::render`]. This module must not know modes' objects, the client or the cluster.

pub mod canary;
pub mod cel;
pub mod environment;
pub mod json;
pub mod kinds;
pub mod namespace_limits;
pub mod pod;
pub mod policy;
pub mod precedence;
pub mod reason;

mod attributes;
mod containers;
mod ports;
mod program;
mod recipe;
mod selection;

pub use environment::EnvRule;
pub use pod::{Injection, inject};
pub use reason::Reason;
pub use recipe::{Moved, Recipe};
pub use selection::{Namespaces, Selection};
