//! Where everything of one bed is: names, addresses, directories, control groups.
//!
//! All of it follows from the bed's name and its slot, so that several beds never share anything
//! and what a dead one left can be found again. Touches nothing itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::addresses::{Addresses, Family};
use crate::component::Component;
use crate::error::{Error, Result};

/// All beds of a machine, of every user: slots are per machine.
pub(crate) const STATE_ROOT: &str = "/var/lib/otelagent-testbed";
/// Beds at a time.
pub(crate) const SLOTS: u8 = 64;
/// The first of the second octets the slots use.
const FIRST_NET: u8 = 64;
/// Nodes per bed; bounded by the address plan.
pub(crate) const MAX_NODES: u8 = 32;

/// The name of a bed: a short DNS label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BedName(String);

impl FromStr for BedName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edges = !text.starts_with('-') && !text.ends_with('-');
        if text.is_empty() || text.len() > 40 || !text.chars().all(letters) || !edges {
            return Err(Error::Invalid(format!(
                "{text:?} is no name for a bed: write 1 to 40 of a-z, 0-9 and -, not beginning or ending with -"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for BedName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BedName> for String {
    fn from(name: BedName) -> Self {
        name.0
    }
}

impl fmt::Display for BedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl BedName {
    /// The directory of this bed.
    pub(crate) fn dir(&self) -> PathBuf {
        beds_dir().join(&self.0)
    }

    /// Where its logs are: one file per component, kept when the bed is gone.
    pub fn log_dir(&self) -> PathBuf {
        Path::new(STATE_ROOT).join("logs").join(&self.0)
    }
}

/// The directory of all beds.
pub(crate) fn beds_dir() -> PathBuf {
    Path::new(STATE_ROOT).join("beds")
}

/// Held while beds are made or ended.
pub(crate) fn lock_path() -> PathBuf {
    Path::new(STATE_ROOT).join("lock")
}

/// One of the machine's address ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Slot(pub(crate) u8);

impl Slot {
    /// The IPv4 range in the notation of `ip route`, up to the dot behind the second octet.
    pub(crate) fn prefix(self) -> String {
        format!("10.{}.", self.second())
    }

    fn second(self) -> u8 {
        FIRST_NET + self.0
    }

    /// The link from the caller's network namespace into the bed's.
    pub(crate) fn host_link(self) -> String {
        format!("oab{}-host", self.0)
    }

    /// The root of the bed's control groups, in every hierarchy.
    pub(crate) fn cgroup(self) -> String {
        format!("otelagent-bed-{}", self.0)
    }
}

/// Names and addresses of one bed.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) name: BedName,
    pub(crate) slot: Slot,
    pub(crate) addresses: Addresses,
}

/// The addresses of one family on the link between control plane, nodes and caller, and the pods behind it.
#[derive(Clone, Copy)]
pub(crate) struct Links<'a> {
    layout: &'a Layout,
    pub(crate) family: Family,
}

impl Links<'_> {
    /// An address by its last part.
    fn address(self, last: u8) -> IpAddr {
        self.layout.addr(self.family, 0, last)
    }

    /// The nodes' gateway.
    pub(crate) fn control_plane(self) -> IpAddr {
        self.address(1)
    }

    pub(crate) fn host(self) -> IpAddr {
        self.address(254)
    }

    pub(crate) fn node(self, node: u8) -> IpAddr {
        self.address(10 + node)
    }

    /// The pods of one node.
    pub(crate) fn pods(self, node: u8) -> String {
        self.layout.range(self.family, 64 + node, 24, 64)
    }

    /// What `ip addr add` gets of an address on the link, without its device.
    pub(crate) fn add(self, address: IpAddr) -> String {
        let (bits, flags) = (self.family.bits(24, 64), self.family.address_flags());
        format!("{address}/{bits}{flags}")
    }
}

impl Layout {
    /// An address by the third and last of its parts. IPv6 addresses are unique local ones (RFC 4193) with
    /// the same numbers.
    fn addr(&self, family: Family, third: u8, last: u8) -> IpAddr {
        let second = self.slot.second();
        match family {
            Family::V4 => Ipv4Addr::new(10, second, third, last).into(),
            Family::V6 => {
                let (second, third, last) = (second.into(), third.into(), last.into());
                Ipv6Addr::new(0xfd0a, second, third, 0, 0, 0, 0, last).into()
            }
        }
    }

    /// A range that begins at a third part, with its length in bits for either family.
    fn range(&self, family: Family, third: u8, v4_bits: u8, v6_bits: u8) -> String {
        let bits = family.bits(v4_bits, v6_bits);
        format!("{}/{bits}", self.addr(family, third, 0))
    }

    /// A range of each family, as programs take them in one flag.
    fn ranges(&self, third: u8, v4_bits: u8, v6_bits: u8) -> String {
        let families = self.addresses.families();
        let ranges = families.map(|family| self.range(family, third, v4_bits, v6_bits));
        ranges.collect::<Vec<_>>().join(",")
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.name.dir()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn pki(&self, name: &str) -> PathBuf {
        self.dir().join("pki").join(name)
    }

    pub(crate) fn log(&self, component: Component) -> PathBuf {
        self.name.log_dir().join(format!("{component}.log"))
    }

    pub(crate) fn pid_file(&self, component: Component) -> PathBuf {
        self.dir().join("pids").join(component.to_string())
    }

    pub(crate) fn node_dir(&self, node: u8) -> PathBuf {
        self.dir().join(node_name(node))
    }

    pub(crate) fn control_plane_netns(&self) -> String {
        format!("oab{}-cp", self.slot.0)
    }

    pub(crate) fn node_netns(&self, node: u8) -> String {
        format!("oab{}-n{node}", self.slot.0)
    }

    /// The control plane: API server, DNS, and the nodes' gateway.
    pub(crate) fn control_plane_ip(&self) -> IpAddr {
        self.first_links().control_plane()
    }

    /// The caller, as seen from pods and nodes.
    pub(crate) fn host_ip(&self) -> IpAddr {
        self.first_links().host()
    }

    pub(crate) fn node_ip(&self, node: u8) -> IpAddr {
        self.first_links().node(node)
    }

    /// All addresses of a node, as the kubelet takes them.
    pub(crate) fn node_ips(&self, node: u8) -> String {
        let ips = self.each_links().map(|links| links.node(node).to_string());
        ips.collect::<Vec<_>>().join(",")
    }

    fn first_links(&self) -> Links<'_> {
        self.links(self.addresses.first())
    }

    /// The network, one family after the other.
    pub(crate) fn each_links(&self) -> impl Iterator<Item = Links<'_>> {
        let families = self.addresses.families();
        families.map(|family| self.links(family))
    }

    fn links(&self, family: Family) -> Links<'_> {
        Links {
            layout: self,
            family,
        }
    }

    pub(crate) fn pod_range(&self) -> String {
        self.ranges(64, 18, 42)
    }

    pub(crate) fn service_range(&self) -> String {
        // The API server takes no more than 20 bits of an IPv6 range.
        self.ranges(128, 17, 112)
    }

    /// The address of the `kubernetes` Service.
    pub(crate) fn api_service_ip(&self) -> IpAddr {
        self.addr(self.addresses.first(), 128, 1)
    }

    pub(crate) fn server(&self) -> String {
        format!(
            "https://{}",
            SocketAddr::from((self.control_plane_ip(), 6443))
        )
    }

    pub(crate) fn node_cgroup(&self, node: u8) -> String {
        format!("{}/{}", self.slot.cgroup(), node_name(node))
    }

    /// The group a component's own process runs in. Pods are beside it, never above.
    pub(crate) fn component_cgroup(&self, component: Component) -> String {
        match component.node() {
            Some(node) => format!("{}/system", self.node_cgroup(node)),
            None => format!("{}/control-plane", self.slot.cgroup()),
        }
    }
}

