//! A real Kubernetes cluster on one Linux machine, without a container engine.
//!
//! A [`Bed`] is a control plane and any number of nodes, each in a network namespace of its own,
//! made of pinned programs that are built from Go modules on first use ([`parts`]). Tests start
//! one, use it and drop it; the `testbed` command does the same from a shell.
//!
//! This package knows Kubernetes, and nothing of the operator or the agent that is tested on it.

pub mod image;
pub mod parts;

mod addresses;
mod bed;
mod builder;
mod cgroup;
mod cluster;
mod command;
mod component;
mod control_plane;
mod error;
mod go;
mod kernel;
mod kubeconfig;
mod layout;
mod net;
mod node;
mod options;
mod packages;
mod pins;
mod pki;
mod progress;
mod reaper;
mod registry;
mod requirement;
mod simulated;

pub use addresses::Addresses;
pub use bed::Bed;
pub use builder::Builder;
pub use cluster::Cluster;
pub use component::Component;
pub use error::{Error, Result};
pub use go::go_build_static;
pub use layout::BedName;
pub use options::PacketFilter;
pub use pins::KubernetesVersion;
pub use registry::{BedSummary, down, down_all, list};
pub use requirement::{skip, skip_unless_possible};
