//! The steps of the demo, which are also those of the cluster tests: install, switch, wait.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::apps::{self, App, List};
use crate::error::Result;
use crate::kubectl::Kubectl;
use crate::ledger;
use crate::repository;
use crate::routes::{Route, routes};
use crate::wait::{Seen, until};

/// Where the operator and node agents live.
pub const PLATFORM: &str = "otelagent-system";
/// The sample `OtelAgent`, as kubectl names it.
pub const AGENT: &str = "otelagent/node";

const UPSTREAM_YAML: &str = include_str!("../manifests/upstream.yaml");
const AGENT_YAML: &str = include_str!("../manifests/agent.yaml");
/// On agent pods: the mode they serve.
const VEHICLE_LABEL: &str = "otelagent.dev/vehicle";
/// On injected pods: the mode they were created with.
const MODE_LABEL: &str = "otelagent.dev/mode";

/// A mode, with the routing where that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A node-local Service that never leaves the node.
    NodeLocalRequire,
    /// A node-local Service that leaves the node when it must.
    NodeLocalPrefer,
    /// A host port.
    HostPort,
    /// The host's network.
    HostNetwork,
    /// A container in each pod.
    Sidecar,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NodeLocalRequire,
        Self::NodeLocalPrefer,
        Self::HostPort,
        Self::HostNetwork,
        Self::Sidecar,
    ];

    /// The value of `spec.mode`.
    pub fn mode(self) -> &'static str {
        match self {
            Self::NodeLocalRequire | Self::NodeLocalPrefer => "NodeLocal",
            Self::HostPort => "HostPort",
            Self::HostNetwork => "HostNetwork",
            Self::Sidecar => "Sidecar",
        }
    }

    /// What makes the sample `OtelAgent` this topology. Prefer does not go with host metadata, so there
    /// its processor leaves the pipelines too.
    fn patch(self) -> Value {
        let prefer = self == Self::NodeLocalPrefer;
        let mut processors = vec!["memory_limiter", "resource/attributes"];
        processors.extend((!prefer).then_some("resource/host"));
        processors.push("resource/via");
        let pipeline = json!({"processors": processors});
        json!({"spec": {
            "mode": self.mode(),
            "nodeLocal": {"routing": if prefer { "Prefer" } else { "Require" }},
            "hostMetadata": !prefer,
            "config": {"service": {"pipelines": {"traces": pipeline, "metrics": pipeline, "logs": pipeline}}},
        }})
    }

    /// Whether an agent serves this topology to a pod: its own sidecar, or an agent that lives for this
    /// mode, on the pod's own node unless the routing allows another.
    fn allows(self, route: &Route, agents: &BTreeSet<String>) -> bool {
        let Some(via) = route.newest() else {
            return false;
        };
        match self {
            Self::Sidecar => via.pod == route.from.name && via.node == route.from.node,
            Self::NodeLocalPrefer => agents.contains(&via.pod),
            _ => agents.contains(&via.pod) && via.node == route.from.node,
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NodeLocalRequire => "NodeLocal (Require)",
            Self::NodeLocalPrefer => "NodeLocal (Prefer)",
            other => other.mode(),
        })
    }
}

/// Installs the operator as the README says, and waits until it runs.
pub fn install(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply_kustomization(&repository().join("manifests/default"))?;
    wait_available(kubectl, PLATFORM)
}

/// Starts the collector and the ledger, and waits until both run.
pub fn apply_upstream(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(UPSTREAM_YAML)?;
    wait_available(kubectl, ledger::NAMESPACE)
}

/// The sample `OtelAgent`, in mode `NodeLocal`.
pub fn apply_agent(kubectl: &Kubectl) -> Result<()> {
    kubectl.apply(AGENT_YAML)
}

/// Starts the two applications, and waits until they run.
pub fn apply_apps(kubectl: &Kubectl) -> Result<()> {
    apps::apply(kubectl, &[App::rust_sdk(), App::go_sdk()])
}

/// Changes the topology of the sample `OtelAgent`.
pub fn switch(kubectl: &Kubectl, to: Topology) -> Result<()> {
    kubectl.patch(PLATFORM, AGENT, &to.patch())
}

