//! `OtelAgent` → the objects and the recipe of each mode.
//!
//! [`validate()`] turns what a user wrote into a [`ValidAgent`] or a list of [`Problem`]s; [`build`] renders a
//! valid agent and cannot fail. Which modes are needed at a moment is decided in [`switching`](crate::switching).

mod agent_config;
mod agent_pod;
mod desired;
mod engine;
mod environment;
mod modes;
mod node_ports;
mod objects;
mod ownership;
mod selectors;
mod start_gate;
mod valid_agent;
mod validate;

pub use desired::{Desired, DesiredMode, build};
pub use engine::{Choice, Engine, OLDEST_SERVER, engine};
pub use environment::{Environment, IpFamily, ServerVersion};
pub use node_ports::{NodePorts, PORT_IN_USE, PortUser, port_problem};
pub use objects::{Object, corrections, covers, difference, is_as_wanted, template_label};
pub use ownership::{ObjectOwner, is_applied, last_other_manager};
pub use valid_agent::ValidAgent;
pub use validate::{
    MAX_PER_NAMESPACE, PREFER_SAME_NODE, Problem, is_permitted, may_select, over_quota, selection,
    validate,
};
