//! Pure. Pod × recipe → pod, and the same as admission policies (design §4).
//!
//! What is injected is data, the [`Recipe`]; two engines apply it and must agree: the function
//! [`pod::inject`] and the policy rendered by [`policy`]. This room must not know modes' objects, the
//! client or the cluster.

mod recipe;
mod selection;

pub use recipe::{EnvRule, Recipe};
pub use selection::{Namespaces, Selection};
