//! Reads the facts of a cluster from its objects.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use otelagent_api::{OtelAgent, ResourceExt};

use super::facts::{ClusterFacts, DataPlane, NodeAddresses, PodSecurityLevel, PodsPerNode};
use crate::build::{Environment, Object, build, selection, validate};
use crate::mode_option::ModeOption;
use crate::node_addresses::families;
use crate::switching::{NodeState, Targets};

/// What a person may read of a cluster. `None` is what that person may not read.
#[derive(Clone, Debug, Default)]
pub struct Seen<'a> {
    /// The nodes.
    pub nodes: Option<&'a [Node]>,
    /// The pods that have neither ended nor are mirrors of static ones, of all namespaces.
    pub pods: Option<&'a [SeenPod<'a>]>,
    /// Names of the `DaemonSet`s and pods of the system's namespace.
    pub system: Option<&'a BTreeSet<String>>,
    /// Cilium's `ConfigMap`.
    pub cilium: Option<&'a BTreeMap<String, String>>,
    /// Labels of the namespace of the `OtelAgent`.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
}

/// A pod, as far as it matters to the choice of a mode.
#[derive(Clone, Debug)]
pub struct SeenPod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The node on which it runs.
    pub node: Option<&'a str>,
    /// Whether it is on the host network.
    pub on_host_network: bool,
    /// The ports of its node that it declares.
    pub node_ports: BTreeSet<u16>,
    /// Whether it is an agent of this `OtelAgent`.
    pub is_own_agent: bool,
}

impl DataPlane {
    /// By the names of what runs in the system's namespace, and by Cilium's settings. `None` where nothing is
    /// recognized: some platforms run kube-proxy where it cannot be seen.
    pub fn recognize(
        system: &BTreeSet<String>,
        cilium: Option<&BTreeMap<String, String>>,
    ) -> Option<Self> {
        let runs = |name: &str| system.iter().any(|one| one.starts_with(name));
        let replaces = cilium.and_then(|settings| settings.get("kube-proxy-replacement"));
        let replaces = replaces.is_some_and(|value| value == "true" || value == "strict");
        match (runs("kube-proxy"), cilium.is_some() || runs("cilium")) {
            (_, true) if replaces => Some(Self::Cilium),
            (true, true) => Some(Self::CiliumWithKubeProxy),
            (true, false) => Some(Self::KubeProxy),
            (false, _) => None,
        }
    }
}

impl ClusterFacts {
    /// The facts that objects show of the cluster in which an `OtelAgent` is to be created. What a person wants is not
    /// among them.
    pub fn of(seen: &Seen<'_>, draft: &OtelAgent, environment: &Environment) -> Self {
        let namespace = draft.namespace().unwrap_or_default();
        let selected = seen.pods.map(|pods| selected(pods, draft, environment));
        let left_out = seen
            .nodes
            .and_then(|nodes| without_agents(nodes, draft, environment));
        let level = |labels: &BTreeMap<String, String>| {
            PodSecurityLevel::parse(labels.get(PodSecurityLevel::LABEL)?)
        };
        Self {
            server: Some(environment.server),
            data_plane: seen
                .system
                .and_then(|system| DataPlane::recognize(system, seen.cilium)),
            node_addresses: seen.nodes.and_then(addresses),
            nodes: seen.nodes.map(<[Node]>::len),
            nodes_without_agents: left_out.as_ref().map(BTreeSet::len),
            pods_without_agents: left_out.as_ref().zip(selected.as_deref()).map(
                |(left_out, selected)| {
                    let nodes = selected.iter().filter_map(|pod| pod.node);
                    nodes.filter(|node| left_out.contains(*node)).count()
                },
            ),
            taken_ports: seen.pods.map(taken_ports),
            platform_namespace: Some(environment.is_platform(&namespace)),
            agents_level: seen.namespace_labels.and_then(level),
            pods_per_node: seen
                .nodes
                .zip(selected.as_deref())
                .and_then(|(nodes, selected)| spread(nodes, selected)),
            on_host_network: selected
                .as_ref()
                .filter(|pods| !pods.is_empty())
                .map(|pods| {
                    let mut pods = pods.iter();
                    pods.all(|pod| pod.on_host_network)
                }),
            host_metadata: draft.spec.host_metadata,
            ..Self::default()
        }
    }
}

fn addresses(nodes: &[Node]) -> Option<NodeAddresses> {
    let mut families = families(nodes);
    let first = families.next()?;
    Some(if families.all(|family| family == first) {
        NodeAddresses::Same(first)
    } else {
        NodeAddresses::Mixed
    })
}

fn taken_ports(pods: &[SeenPod<'_>]) -> BTreeSet<u16> {
    let others = pods.iter().filter(|pod| !pod.is_own_agent);
    others.flat_map(|pod| &pod.node_ports).copied().collect()
}

/// The pods that the `OtelAgent` selects.
fn selected<'a, 'b>(
    pods: &'b [SeenPod<'a>],
    draft: &OtelAgent,
    environment: &Environment,
) -> Vec<&'b SeenPod<'a>> {
    let Some(selection) = selection(draft) else {
        return Vec::new();
    };
    let is_selected = |pod: &&SeenPod<'_>| {
        !environment.is_excluded(pod.namespace)
            && selection.matches(pod.namespace, pod.namespace_labels, pod.labels)
    };
    pods.iter().filter(is_selected).collect()
}

/// How many selected pods each node has.
fn spread(nodes: &[Node], selected: &[&SeenPod<'_>]) -> Option<PodsPerNode> {
    let mut counts: BTreeMap<String, usize> =
        nodes.iter().map(|node| (node.name_any(), 0)).collect();
    for pod in selected {
        if let Some(count) = pod.node.and_then(|node| counts.get_mut(node)) {
            *count += 1;
        }
    }
    PodsPerNode::of(counts.into_values().collect())
}

/// The nodes that agents would leave out; `None` if no agents can be rendered.
fn without_agents(
    nodes: &[Node],
    draft: &OtelAgent,
    environment: &Environment,
) -> Option<BTreeSet<String>> {
    let mut on_nodes = draft.clone();
    ModeOption::NodeLocalRequire.choose(&mut on_nodes.spec);
    let mut environment = environment.clone();
    let namespace = draft.namespace().unwrap_or_default();
    environment.platform_namespaces.insert(namespace);
    let valid = validate(&on_nodes, &environment).ok()?;
    let mode = valid.wanted();
    let desired = build(&valid, &environment, [mode]);
    let mut objects = desired.objects(mode).iter();
    let targets = objects.find_map(|object| match object {
        Object::DaemonSet(object) => Some(Targets::of(object)),
        Object::Service(_) => None,
    })?;
    let names = nodes.iter().map(|node| (node.name_any(), state(node)));
    let left_out = names.filter(|(name, state)| targets.leaves_out(name, state).is_some());
    Some(left_out.map(|(name, _)| name).collect())
}

/// A node as `DaemonSet`s see it.
fn state(node: &Node) -> NodeState {
    let spec = node.spec.as_ref();
    NodeState {
        ready: true,
        labels: node.labels().clone(),
        taints: spec
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default(),
    }
}
