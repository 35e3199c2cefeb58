//! The `DaemonSet` that carries the agent in every node mode.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Toleration, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Topology;
use crate::build::{Placement, ValidAgent, agent_pod};
use crate::names;
use crate::quantity::no_nodes;
use otelagent_api::Mode;

/// How many nodes may be without, or with two, agents during an update, where the user does not say.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rollout {
    /// The new agent is ready before the old one goes.
    Surge,
    /// The old agent goes first: the node's port can be held once only.
    Replace,
}

/// The parts in which node modes differ.
pub(super) struct Parts {
    /// The mode.
    pub(super) mode: Mode,
    /// Where the agent listens.
    pub(super) placement: Placement,
    /// The agent's container, complete.
    pub(super) container: Container,
    /// Volumes beside the agent's own.
    pub(super) volumes: Vec<Volume>,
    /// Whether the pod shares the node's network.
    pub(super) host_network: bool,
    /// How it is updated.
    pub(super) rollout: Rollout,
}

impl Parts {
    /// Of a mode whose agents have networks of their own.
    pub(super) fn of(topology: &dyn Topology, container: Container, rollout: Rollout) -> Self {
        Self {
            mode: topology.mode(),
            placement: topology.placement(),
            container,
            volumes: Vec::new(),
            host_network: false,
            rollout,
        }
    }
}

/// Labels by which a mode's agents are found.
pub(super) fn selector(agent: &ValidAgent, mode: Mode) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_OWNER.to_owned(), agent.label()),
        (names::LABEL_WORKLOAD.to_owned(), mode.to_string()),
    ])
}

/// Metadata of an object in the `OtelAgent`'s namespace, owned by it so that it goes with it.
pub(super) fn metadata(agent: &ValidAgent, mode: Mode, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(agent.namespace.clone()),
        labels: Some(labels(agent, mode)),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{}/v1alpha1", names::GROUP),
            kind: "OtelAgent".into(),
            name: agent.name.clone(),
            uid: agent.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        }]),
        ..ObjectMeta::default()
    }
}

fn labels(agent: &ValidAgent, mode: Mode) -> BTreeMap<String, String> {
    let mut labels = selector(agent, mode);
    labels.insert("app.kubernetes.io/name".into(), "otelagent-agent".into());
    labels.insert("app.kubernetes.io/instance".into(), agent.name.clone());
    labels.insert(names::LABEL_MANAGED_BY.into(), names::MANAGED_BY.into());
    labels
}

/// The vehicle of a node mode.
pub(super) fn daemon_set(agent: &ValidAgent, name: String, parts: Parts) -> DaemonSet {
    let mode = parts.mode;
    let strategy = update_strategy(agent, parts.rollout);
    DaemonSet {
        metadata: metadata(agent, mode, name),
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(selector(agent, mode)),
                ..LabelSelector::default()
            },
            template: template(agent, parts, grace(agent, &strategy)),
            update_strategy: Some(strategy),
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

/// Seconds from the moment an agent is told to end until it is killed. What it holds then is lost with
/// its pod. A queue on disk may take longer to send, and it costs nothing to wait where another agent has
/// taken over; else the node is without an agent meanwhile.
fn grace(agent: &ValidAgent, strategy: &DaemonSetUpdateStrategy) -> u32 {
    let rolling = strategy.rolling_update.as_ref();
    let surges =
        rolling.is_some_and(|rolling| rolling.max_surge.as_ref().is_some_and(|s| !no_nodes(s)));
    if surges && agent.disk_bytes.is_some() {
        120
    } else {
        30
    }
}

/// Seconds an agent needs to end once it has given up what it could not send.
const ENDING: u32 = 5;

/// Seconds an agent takes new connections after it was told to end: applications learn later than it
/// does. A part of the grace.
const LAME_DUCK: u32 = 3;

/// When an image is pulled where the user does not say. The server's own default, written down: that is
/// filled in once, when an object is made, and would stay as it was under another image.
fn default_pull_policy(image: &str) -> &'static str {
    // A colon before the last slash begins a port.
    let name = image.rsplit('/').next().unwrap_or_default();
    let (tagged, digest) = name
        .split_once('@')
        .map_or((name, false), |(tagged, _)| (tagged, true));
    match tagged.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

/// The pod template, labelled with a hash over itself: "updated" is then read from a pod's labels.
fn template(agent: &ValidAgent, mut parts: Parts, grace: u32) -> PodTemplateSpec {
    let user = agent.spec.agent.clone().unwrap_or_default();
    let mut labels = labels(agent, parts.mode);
    labels.insert(names::LABEL_INJECT.into(), "false".into());
    let mut volumes = agent_pod::volumes(agent, parts.placement);
    volumes.extend(parts.volumes);
    parts.container.image_pull_policy.get_or_insert_with(|| {
        let image = parts.container.image.as_deref().unwrap_or_default();
        default_pull_policy(image).into()
    });
    parts.container.env.get_or_insert_default().extend([
        agent_pod::variable("OTELAGENT_LAME_DUCK", &LAME_DUCK.to_string()),
        agent_pod::variable("OTELAGENT_SHUTDOWN_GRACE", &(grace - ENDING).to_string()),
    ]);
    let spec = PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        containers: vec![parts.container],
        volumes: Some(volumes),
        host_network: parts.host_network.then_some(true),
        dns_policy: parts.host_network.then(|| "ClusterFirstWithHostNet".into()),
        security_context: Some(agent_pod::pod_security()),
        termination_grace_period_seconds: Some(grace.into()),
        node_selector: (!user.node_selector.is_empty()).then_some(user.node_selector),
        tolerations: (!user.tolerations.is_empty())
            .then(|| user.tolerations.iter().map(toleration).collect()),
        priority_class_name: user.priority_class_name,
        ..PodSpec::default()
    };
    let annotations = agent_pod::annotations(agent, parts.placement);
    let digest = serde_json::to_string(&(&labels, &annotations, &spec)).unwrap_or_default();
    labels.insert(names::LABEL_TEMPLATE.into(), names::hash(&digest, 10));
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

fn update_strategy(agent: &ValidAgent, rollout: Rollout) -> DaemonSetUpdateStrategy {
    let user = agent
        .spec
        .agent
        .as_ref()
        .and_then(|a| a.update_strategy.clone())
        .unwrap_or_default();
    let given = |value: Option<IntOrString>| value.filter(|value| !no_nodes(value));
    let zero_surge = user.max_surge.as_ref().is_some_and(no_nodes);
    let (surge, unavailable) = (given(user.max_surge), given(user.max_unavailable));
    let none = IntOrString::Int(0);
    let one = IntOrString::Int(1);
    // Kubernetes takes exactly one of them above zero. A path that is held after a switch is rendered from
    // a spec made for another mode, so what cannot be here is left out and not passed on.
    let (surge, unavailable) = match (rollout, surge, unavailable) {
        (Rollout::Replace, _, unavailable) => (none, unavailable.unwrap_or(one)),
        (Rollout::Surge, _, Some(unavailable)) => (none, unavailable),
        (Rollout::Surge, None, None) if zero_surge => (none, one),
        (Rollout::Surge, surge, None) => (surge.unwrap_or(one), none),
    };
    DaemonSetUpdateStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDaemonSet {
            max_surge: Some(surge),
            max_unavailable: Some(unavailable),
        }),
    }
}

fn toleration(toleration: &otelagent_api::Toleration) -> Toleration {
    Toleration {
        key: toleration.key.clone(),
        operator: toleration.operator.clone(),
        value: toleration.value.clone(),
        effect: toleration.effect.clone(),
        toleration_seconds: toleration.toleration_seconds,
    }
}
