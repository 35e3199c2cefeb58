//! The installation and the cluster, as far as rendered objects depend on them.

use std::collections::BTreeSet;

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
    use super::*;

    #[test]
    fn vendor_mark_after_the_minor_version_is_ignored() {
        let version = ServerVersion::parse("1", "36+").unwrap();
        assert!(version.is_at_least(36) && !version.is_at_least(37));
    }
}
