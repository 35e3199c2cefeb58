//! Ports of the nodes, which two `OtelAgent`s cannot share.
//!
//! Nothing else keeps them apart. The kernel lets agents on the host network share a port, and a host port
//! takes the traffic of an agent on the host network without an error.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::DaemonSet;
use otelagent_api::{Mode, OtelAgentSpec, Ports};
use serde_json::Value;

use super::modes::topology;
use super::validate::Problem;
use crate::names;

/// The reason of this problem.
pub const PORT_IN_USE: &str = "PortInUse";

/// The ports that the agents of one mode take on their nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePorts {
    /// The mode.
    pub mode: Mode,
    /// The ports; never empty.
    pub ports: BTreeSet<u16>,
    /// Labels of the nodes.
    pub nodes: BTreeMap<String, String>,
}

impl NodePorts {
    /// What a spec asks for; `None` if its mode takes no ports of nodes.
    pub fn wanted(spec: &OtelAgentSpec) -> Option<Self> {
        let ports = (topology(spec.mode).node_ports)(spec.ports);
        let agent = spec.agent.as_ref();
        let nodes = agent.map(|agent| agent.node_selector.clone());
        Self::of(spec.mode, ports, nodes.unwrap_or_default())
    }

    /// What an agent workload takes, as its annotation says.
    pub fn running(mode: Mode, workload: &DaemonSet) -> Option<Self> {
        let annotations = workload.metadata.annotations.as_ref()?;
        let ports = annotations.get(names::ANNOTATION_NODE_PORTS)?;
        let pods = workload.spec.as_ref()?.template.spec.as_ref()?;
        let nodes = pods.node_selector.clone().unwrap_or_default();
        Self::of(mode, listed(ports), nodes)
    }

    fn of(
        mode: Mode,
        ports: impl IntoIterator<Item = u16>,
        nodes: BTreeMap<String, String>,
    ) -> Option<Self> {
        let ports: BTreeSet<u16> = ports.into_iter().collect();
        (!ports.is_empty()).then_some(Self { mode, ports, nodes })
    }

    /// The ports that both take on a node on which both may run. A node has one value of a label.
    fn shared(&self, other: &Self) -> BTreeSet<u16> {
        let differs = |(key, value): (&String, &String)| {
            let other = other.nodes.get(key);
            other.is_some_and(|other| other != value)
        };
        if self.nodes.iter().any(differs) {
            return BTreeSet::new();
        }
        self.ports.intersection(&other.ports).copied().collect()
    }
}

/// The ports that an agent workload takes, as its annotation lists them.
pub(crate) fn taken(workload: &Value) -> Vec<u16> {
    let ports = workload["metadata"]["annotations"][names::ANNOTATION_NODE_PORTS].as_str();
    listed(ports.unwrap_or_default()).collect()
}

fn listed(ports: &str) -> impl Iterator<Item = u16> {
    ports.split(',').filter_map(|port| port.parse().ok())
}

/// Whether nobody else takes or asks for any of these ports, on whichever nodes.
pub(crate) fn are_free(ports: &[u16], others: &[PortUser]) -> bool {
    let known = others
        .iter()
        .flat_map(|other| other.running.iter().chain(&other.wanted));
    let mut taken = known.flat_map(|known| &known.ports);
    !taken.any(|port| ports.contains(port))
}

/// An `OtelAgent` that takes ports of nodes, or asks for some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortUser {
    /// `metadata.creationTimestamp` in RFC 3339 and UTC, as the API server writes it: such texts sort by time.
    pub created: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// What its spec asks for, unless that is refused for another reason.
    pub wanted: Option<NodePorts>,
    /// What its agents take now, also in a mode that it is leaving.
    pub running: Vec<NodePorts>,
}

impl PortUser {
    fn rank(&self) -> (&str, &str, &str) {
        (&self.created, &self.namespace, &self.name)
    }

    fn runs_on(&self, port: u16) -> bool {
        self.running.iter().any(|own| own.ports.contains(&port))
    }

