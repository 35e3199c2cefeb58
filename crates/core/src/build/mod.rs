//! Pure. `OtelAgent` → what must exist for it (design §2, §3).
//!
//! [`validate`] turns what a user wrote into a [`ValidAgent`] or a list of [`Problem`]s; everything after
//! it cannot fail. Which modes' objects are wanted at a moment is `switching`'s, which this room must
//! not know.

mod agent_config;
mod agent_pod;
mod engine;
mod environment;
mod modes;
mod objects;
mod ownership;
mod validate;

pub use agent_config::Placement;
pub use engine::{Choice, Engine, engine};
pub use environment::{Environment, Family, ServerVersion};
pub use modes::{Topology, topology};
pub use objects::{Object, corrections, covers, is_as_wanted};
pub use ownership::{ObjectOwner, is_applied};
pub use validate::{
    MAX_PER_NAMESPACE, Problem, ValidAgent, crowding, is_permitted, selection, validate,
};
