//! The `DaemonSet` that carries the agent in every node mode.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Toleration, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::build::agent_pod::{self, RenderInput};
use crate::build::valid_agent::ValidAgent;
use crate::names;
use crate::quantity::no_nodes;
use otelagent_api::Mode;

/// How an update replaces agents, unless the user sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rollout {
    /// The new agent is ready before the old one ends.
    Surge,
    /// The old agent ends first: only one can use the node's port.
    Replace,
}

/// The parts in which node modes differ.
pub(super) struct Parts {
    /// The mode.
    pub(super) mode: Mode,
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
    pub(super) fn of(mode: Mode, container: Container, rollout: Rollout) -> Self {
        Self {
            mode,
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

/// Metadata of an object in the `OtelAgent`'s namespace, owned by it so that both are deleted together.
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

/// The agent workload of a node mode.
pub(super) fn daemon_set(input: &RenderInput<'_>, parts: Parts) -> DaemonSet {
    let (agent, mode) = (input.agent, parts.mode);
    let name = names::agent_workload(&agent.name, mode.kebab());
    let strategy = update_strategy(agent, parts.rollout);
    DaemonSet {
        metadata: metadata(agent, mode, name),
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(selector(agent, mode)),
                ..LabelSelector::default()
            },
            template: template(input, parts, grace(agent, &strategy)),
            update_strategy: Some(strategy),
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

/// Seconds from the signal to end until the kubelet kills an agent. What the agent still holds then is lost.
/// A queue on disk may take longer to send. If another agent has taken over, the wait costs nothing; else the
/// node is without an agent meanwhile.
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

/// Seconds that an agent needs to end after it has stopped sending.
const ENDING: u32 = 5;

/// Seconds for which an agent accepts new connections after the signal to end: applications learn of its end
/// later. A part of the grace period.
const LAME_DUCK: u32 = 3;

/// The API server's default pull policy for an image. It is explicit because the server sets its default only
/// once, when the object is created, and would keep it under another image.
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

/// The pod template, labelled with a hash of itself, which tells updated pods from older ones.
fn template(input: &RenderInput<'_>, mut parts: Parts, grace: u32) -> PodTemplateSpec {
    let agent = input.agent;
    let user = agent.spec.agent.clone().unwrap_or_default();
    let mut labels = labels(agent, parts.mode);
    labels.insert(names::LABEL_INJECT.into(), "false".into());
    let mut volumes = agent_pod::volumes(input);
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
    let annotations = agent_pod::annotations(input.configuration);
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
    // Kubernetes accepts exactly one of them above zero. A route that is held after a switch is rendered from
    // a spec for another mode, so values that this mode cannot use are dropped.
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