    /// The ports that it must leave to another one. Running agents keep what they have, and of two that have
    /// or want the same the older one gets it.
    fn loses(&self, other: &Self, is_accepted: bool) -> Option<(Mode, BTreeSet<u16>)> {
        let wanted = self.wanted.as_ref()?;
        let is_older = other.rank() < self.rank();
        let lost = |theirs: &NodePorts, runs: bool| {
            let mut shared = wanted.shared(theirs);
            shared.retain(|port| match (self.runs_on(*port), runs) {
                (false, true) => true,
                (true, false) => false,
                (true, true) | (false, false) => is_older,
            });
            (!shared.is_empty()).then_some((theirs.mode, shared))
        };
        let to_running = other.running.iter().find_map(|theirs| lost(theirs, true));
        let asked = other.wanted.as_ref().filter(|_| is_accepted);
        to_running.or_else(|| lost(asked?, false))
    }
}

/// The problem of an `OtelAgent` whose node ports another one has; `others` may contain `me`.
pub fn port_problem(me: &PortUser, ports: Ports, others: &[PortUser]) -> Option<Problem> {
    let mut all: Vec<&PortUser> = others
        .iter()
        .filter(|one| one.rank() != me.rank())
        .collect();
    all.push(me);
    all.sort_unstable_by_key(|one| one.rank());
    // Only an older one can refuse others what it merely asks for, so one pass in this order decides for all.
    let mut refused = BTreeSet::new();
    for (at, one) in all.iter().enumerate() {
        let mut others = all.iter().enumerate().filter(|(other, _)| *other != at);
        let lost = others.find_map(|(index, other)| {
            let (mode, lost) = one.loses(other, !refused.contains(&index))?;
            Some((*other, mode, lost))
        });
        if let Some((winner, mode, lost)) = lost {
            if one.rank() == me.rank() {
                return Some(problem(winner, mode, &lost, ports));
            }
            refused.insert(at);
        }
    }
    None
}

