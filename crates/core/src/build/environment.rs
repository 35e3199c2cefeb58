//! The installation and the cluster, as far as rendered objects depend on them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use otelagent_api::ResourceExt;

/// What tells nodes that are no machines with Linux.
const OS_LABEL: &str = "kubernetes.io/os";
const VIRTUAL_TAINT: &str = "virtual-kubelet.io/provider";

/// The installation and the cluster, as the controller found them at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The operator's own namespace; its pods are never injected.
    pub operator_namespace: String,
    /// Namespaces whose `OtelAgent`s may act on other namespaces and use node modes.
    pub platform_namespaces: BTreeSet<String>,
    /// Image of the bundled agent.
    pub agent_image: String,
    /// Version of the API server.
    pub server: ServerVersion,
    /// Family of the nodes' first addresses, which pods get as `status.hostIP`.
    pub nodes: IpFamily,
    /// Version of this operator, such as `0.1.0`.
    pub operator_version: String,
}

/// An IP address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamily {
    /// IPv4.
    #[default]
    V4,
    /// IPv6; in brackets before a port (RFC 3986, 3.2.2).
    V6,
}

impl IpFamily {
    /// The family of the address that the kubelet gives to pods (`GetNodeHostIPs`): the first internal one, else the first
    /// external one. Nodes that are not initialized have neither, and virtual ones have what their provider likes: Linux nodes
    /// that a kubelet runs come first.
    pub fn of(nodes: &[Node]) -> Option<Self> {
        let is_virtual = |node: &Node| {
            let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
            let mut taints = taints.into_iter().flatten();
            let is_windows = node.labels().get(OS_LABEL).is_some_and(|os| os != "linux");
            is_windows || taints.any(|taint| taint.key == VIRTUAL_TAINT)
        };
        let family = |node: &Node| {
            let status = node.status.as_ref()?;
            let addresses = status.addresses.as_ref()?;
            let of = |type_: &str| addresses.iter().find(|address| address.type_ == type_);
            let first = of("InternalIP").or_else(|| of("ExternalIP"))?;
            Some(if first.address.contains(':') {
                Self::V6
            } else {
                Self::V4
            })
        };
        let mut real = nodes.iter().filter(|node| !is_virtual(node));
        real.find_map(family)
            .or_else(|| nodes.iter().find_map(family))
    }
}

impl Environment {
    /// Whether an `OtelAgent` of this namespace may have agents on nodes and act on other namespaces.
    pub fn is_platform(&self, namespace: &str) -> bool {
        self.platform_namespaces.contains(namespace)
    }

    /// Namespaces whose pods are never injected: the system's, and the operator's own.
    pub fn excluded_namespaces(&self) -> impl Iterator<Item = &str> {
        ["kube-system", self.operator_namespace.as_str()].into_iter()
    }

    /// Whether pods of a namespace are never injected.
    pub fn is_excluded(&self, namespace: &str) -> bool {
        self.excluded_namespaces()
            .any(|excluded| excluded == namespace)
    }
}

/// Version of an API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// Major version; 1.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl ServerVersion {
    /// Reads the `major` and `minor` of `/version`, where vendors append marks such as `37+`.
    pub fn parse(major: &str, minor: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        Some(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }

    /// Whether such servers have stable mutating admission policies, unless they are told to serve none.
    pub fn has_policies(self) -> bool {
        self.is_at_least(36)
    }

    /// Whether this server is at least 1.`minor`.
    pub fn is_at_least(self, minor: u32) -> bool {
        self >= Self { major: 1, minor }
    }
}

impl std::fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn vendor_mark_after_the_minor_version_is_ignored() {
        let version = ServerVersion::parse("1", "36+").unwrap();
        assert!(version.is_at_least(36) && !version.is_at_least(37));
    }

    #[test]
    fn family_is_that_of_the_first_linux_node_with_an_address() {
        let node = |labels: Value, taint: &str, addresses: &[(&str, &str)]| -> Node {
            let addresses = addresses.iter();
            let addresses: Vec<Value> = addresses
                .map(|(type_, address)| json!({"type": type_, "address": address}))
                .collect();
            let taints = json!([{"key": taint, "effect": "NoSchedule"}]);
            serde_json::from_value(json!({
                "metadata": {"labels": labels}, "spec": {"taints": taints}, "status": {"addresses": addresses},
            }))
            .unwrap()
        };
        let (linux, windows) = (json!({OS_LABEL: "linux"}), json!({OS_LABEL: "windows"}));
        let new = node(linux.clone(), "own", &[("Hostname", "n1")]);
        let virtual_node = node(linux.clone(), VIRTUAL_TAINT, &[("InternalIP", "10.0.0.1")]);
        let other = node(windows, "own", &[("InternalIP", "10.0.0.2")]);
        let v6 = node(
            linux.clone(),
            "own",
            &[("ExternalIP", "1.2.3.4"), ("InternalIP", "fd00::1")],
        );
        let outside = node(linux, "own", &[("ExternalIP", "2001:db8::1")]);
        let first = [new.clone(), virtual_node.clone(), other];
        assert_eq!(IpFamily::of(&[]), None);
        assert_eq!(IpFamily::of(std::slice::from_ref(&new)), None);
        assert_eq!(IpFamily::of(&first), Some(IpFamily::V4));
        for real in [v6, outside] {
            let nodes = [&first[..], &[real]].concat();
            assert_eq!(IpFamily::of(&nodes), Some(IpFamily::V6));
        }
    }
}
