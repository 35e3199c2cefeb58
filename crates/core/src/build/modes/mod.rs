//! The modes, one file each. A new mode is its file and its line in [`topology()`].

mod daemon;
mod host_network;
mod host_port;
mod node_local;
mod sidecar;
mod topology;

pub(super) use self::topology::Topology;

use otelagent_api::Mode;

/// The file that knows a mode.
pub(super) fn topology(mode: Mode) -> &'static dyn Topology {
    match mode {
        Mode::Sidecar => &sidecar::Sidecar,
        Mode::HostPort => &host_port::HostPort,
        Mode::HostNetwork => &host_network::HostNetwork,
        Mode::NodeLocal => &node_local::NodeLocal,
    }
}
