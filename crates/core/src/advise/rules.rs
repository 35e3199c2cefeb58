//! The rules by which a mode is advised: one table, of which verdicts, previews and a table of `docs/modes.md` are made.

use std::cmp::Ordering;
use std::fmt;

use super::facts::{ClusterFact, ClusterFacts, NodeAddresses, PodSecurityLevel, Teams};
use super::needs::{Need, Needs};
use crate::build::{IpFamily, OLDEST_SERVER, PREFER_SAME_NODE};
use crate::measured::measured;
use crate::mode_option::ModeOption;
use otelagent_api::{Mode, Routing};

/// What a rule says of a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// It does not concern the mode.
    Nothing,
    /// It speaks for the mode.
    For,
    /// It is a reason to choose the mode before all others.
    CallsFor,
    /// It speaks against the mode.
    Against,
    /// The mode cannot work.
    Prevents,
}

/// A mode in a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// The mode.
    pub option: ModeOption,
    /// What it needs.
    pub needs: &'a Needs,
    /// The cluster, and what is wanted.
    pub facts: &'a ClusterFacts,
    /// What sidecars reserve compared with agents on nodes.
    pub sidecars: Option<Ordering>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// What it says.
    pub reason: ModeReason,
    /// The fact that decides whether it applies; `None` if it always does.
    pub fact: Option<ClusterFact>,
    /// The reason as a sentence.
    sentence: &'static str,
    /// What to do where it prevents a mode or speaks against it; empty where nothing can be done.
    remedy: &'static str,
    effect: fn(&Judged<'_>) -> Option<Effect>,
}

impl Rule {
    /// What it says of a mode; `None` if the fact is unknown.
    pub fn effect(&self, judged: &Judged<'_>) -> Option<Effect> {
        (self.effect)(judged)
    }
}

/// What speaks for a mode, against it, or prevents it. [`fmt::Display`] is a sentence about the cluster, about what is
/// wanted or about the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "as their sentences say")]
pub enum ModeReason {
    ServerTooOld,
    NoSameNodeRouting,
    NoPlatformNamespace,
    NoNodeRunsAgents,
    SomeNodesRunNoAgents,
    InternalTrafficPolicyIgnored,
    SameNodePreferenceIgnored,
    HostPortsNotMapped,
    NamespaceNotPrivileged,
    NodePortsTaken,
    NodeAddressesDiffer,
    NodeAddressesAreIpv6,
    HostMetadataWanted,
    DeliveryWithoutOwnAgent,
    OwnAgentsWanted,
    LastSpansMatter,
    OnHostNetwork,
    SeveralTeams,
    SidecarsReserveMore,
    SidecarsReserveLess,
    LoadIsUneven,
    StaysOnTheNode,
    CrossesNodes,
    RestrictedIsEnough,
    UpdatesHaveGaps,
    ChangesWithThePod,
    OneAgentPerPod,
}

impl ModeReason {
    fn rule(self) -> Option<&'static Rule> {
        RULES.iter().find(|rule| rule.reason == self)
    }

    /// What to do where it prevents a mode or speaks against it; `None` where nothing can be done.
    pub fn remedy(self) -> Option<&'static str> {
        let remedy = self.rule()?.remedy;
        (!remedy.is_empty()).then_some(remedy)
    }
}

impl fmt::Display for ModeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.rule().map_or("", |rule| rule.sentence))
    }
}

/// This effect on the modes that the rule concerns, if it applies, which may be unknown.
fn on(is_concerned: bool, applies: Option<bool>, effect: Effect) -> Option<Effect> {
    if !is_concerned {
        return Some(Effect::Nothing);
    }
    applies.map(|applies| if applies { effect } else { Effect::Nothing })
}

