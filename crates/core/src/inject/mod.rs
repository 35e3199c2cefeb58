//! Pure. Pod × recipe → pod, and the same as admission policies (design §4).
//!
//! What is injected is data, the [`Recipe`]; two engines apply it and must agree: the function
//! [`pod::inject`], which the webhook answers with ([`review`]), and the policy rendered by
//! [`policy::render`]. This room must not know modes' objects, the client or the cluster.

pub mod canary;
pub mod cel;
pub mod environment;
pub mod exclusion;
pub mod limits;
pub mod pod;
pub mod policy;

mod attributes;
pub mod json;
mod ports;
mod program;
pub mod reason;
mod recipe;
mod selection;

pub use pod::{Injection, inject};
pub use reason::Reason;
pub use recipe::{EnvRule, Moved, Recipe};
pub use selection::{Namespaces, Selection};
