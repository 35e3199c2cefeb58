//! The modes, one file each. A new mode is its file and its line in [`topology()`].

mod daemon;
mod host_network;
mod host_port;
mod node_local;
mod sidecar;
mod topology;

pub(super) use self::topology::Topology;

use otelagent_api::Mode;

/// What the file of a mode says.
pub(super) fn topology(mode: Mode) -> &'static Topology {
    match mode {
        Mode::Sidecar => &sidecar::SIDECAR,
        Mode::HostPort => &host_port::HOST_PORT,
        Mode::HostNetwork => &host_network::HOST_NETWORK,
        Mode::NodeLocal => &node_local::NODE_LOCAL,
    }
}