/// Changes the topology of the sample `OtelAgent` and nothing else. Only where it already is as Prefer needs
/// it can it become every other.
pub fn switch_alone(kubectl: &Kubectl, to: Topology) -> Result<()> {
    let Value::Object(spec) = to.patch()["spec"].take() else {
        return Ok(());
    };
    let chosen = ["mode", "nodeLocal"];
    let spec: Value = spec
        .into_iter()
        .filter(|(field, _)| chosen.contains(&field.as_str()))
        .collect();
    kubectl.patch(PLATFORM, AGENT, &json!({"spec": spec}))
}

/// Replaces the applications' pods, and waits until the old ones are gone and every new one was injected
/// for this topology.
pub fn roll_apps(kubectl: &Kubectl, to: Topology) -> Result<()> {
    apps::roll(kubectl, apps::NAMESPACE)?;
    wait_injected(kubectl, apps::NAMESPACE, to)
}

/// How long a topology may take to come about.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until every Deployment of a namespace is available.
pub fn wait_available(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    until(&format!("the Deployments in {namespace}"), PATIENCE, || {
        let wait = [
            "wait",
            "--for=condition=Available",
            "deployment",
            "--all",
            "--timeout=2s",
            "--namespace",
        ];
        let said = kubectl.run(&[&wait[..], &[namespace]].concat())?;
        // Of none at all, all are available.
        Ok(Seen::check(!said.is_empty(), "no Deployment"))
    })
}

/// Waits until the sample `OtelAgent` says that a pod created now would be served this way.
pub fn wait_serving(kubectl: &Kubectl, topology: Topology) -> Result<()> {
    until(&format!("{AGENT} serving {topology}"), PATIENCE, || {
        let agent: Value = kubectl.get(&[AGENT, "--namespace", PLATFORM])?;
        let current = is_current(&agent) && agent["status"]["mode"] == topology.mode();
        Ok(Seen::check(
            current && find(&agent, "Ready").is_some_and(|ready| ready["reason"] == "Serving"),
            shown(&agent),
        ))
    })
}

/// Waits until no older route is left.
pub fn wait_switched(kubectl: &Kubectl) -> Result<()> {
    until(&format!("the end of {AGENT}'s switch"), PATIENCE, || {
        let agent: Value = kubectl.get(&[AGENT, "--namespace", PLATFORM])?;
        Ok(Seen::check(
            is_current(&agent) && condition(&agent, "Switching") == "False",
            shown(&agent),
        ))
    })
}

/// Waits until only agents of this topology are there, none of them on its way out, and as many as there are
/// nodes; none where the agents are in the applications' pods.
pub fn wait_settled(kubectl: &Kubectl, topology: Topology, nodes: usize) -> Result<()> {
    let expected = if topology == Topology::Sidecar {
        0
    } else {
        nodes
    };
    until(&format!("agents of {topology} alone"), PATIENCE, || {
        let selector = format!("--selector={VEHICLE_LABEL}");
        let pods: List<Value> = kubectl.get(&["pods", "--namespace", PLATFORM, &selector])?;
        let settled = pods.items.iter().all(|pod| {
            pod["metadata"]["labels"][VEHICLE_LABEL] == topology.mode()
                && pod["metadata"].get("deletionTimestamp").is_none()
        });
        let names: Vec<&Value> = pods
            .items
            .iter()
            .map(|pod| &pod["metadata"]["name"])
            .collect();
        let done = settled && names.len() == expected;
        Ok(Seen::check(done, format!("{names:?}")))
    })
}

/// Waits until every pod of a namespace was injected for this topology.
pub fn wait_injected(kubectl: &Kubectl, namespace: &str, topology: Topology) -> Result<()> {
    until(&format!("pods injected for {topology}"), PATIENCE, || {
        let pods = apps::pods(kubectl, namespace)?;
        let other = pods
            .iter()
            .find(|pod| pod.labels[MODE_LABEL] != topology.mode());
        Ok(other.map_or(Seen::Done(()), |pod| Seen::NotYet(format!("{pod:?}"))))
    })
}