fn problem(winner: &PortUser, mode: Mode, lost: &BTreeSet<u16>, own: Ports) -> Problem {
    let named = [
        ("grpc", own.grpc),
        ("http", own.http),
        ("metrics", own.metrics),
        ("health", own.health),
    ];
    let fields = named.iter().filter(|(_, port)| lost.contains(port));
    let fields: Vec<&str> = fields.map(|(field, _)| *field).collect();
    let ports: Vec<String> = lost.iter().map(u16::to_string).collect();
    let is_fixed = fields.contains(&"grpc") || fields.contains(&"http");
    let fields = fields.join(", ");
    let instead = if is_fixed {
        format!(
            "use mode NodeLocal or Sidecar, or replace this OtelAgent by one with other spec.ports ({fields})"
        )
    } else {
        format!("choose other spec.ports ({fields})")
    };
    Problem {
        reason: PORT_IN_USE,
        message: format!(
            "OtelAgent {}/{} has ports {} of the nodes (mode {mode}), and two OtelAgents cannot share them; {instead}",
            winner.namespace,
            winner.name,
            ports.join(", "),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(mode: Mode, ports: &[u16]) -> NodePorts {
        NodePorts::of(mode, ports.iter().copied(), BTreeMap::new()).unwrap()
    }

    /// Created at this second, asking for the usual ports on the host network.
    fn user(second: u32, name: &str) -> PortUser {
        PortUser {
            created: format!("2026-11-22T10:00:{second:02}Z"),
            namespace: "x".into(),
            name: name.into(),
            wanted: Some(ports(Mode::HostNetwork, &[4317, 4318, 8888, 13133])),
            running: Vec::new(),
        }
    }

    fn asks(mode: Mode, asked: &[u16], user: PortUser) -> PortUser {
        PortUser {
            wanted: Some(ports(mode, asked)),
            ..user
        }
    }

    fn runs(user: PortUser) -> PortUser {
        PortUser {
            running: user.wanted.iter().cloned().collect(),
            ..user
        }
    }

    /// The names of those that are refused.
    fn refused(all: &[PortUser]) -> Vec<&str> {
        let is_refused = |one: &&PortUser| port_problem(one, Ports::default(), all).is_some();
        let refused = all.iter().filter(is_refused);
        refused.map(|one| one.name.as_str()).collect()
    }

    #[test]
    fn younger_of_two_on_one_port_is_refused_in_every_pair_of_modes() {
        let host_port = |user| asks(Mode::HostPort, &[4317, 4318], user);
        let pairs = [
            [user(1, "a"), user(2, "b")],
            [host_port(user(1, "a")), host_port(user(2, "b"))],
            [host_port(user(1, "a")), user(2, "b")],
            [user(1, "a"), host_port(user(2, "b"))],
            // Created in the same second: the name decides.
            [user(1, "b"), user(1, "a")],
        ];
        for [one, other] in pairs {
            assert_eq!(refused(&[one.clone(), other.clone()]), ["b"]);
            assert_eq!(refused(&[other, one]), ["b"]);
        }
    }

    #[test]
    fn problem_names_the_other_the_ports_and_the_remedy() {
        let all = [user(1, "a"), user(2, "b")];
        let message = |own: &PortUser, ports| port_problem(own, ports, &all).unwrap().message;
        let said = message(&all[1], Ports::default());
        for named in [
            "x/a",
            "4317, 4318, 8888, 13133",
            "mode HostNetwork",
            "use mode NodeLocal",
        ] {
            assert!(said.contains(named), "{said}");
        }
        let elsewhere = Ports {
            grpc: 5317,
            http: 5318,
            ..Ports::default()
        };
        let own = asks(Mode::HostNetwork, &[5317, 5318, 8888, 13133], user(2, "b"));
        let said = message(&own, elsewhere);
        assert!(said.contains("has ports 8888, 13133 of"), "{said}");
        assert!(
            said.ends_with("choose other spec.ports (metrics, health)"),
            "{said}"
        );
    }

    #[test]
    fn other_ports_other_modes_and_other_nodes_do_not_meet() {
        let apart = asks(Mode::HostNetwork, &[5317, 5318, 5888, 5133], user(2, "b"));
        assert!(refused(&[user(1, "a"), apart]).is_empty());
        let elsewhere = PortUser {
            wanted: None,
            ..user(2, "b")
        };
        assert!(refused(&[user(1, "a"), elsewhere]).is_empty());
        let on = |pool: &str, user: PortUser| {
            let mut wanted = user.wanted.clone().unwrap();
            wanted.nodes.insert("pool".into(), pool.into());
            PortUser {
                wanted: Some(wanted),
                ..user
            }
        };
        assert!(refused(&[on("one", user(1, "a")), on("two", user(2, "b"))]).is_empty());
        assert_eq!(refused(&[on("one", user(1, "a")), user(2, "b")]), ["b"]);
    }

    #[test]
    fn running_agent_keeps_its_ports_when_an_older_object_turns_to_them() {
        let all = [user(1, "a"), runs(user(2, "b"))];
        assert_eq!(refused(&all), ["a"]);
        // Both run: nothing can be kept for both.
        assert_eq!(refused(&[runs(user(1, "a")), runs(user(2, "b"))]), ["b"]);
    }

    #[test]
    fn mode_that_is_being_left_keeps_its_ports_until_its_agents_are_gone() {
        let leaving = PortUser {
            wanted: None,
            ..runs(user(3, "a"))
        };
        assert_eq!(refused(&[leaving.clone(), user(1, "b")]), ["b"]);
        let gone = PortUser {
            running: Vec::new(),
            ..leaving
        };
        assert!(refused(&[gone, user(1, "b")]).is_empty());
    }

    #[test]
    fn refused_object_takes_no_port_from_others() {
        // b loses to a, so c, which meets only b, is not refused.
        let a = asks(Mode::HostPort, &[1, 2], user(1, "a"));
        let b = asks(Mode::HostPort, &[2, 3], user(2, "b"));
        let c = asks(Mode::HostPort, &[3, 4], user(3, "c"));
        assert_eq!(refused(&[c, b, a]), ["b"]);
    }

    #[test]
    fn ports_of_an_agent_workload_are_read_from_its_annotation() {
        let workload = |ports: &str| -> DaemonSet {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "a", "annotations": {names::ANNOTATION_NODE_PORTS: ports}},
                "spec": {"selector": {}, "template": {"spec": {"containers": [], "nodeSelector": {"pool": "one"}}}},
            }))
            .unwrap()
        };
        let read = NodePorts::running(Mode::HostPort, &workload("4317,4318")).unwrap();
        assert_eq!(read.ports, BTreeSet::from([4317, 4318]));
        assert_eq!(read.nodes["pool"], "one");
        assert_eq!(NodePorts::running(Mode::HostPort, &workload("")), None);
    }
}
