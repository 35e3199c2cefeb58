//! What is known of a cluster before a mode is chosen. Everything may be unknown.

use std::collections::BTreeSet;
use std::fmt;

use crate::build::{IpFamily, ServerVersion};

/// What a person can observe of a cluster with rights of their own, and what that person wants. `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Version of the API server.
    pub server: Option<ServerVersion>,
    /// What forwards the traffic of Services.
    pub data_plane: Option<DataPlane>,
    /// Whether it honours `internalTrafficPolicy`, where that is known otherwise than by its name.
    pub internal_traffic_policy: Option<bool>,
    /// Whether it honours `trafficDistribution: PreferSameNode`, where that is known otherwise than by its name.
    pub same_node_preference: Option<bool>,
    /// Whether the network plugin maps host ports, where that is known otherwise than by the data plane.
    pub host_ports: Option<bool>,
    /// Families of the nodes' first addresses.
    pub node_addresses: Option<NodeAddresses>,
    /// Number of nodes.
    pub nodes: Option<usize>,
    /// Of these, nodes that run none of the agents' pods, such as virtual nodes.
    pub nodes_without_agents: Option<usize>,
    /// Selected pods on such nodes.
    pub pods_without_agents: Option<usize>,
    /// Ports that something else takes on nodes.
    pub taken_ports: Option<BTreeSet<u16>>,
    /// Whether the namespace of the `OtelAgent` is a platform namespace.
    pub platform_namespace: Option<bool>,
    /// Enforced Pod Security level of that namespace.
    pub agents_level: Option<PodSecurityLevel>,
    /// Whose the selected namespaces are.
    pub teams: Option<Teams>,
    /// How the selected pods are spread over nodes.
    pub pods_per_node: Option<PodsPerNode>,
    /// Telemetry of the busiest node in percent of the median node's.
    pub busiest_node_percent: Option<u32>,
    /// Whether the applications run on the host network.
    pub on_host_network: Option<bool>,
    /// Whether agents are to add the name of their node.
    pub host_metadata: Option<bool>,
    /// Whether telemetry must be delivered while a node's own agent is not ready.
    pub deliver_without_own_agent: Option<bool>,
    /// Whether applications are to have agents of their own, isolated from those of others.
    pub own_agents: Option<bool>,
    /// Whether pods are short-lived and their last spans matter.
    pub last_spans: Option<bool>,
}

/// What forwards the traffic of Services to their pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataPlane {
    /// kube-proxy.
    KubeProxy,
    /// kube-proxy, with Cilium as the network plugin.
    CiliumWithKubeProxy,
    /// Cilium in place of kube-proxy.
    Cilium,
    /// Another one, with its name.
    Other(String),
}

impl ClusterFacts {
    /// Whether `internalTrafficPolicy` is honoured. Cilium does so from 1.13 on.
    pub fn keeps_to_the_node(&self) -> Option<bool> {
        let by_name = || match self.data_plane.as_ref()? {
            DataPlane::KubeProxy | DataPlane::CiliumWithKubeProxy | DataPlane::Cilium => Some(true),
            DataPlane::Other(_) => None,
        };
        self.internal_traffic_policy.or_else(by_name)
    }

    /// Whether `trafficDistribution: PreferSameNode` is honoured for pods. Cilium documents hints for zones only, and
    /// beside kube-proxy it ignores them (cilium/cilium#44060).
    pub fn prefers_the_node(&self) -> Option<bool> {
        let by_name = || match self.data_plane.as_ref()? {
            DataPlane::KubeProxy => Some(true),
            DataPlane::CiliumWithKubeProxy => Some(false),
            DataPlane::Cilium | DataPlane::Other(_) => None,
        };
        self.same_node_preference.or_else(by_name)
    }

    /// Whether host ports are mapped. Cilium does so in place of kube-proxy; otherwise that is the work of a plugin,
    /// which cannot be seen.
    pub fn maps_host_ports(&self) -> Option<bool> {
        let by_name = || (self.data_plane == Some(DataPlane::Cilium)).then_some(true);
        self.host_ports.or_else(by_name)
    }
}

/// Families of the nodes' first addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeAddresses {
    /// All of one family.
    Same(IpFamily),
    /// Some of one, some of the other.
    Mixed,
}

/// A Pod Security level, the strictest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodSecurityLevel {
    /// `restricted`.
    #[default]
    Restricted,
    /// `baseline`.
    Baseline,
    /// `privileged`: everything is allowed.
    Privileged,
}

impl PodSecurityLevel {
    /// The label of namespaces with the enforced level.
    pub const LABEL: &str = "pod-security.kubernetes.io/enforce";

    /// The level that a label's value names, if any.
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Restricted, Self::Baseline, Self::Privileged];
        all.into_iter().find(|level| level.as_str() == text)
    }

    /// As labels have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::Baseline => "baseline",
            Self::Privileged => "privileged",
        }
    }
}

/// Whose namespaces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teams {
    /// One team's.
    One,
    /// Several teams'.
    Several,
}

/// How pods are spread over nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodsPerNode {
    /// The fewest on a node.
    pub min: usize,
    /// The median.
    pub median: usize,
    /// The most on a node.
    pub max: usize,
    /// All of them.
    pub total: usize,
}

impl PodsPerNode {
    /// The spread of these numbers of pods, one for each node; `None` without a node.
    pub fn of(mut counts: Vec<usize>) -> Option<Self> {
        counts.sort_unstable();
        Some(Self {
            min: *counts.first()?,
            median: *counts.get(counts.len() / 2)?,
            max: *counts.last()?,
            total: counts.iter().sum(),
        })
    }
}

/// One of the facts, to say that it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as their names in ClusterFacts say")]
pub enum ClusterFact {
    Server,
    PlatformNamespace,
    NodesWithoutAgents,
    PodsWithoutAgents,
    InternalTrafficPolicy,
    SameNodePreference,
    HostPorts,
    AgentsLevel,
    TakenPorts,
    NodeAddresses,
    OnHostNetwork,
    HostMetadata,
    DeliverWithoutOwnAgent,
    OwnAgents,
    LastSpans,
    Teams,
    PodsPerNode,
    BusiestNode,
}

/// What is unknown, as in "it is not known ...".
impl fmt::Display for ClusterFact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "which version of Kubernetes the API server has",
            Self::PlatformNamespace => "whether the OtelAgent's namespace is a platform namespace",
            Self::NodesWithoutAgents => "whether nodes run DaemonSets",
            Self::PodsWithoutAgents => "whether selected pods run where DaemonSets do not",
            Self::InternalTrafficPolicy => "whether the data plane honours internalTrafficPolicy",
            Self::SameNodePreference => {
                "whether the data plane honours trafficDistribution PreferSameNode"
            }
            Self::HostPorts => "whether the network plugin maps host ports",
            Self::AgentsLevel => "which Pod Security level the namespace of the agents has",
            Self::TakenPorts => "whether the agent's ports are free on the nodes",
            Self::NodeAddresses => "of which family the nodes' addresses are",
            Self::OnHostNetwork => "whether the applications run on the host network",
            Self::HostMetadata => "whether agents are to add the name of their node",
            Self::DeliverWithoutOwnAgent => {
                "whether telemetry must be delivered while a node's own agent is not ready"
            }
            Self::OwnAgents => "whether applications are to have agents of their own",
            Self::LastSpans => "whether pods are short-lived and their last spans matter",
            Self::Teams => "whether the namespaces belong to one team or to several",
            Self::PodsPerNode => "how many nodes and selected pods there are",
            Self::BusiestNode => "how unevenly telemetry is spread over the nodes",
        })
    }
}
