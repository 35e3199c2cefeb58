//! What one bed shall be like, and the note of it that is kept while the bed is up.

use serde::{Deserialize, Serialize};

use crate::addresses::Addresses;
use crate::layout::{BedName, Layout, Slot};
use crate::pins::KubernetesVersion;

/// The options with which a bed is started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Options {
    pub(crate) nodes: u8,
    /// Beds that were noted before there were any have none.
    #[serde(default)]
    pub(crate) simulated_nodes: u16,
    /// Beds that were noted before there was a choice have IPv4.
    #[serde(default)]
    pub(crate) addresses: Addresses,
    /// Beds that were noted before there was a choice have nftables.
    #[serde(default)]
    pub(crate) packet_filter: PacketFilter,
    #[serde(default)]
    pub(crate) without_port_map: bool,
    #[serde(default)]
    pub(crate) network_policies: bool,
    pub(crate) kubernetes: KubernetesVersion,
    pub(crate) audit: bool,
    pub(crate) apiserver_args: Vec<String>,
    pub(crate) controller_manager_args: Vec<String>,
    pub(crate) scheduler_args: Vec<String>,
}

/// By what a node forwards connections: those of Services (kube-proxy) and of host ports (the network plugin).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketFilter {
    /// As in new clusters.
    #[default]
    Nftables,
    /// As in most clusters there are.
    Iptables,
}

impl PacketFilter {
    /// As both programs name it in their configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// A bed as noted in its directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: BedName,
    pub(crate) slot: Slot,
    /// Tells this bed from an earlier or later one of the same name.
    pub(crate) token: String,
    /// The process whose end ends the bed; none once the bed is to stay.
    pub(crate) owner: Option<Owner>,
    /// Nothing of a bed survives a boot.
    pub(crate) boot_id: String,
    pub(crate) options: Options,
}

impl Record {
    pub(crate) fn layout(&self) -> Layout {
        Layout {
            name: self.name.clone(),
            slot: self.slot,
            addresses: self.options.addresses,
        }
    }
}

/// A process, distinguished from a later one with the same id by when it began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) pid: u32,
    pub(crate) begun: String,
}