/// Waits until the newest spans of every running application pod came the way this topology promises, and
/// returns the ways.
pub fn wait_routed(kubectl: &Kubectl, topology: Topology) -> Result<Vec<Route>> {
    until(&format!("spans by way of {topology}"), PATIENCE, || {
        let agents = agent_pods(kubectl, topology)?;
        let routes = routes(kubectl, apps::NAMESPACE)?;
        let astray = routes.iter().find(|route| !topology.allows(route, &agents));
        let seen = astray.map(|route| format!("{route:?} where agents are {agents:?}"));
        Ok(seen.map_or(Seen::Done(routes), Seen::NotYet))
    })
}

/// The pods of the agents that live for a topology.
pub fn agent_pods(kubectl: &Kubectl, topology: Topology) -> Result<BTreeSet<String>> {
    let selector = format!("--selector={VEHICLE_LABEL}={}", topology.mode());
    let pods: List<Value> = kubectl.get(&["pods", "--namespace", PLATFORM, &selector])?;
    let names = pods
        .items
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(ToOwned::to_owned).collect())
}

/// What a user sees of the `OtelAgent`: header and line.
pub fn agent_line(kubectl: &Kubectl) -> Result<String> {
    kubectl.run(&["get", AGENT, "--namespace", PLATFORM])
}

fn is_current(agent: &Value) -> bool {
    agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
}

fn find<'a>(agent: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = agent["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|condition| condition["type"] == kind))
}

fn condition<'a>(agent: &'a Value, kind: &str) -> &'a str {
    find(agent, kind)
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or("absent")
}

/// The status in words, for the error of a wait that failed.
fn shown(agent: &Value) -> String {
    let mut words = format!("mode {}", agent["status"]["mode"]);
    if !is_current(agent) {
        words.push_str(", of an older generation");
    }
    for kind in ["Accepted", "Ready", "Injected", "Switching"] {
        if let Some(found) = find(agent, kind) {
            let message = found["message"].as_str().unwrap_or_default();
            words.extend(["; ", kind, "=", condition(agent, kind), " ", message]);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::AppPod;
    use crate::routes::Via;

    fn route(pod: &str, node: &str) -> Route {
        Route {
            from: AppPod {
                name: "app-1".to_owned(),
                app: "app".to_owned(),
                node: "n1".to_owned(),
                deleting: false,
                ready: true,
                labels: Value::Null,
            },
            through: vec![Via {
                pod: pod.to_owned(),
                node: node.to_owned(),
                count: 1,
                last: 1,
            }],
            unsigned: 0,
        }
    }

    #[test]
    fn only_prefer_leaves_the_node() {
        let agents = BTreeSet::from(["agent-1".to_owned(), "agent-2".to_owned()]);
        let (own, other) = (route("agent-1", "n1"), route("agent-2", "n2"));
        for topology in [
            Topology::NodeLocalRequire,
            Topology::HostPort,
            Topology::HostNetwork,
        ] {
            assert!(topology.allows(&own, &agents));
            assert!(!topology.allows(&other, &agents));
        }
        assert!(Topology::NodeLocalPrefer.allows(&other, &agents));
        let old = route("gone", "n1");
        assert!(!Topology::HostPort.allows(&old, &agents));
        assert!(!Topology::HostPort.allows(
            &Route {
                through: Vec::new(),
                ..old
            },
            &agents
        ));
    }

    #[test]
    fn sidecar_is_in_the_pod_itself() {
        let none = BTreeSet::new();
        assert!(Topology::Sidecar.allows(&route("app-1", "n1"), &none));
        assert!(!Topology::Sidecar.allows(&route("app-2", "n1"), &none));
    }

    #[test]
    fn prefer_leaves_host_metadata_out() {
        let prefer = Topology::NodeLocalPrefer.patch();
        assert_eq!(prefer["spec"]["hostMetadata"], false);
        assert!(!prefer.to_string().contains("resource/host"));
        assert!(
            Topology::HostPort
                .patch()
                .to_string()
                .contains("resource/host")
        );
    }

    #[test]
    fn failed_wait_says_why() {
        let agent = json!({
            "metadata": {"generation": 2},
            "status": {"observedGeneration": 1, "mode": "HostPort", "conditions": [
                {"type": "Ready", "status": "False", "message": "1 of 2 agents are ready"},
            ]},
        });
        assert_eq!(
            shown(&agent),
            "mode \"HostPort\", of an older generation; Ready=False 1 of 2 agents are ready"
        );
        assert_eq!(condition(&agent, "Switching"), "absent");
    }
}