impl Judged<'_> {
    /// This effect on the modes that need something of the cluster, if the rule applies.
    fn needing(&self, need: Need, applies: Option<bool>, effect: Effect) -> Option<Effect> {
        on(self.needs.has(need), applies, effect)
    }

    /// One effect on sidecars and one on agents of nodes, if the rule applies.
    fn split(&self, applies: Option<bool>, sidecar: Effect, nodes: Effect) -> Option<Effect> {
        let effect = if self.option.mode().on_nodes() {
            nodes
        } else {
            sidecar
        };
        on(true, applies, effect)
    }

    fn on_nodes(&self) -> bool {
        self.option.mode().on_nodes()
    }

    fn prefers(&self) -> bool {
        self.option.routing() == Routing::Prefer
    }

    /// Nodes that run none of the agents' pods, and all nodes.
    fn nodes(&self) -> Option<(usize, usize)> {
        self.facts.nodes_without_agents.zip(self.facts.nodes)
    }
}

/// From which load of the busiest node on, in percent of the median one's, the load counts as uneven.
const UNEVEN: u32 = 200;

/// All rules, in the order in which people read them: what prevents a mode, what is wanted, what a mode costs, and what
/// is always so.
pub const RULES: [Rule; 27] = [
    Rule {
        reason: ModeReason::ServerTooOld,
        fact: Some(ClusterFact::Server),
        sentence: "the API server is older than Kubernetes 1.33, and nothing can be injected",
        remedy: "upgrade the cluster",
        effect: |judged| {
            let server = judged.facts.server;
            on(
                true,
                server.map(|server| !server.is_at_least(OLDEST_SERVER)),
                Effect::Prevents,
            )
        },
    },
    Rule {
        reason: ModeReason::NoSameNodeRouting,
        fact: Some(ClusterFact::Server),
        sentence: "the API server is older than Kubernetes 1.34 and has no trafficDistribution PreferSameNode",
        remedy: "use routing Require, or upgrade the cluster",
        effect: |judged| {
            let server = judged.facts.server;
            let applies = server.map(|server| !server.is_at_least(PREFER_SAME_NODE));
            judged.needing(Need::SameNodePreference, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::NoPlatformNamespace,
        fact: Some(ClusterFact::PlatformNamespace),
        sentence: "the OtelAgent's namespace is no platform namespace, and only those may have agents on nodes",
        remedy: "use mode Sidecar, or ask the platform team to create the OtelAgent in a platform namespace",
        effect: |judged| {
            let applies = judged
                .facts
                .platform_namespace
                .map(|is_platform| !is_platform);
            on(judged.on_nodes(), applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::NoNodeRunsAgents,
        fact: Some(ClusterFact::NodesWithoutAgents),
        sentence: "no node runs the pods of a DaemonSet",
        remedy: "use mode Sidecar",
        effect: |judged| {
            let applies = judged.nodes().map(|(without, all)| without >= all);
            judged.needing(Need::DaemonSets, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::SomeNodesRunNoAgents,
        fact: Some(ClusterFact::PodsWithoutAgents),
        sentence: "some selected pods are on nodes that do not run the pods of a DaemonSet, and would have no agent",
        remedy: "keep them off these nodes, or select them by a second OtelAgent in mode Sidecar",
        effect: |judged| {
            let applies = judged.facts.pods_without_agents.map(|pods| pods > 0);
            judged.needing(Need::DaemonSets, applies, Effect::Against)
        },
    },
    Rule {
        reason: ModeReason::InternalTrafficPolicyIgnored,
        fact: Some(ClusterFact::InternalTrafficPolicy),
        sentence: "the data plane ignores internalTrafficPolicy, and a Service would send telemetry to other nodes",
        remedy: "use mode HostPort or HostNetwork, which have no Service",
        effect: |judged| {
            let facts = judged.facts;
            // One that ignores the older field is not known to honour the newer one.
            let is_uncertain = facts.prefers_the_node() != Some(true);
            let has_service = judged.needs.has(Need::InternalTrafficPolicy)
                || judged.needs.has(Need::SameNodePreference) && is_uncertain;
            let applies = facts.keeps_to_the_node().map(|keeps| !keeps);
            on(has_service, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::SameNodePreferenceIgnored,
        fact: Some(ClusterFact::SameNodePreference),
        sentence: "the data plane ignores trafficDistribution PreferSameNode, and a Service would spread telemetry over all nodes",
        remedy: "use routing Require, or mode HostPort",
        effect: |judged| {
            let applies = judged.facts.prefers_the_node().map(|prefers| !prefers);
            judged.needing(Need::SameNodePreference, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::HostPortsNotMapped,
        fact: Some(ClusterFact::HostPorts),
        sentence: "the network plugin maps no host ports, and applications would not reach the agent",
        remedy: "add the plugin portmap to the network plugin, or use another mode",
        effect: |judged| {
            let applies = judged.facts.maps_host_ports().map(|maps| !maps);
            judged.needing(Need::HostPorts, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::NamespaceNotPrivileged,
        fact: Some(ClusterFact::AgentsLevel),
        sentence: "the Pod Security level of the agents' namespace forbids host ports and the host network",
        remedy: "label the namespace pod-security.kubernetes.io/enforce=privileged, or use mode NodeLocal or Sidecar",
        effect: |judged| {
            let level = judged.facts.agents_level;
            let applies = level.map(|level| level < PodSecurityLevel::Privileged);
            judged.needing(Need::Privileged, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::NodePortsTaken,
        fact: Some(ClusterFact::TakenPorts),
        sentence: "something else takes a port of the agent on a node",
        remedy: "free the port, or create another OtelAgent with other spec.ports",
        effect: |judged| {
            let needed = &judged.needs.node_ports;
            let taken = judged.facts.taken_ports.as_ref();
            let applies = taken.map(|taken| !taken.is_disjoint(needed));
            on(!needed.is_empty(), applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::NodeAddressesDiffer,
        fact: Some(ClusterFact::NodeAddresses),
        sentence: "some nodes have an IPv4 address first and some an IPv6 address, and pods on some would get a wrong URL",
        remedy: "use mode NodeLocal or Sidecar, whose endpoints have no address of a node",
        effect: |judged| {
            let applies = judged
                .facts
                .node_addresses
                .map(|all| all == NodeAddresses::Mixed);
            judged.needing(Need::NodeAddresses, applies, Effect::Prevents)
        },
    },
    Rule {
        reason: ModeReason::NodeAddressesAreIpv6,
        fact: Some(ClusterFact::NodeAddresses),
        sentence: "applications get the IPv6 address of their node in brackets, which some SDKs do not read",
        remedy: "make sure that the SDKs read such a URL (docs/pods.md), or use mode NodeLocal or Sidecar",
        effect: |judged| {
            let ipv6 = NodeAddresses::Same(IpFamily::V6);
            let applies = judged.facts.node_addresses.map(|all| all == ipv6);
            judged.needing(Need::NodeAddresses, applies, Effect::Against)
        },
    },
    Rule {
        reason: ModeReason::HostMetadataWanted,
        fact: Some(ClusterFact::HostMetadata),
        sentence: "agents are to add the name of their node, and with routing Prefer another node's agent would add its own",
        remedy: "use routing Require, or leave hostMetadata out",
        effect: |judged| {
            on(
                judged.prefers(),
                judged.facts.host_metadata,
                Effect::Prevents,
            )
        },
    },
    Rule {
        reason: ModeReason::OnHostNetwork,
        fact: Some(ClusterFact::OnHostNetwork),
        sentence: "the applications run on the host network",
        remedy: "use mode HostNetwork; with NodeLocal such pods need dnsPolicy ClusterFirstWithHostNet, and they get no sidecar",
        effect: |judged| {
            let effect = match judged.option.mode() {
                Mode::HostNetwork => Effect::CallsFor,
                Mode::HostPort => Effect::Nothing,
                Mode::NodeLocal => Effect::Against,
                Mode::Sidecar => Effect::Prevents,
            };
            on(true, judged.facts.on_host_network, effect)
        },
    },
    Rule {
        reason: ModeReason::DeliveryWithoutOwnAgent,
        fact: Some(ClusterFact::DeliverWithoutOwnAgent),
        sentence: "telemetry must be delivered while a node's own agent is being replaced or is broken",
        remedy: "",
        effect: |judged| {
            let effect = if judged.prefers() {
                Effect::CallsFor
            } else {
                Effect::Against
            };
            on(
                judged.on_nodes(),
                judged.facts.deliver_without_own_agent,
                effect,
            )
        },
    },
    Rule {
        reason: ModeReason::OwnAgentsWanted,
        fact: Some(ClusterFact::OwnAgents),
        sentence: "a team wants agents of its own, with their own size and isolated from others",
        remedy: "",
        effect: |judged| judged.split(judged.facts.own_agents, Effect::CallsFor, Effect::Against),
    },
    Rule {
        reason: ModeReason::LastSpansMatter,
        fact: Some(ClusterFact::LastSpans),
        sentence: "pods are short-lived and their last spans matter, and a sidecar ends after its application",
        remedy: "",
        effect: |judged| judged.split(judged.facts.last_spans, Effect::CallsFor, Effect::Nothing),
    },
    Rule {
        reason: ModeReason::SeveralTeams,
        fact: Some(ClusterFact::Teams),
        sentence: "the namespaces belong to several teams, which share the queue and the limits of an agent on a node",
        remedy: "",
        effect: |judged| {
            let applies = judged.facts.teams.map(|teams| teams == Teams::Several);
            judged.split(applies, Effect::For, Effect::Against)
        },
    },
    Rule {
        reason: ModeReason::SidecarsReserveMore,
        fact: Some(ClusterFact::PodsPerNode),
        sentence: "sidecars reserve more than agents on nodes",
        remedy: "",
        effect: |judged| {
            let applies = judged.sidecars.map(Ordering::is_gt);
            judged.split(applies, Effect::Against, Effect::For)
        },
    },
    Rule {
        reason: ModeReason::SidecarsReserveLess,
        fact: Some(ClusterFact::PodsPerNode),
        sentence: "sidecars reserve less than agents on nodes",
        remedy: "",
        effect: |judged| {
            let applies = judged.sidecars.map(Ordering::is_lt);
            judged.split(applies, Effect::For, Effect::Against)
        },
    },
    Rule {
        reason: ModeReason::LoadIsUneven,
        fact: Some(ClusterFact::BusiestNode),
        sentence: "the busiest node has more than twice the telemetry of the median one, and all agents on nodes get the size for it",
        remedy: "",
        effect: |judged| {
            let applies = judged
                .facts
                .busiest_node_percent
                .map(|percent| percent > UNEVEN);
            judged.split(applies, Effect::For, Effect::Against)
        },
    },
    Rule {
        reason: ModeReason::StaysOnTheNode,
        fact: None,
        sentence: "telemetry does not leave the node before an agent has it",
        remedy: "",
        effect: |judged| on(!judged.prefers(), Some(true), Effect::For),
    },
    Rule {
        reason: ModeReason::CrossesNodes,
        fact: None,
        sentence: "telemetry crosses nodes, unencrypted, while a node's own agent is not ready",
        remedy: "",
        effect: |judged| on(judged.prefers(), Some(true), Effect::Against),
    },
    Rule {
        reason: ModeReason::RestrictedIsEnough,
        fact: None,
        sentence: "Pod Security level restricted is enough",
        remedy: "",
        effect: |judged| on(!judged.needs.has(Need::Privileged), Some(true), Effect::For),
    },
    Rule {
        reason: ModeReason::UpdatesHaveGaps,
        fact: None,
        sentence: "an update of the agent has a gap on each node (docs/switching.md)",
        remedy: "",
        effect: |judged| {
            let update = measured(judged.option, judged.option);
            on(
                true,
                Some(update.is_some_and(|update| update.lost > 0)),
                Effect::Against,
            )
        },
    },
    Rule {
        reason: ModeReason::ChangesWithThePod,
        fact: None,
        sentence: "a change of the agent reaches an application only with a new pod",
        remedy: "",
        effect: |judged| judged.split(Some(true), Effect::Against, Effect::Nothing),
    },
    Rule {
        reason: ModeReason::OneAgentPerPod,
        fact: None,
        sentence: "a broken agent affects one pod only",
        remedy: "",
        effect: |judged| judged.split(Some(true), Effect::For, Effect::Nothing),
    },
];
