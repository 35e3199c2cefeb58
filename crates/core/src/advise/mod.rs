//! Which mode to use in a cluster, and why.
//!
//! | module | says |
//! |---|---|
//! | [`facts`] | what is known of the cluster, and what is wanted |
//! | [`survey`] | the same, read from objects |
//! | [`needs`] | what a mode needs of a cluster, as it is rendered |
//! | [`cost`] | what its agents reserve |
//! | [`rules`] | the rules, one table |
//! | [`verdict`] | the advice: each mode with its verdict, reasons, cost and manifest |

pub mod cost;
pub mod facts;
pub mod needs;
pub mod rules;
pub mod survey;
pub mod verdict;

pub use cost::{Cost, Requests};
pub use facts::{
    ClusterFact, ClusterFacts, DataPlane, NodeAddresses, PodSecurityLevel, PodsPerNode, Teams,
};
pub use needs::{Need, Needs};
pub use rules::{Effect, Judged, ModeReason, RULES, Rule};
pub use survey::{Seen, SeenPod};
pub use verdict::{Advised, ModeVerdict, OptionAdvice, advise};