/// The Kubernetes name of a node; nodes count from 1.
pub(crate) fn node_name(node: u8) -> String {
    format!("node{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_dns_labels() {
        for good in ["a", "default", "t-1", &"x".repeat(40)] {
            assert!(good.parse::<BedName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a b", &"x".repeat(41)] {
            assert!(bad.parse::<BedName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn links_fit_and_ranges_of_slots_and_nodes_do_not_meet() {
        let mut seen = std::collections::BTreeSet::new();
        let families = [Addresses::Ipv4, Addresses::Ipv6];
        let both = |slot| families.map(|addresses| (slot, addresses));
        for (slot, addresses) in (0..SLOTS).map(Slot).flat_map(both) {
            let layout = Layout {
                name: "x".parse().unwrap(),
                slot,
                addresses,
            };
            assert!(slot.host_link().len() <= 15);
            assert!(seen.insert(layout.host_ip().to_string()));
            assert!(seen.insert(layout.control_plane_ip().to_string()));
            assert!(seen.insert(layout.service_range()));
            for node in 1..=MAX_NODES {
                assert!(seen.insert(layout.node_ip(node).to_string()));
                assert!(seen.insert(layout.first_links().pods(node)));
            }
            assert!(
                seen.iter()
                    .filter(|range| range.starts_with(&slot.prefix()))
                    .count()
                    > 3
            );
        }
    }
}
