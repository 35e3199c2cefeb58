//! The `DaemonSet` that carries the agent in every node mode.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{
    Affinity, ConfigMap, Container, LocalObjectReference, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PodSpec, PodTemplateSpec, Toleration, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::build::agent_pod::{self, RenderInput};
use crate::build::objects::Object;
use crate::build::valid_agent::ValidAgent;
use crate::names;
use crate::quantity::no_nodes;
use otelagent_api::Mode;

/// The configuration of a mode's agents. Those of each pod template have a key of their own: what they cannot take over
/// comes with another template. Keys of earlier templates stay until their agents are gone, see the plan.
fn configuration(input: &RenderInput<'_>, mode: Mode, template: &str) -> Object {
    let agent = input.agent;
    let key = names::configuration_key(template);
    Object::ConfigMap(Box::new(ConfigMap {
        metadata: metadata(agent, mode, config_map(agent, mode)),
        data: Some([(key, input.configuration.text.clone())].into()),
        ..ConfigMap::default()
    }))
}

fn config_map(agent: &ValidAgent, mode: Mode) -> String {
    names::agent_configuration(&agent.name, mode.kebab())
}

/// How an update replaces agents, unless the user sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rollout {
    /// The new agent is ready before the old one ends.
    Surge,
    /// The old agent ends first: only one can use the node's port.
    Replace,
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

/// The agent workload of a node mode, after what it mounts: with the agent's container, complete, the volumes beside
/// the agent's own, and the ports that it takes of its nodes.
pub(super) fn agents(
    input: &RenderInput<'_>,
    mode: Mode,
    container: Container,
    volumes: Vec<Volume>,
    rollout: Rollout,
    node_ports: &[u16],
) -> Vec<Object> {
    let agent = input.agent;
    let name = names::agent_workload(&agent.name, mode.kebab());
    let strategy = update_strategy(agent, rollout);
    let grace = grace(agent, &strategy);
    let mut metadata = metadata(agent, mode, name);
    if !node_ports.is_empty() {
        let ports: Vec<String> = node_ports.iter().map(u16::to_string).collect();
        let annotation = (names::ANNOTATION_NODE_PORTS.to_owned(), ports.join(","));
        metadata.annotations = Some([annotation].into());
    }
    let (template, hash) = template(input, mode, container, volumes, grace);
    let workload = DaemonSet {
        metadata,
        spec: Some(DaemonSetSpec {
            selector: LabelSelector {
                match_labels: Some(selector(agent, mode)),
                ..LabelSelector::default()
            },
            template,
            update_strategy: Some(strategy),
            ..DaemonSetSpec::default()
        }),
        status: None,
    };
    vec![
        configuration(input, mode, &hash),
        Object::DaemonSet(Box::new(workload)),
    ]
}

/// Seconds from the signal to end until the kubelet kills an agent. What the agent still holds then is lost.
/// A queue on disk may take longer to send. If another agent has taken over, the wait costs nothing; else the
/// node is without an agent meanwhile.
fn grace(agent: &ValidAgent, strategy: &DaemonSetUpdateStrategy) -> u32 {
    let rolling = strategy.rolling_update.as_ref();
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    if surge.is_some_and(|surge| !no_nodes(surge)) && agent.disk_bytes.is_some() {
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
    let tagged = name.split('@').next().unwrap_or_default();
    match tagged.split_once(':') {
        Some((_, "latest")) => "Always",
        None if tagged == name => "Always",
        _ => "IfNotPresent",
    }
}

/// The pod template and a hash of it, which is in its label, tells updated pods from older ones, and names what they
/// mount.
fn template(
    input: &RenderInput<'_>,
    mode: Mode,
    container: Container,
    volumes: Vec<Volume>,
    grace: u32,
) -> (PodTemplateSpec, String) {
    let agent = input.agent;
    let user = agent.spec.agent.clone().unwrap_or_default();
    let mut labels = user.pod_labels;
    labels.extend(self::labels(agent, mode));
    labels.insert(names::LABEL_INJECT.into(), "false".into());
    let mut annotations = user.pod_annotations;
    annotations.extend(agent_pod::annotations(&input.configuration.at_start));
    let configuration = |hash: &str| agent_pod::node_configuration(config_map(agent, mode), hash);
    let mut spec = pod(agent, mode, container, grace);
    let volumes = [agent_pod::volumes(input), volumes].concat();
    let digest = (&labels, &annotations, &spec, configuration(""), &volumes);
    let digest = serde_json::to_string(&digest).unwrap_or_default();
    let hash = names::hash(&digest, 10);
    labels.insert(names::LABEL_TEMPLATE.into(), hash.clone());
    spec.volumes = Some([vec![configuration(&hash)], volumes].concat());
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    };
    (template, hash)
}

/// An agent's pod without its volumes.
fn pod(agent: &ValidAgent, mode: Mode, mut container: Container, grace: u32) -> PodSpec {
    let user = agent.spec.agent.clone().unwrap_or_default();
    let on_host_network = mode == Mode::HostNetwork;
    container.image_pull_policy.get_or_insert_with(|| {
        let image = container.image.as_deref().unwrap_or_default();
        default_pull_policy(image).into()
    });
    if agent.own_image().is_none() {
        // The status names the last words of an agent that does not start. What another image logs is unknown.
        container.termination_message_policy = Some("FallbackToLogsOnError".into());
    }
    container.env.get_or_insert_default().extend([
        agent_pod::variable("OTELAGENT_LAME_DUCK", &LAME_DUCK.to_string()),
        agent_pod::variable("OTELAGENT_SHUTDOWN_GRACE", &(grace - ENDING).to_string()),
    ]);
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        containers: vec![container],
        host_network: on_host_network.then_some(true),
        dns_policy: on_host_network.then(|| "ClusterFirstWithHostNet".into()),
        security_context: Some(agent_pod::pod_security()),
        termination_grace_period_seconds: Some(grace.into()),
        node_selector: Some(node_selector(user.node_selector)),
        tolerations: (!user.tolerations.is_empty())
            .then(|| user.tolerations.iter().map(toleration).collect()),
        priority_class_name: user.priority_class_name,
        affinity: affinity(user.affinity.as_ref(), agent.own_image().is_none()),
        image_pull_secrets: (!user.image_pull_secrets.is_empty()).then(|| {
            user.image_pull_secrets
                .into_iter()
                .map(pull_secret)
                .collect()
        }),
        ..PodSpec::default()
    }
}

/// Agents are Linux programs. Clouds do not taint Windows nodes, so without the selector there would be agents
/// on them that never start.
fn node_selector(mut user: BTreeMap<String, String>) -> BTreeMap<String, String> {
    user.entry("kubernetes.io/os".into())
        .or_insert_with(|| "linux".into());
    user
}

fn update_strategy(agent: &ValidAgent, rollout: Rollout) -> DaemonSetUpdateStrategy {
    let user = agent.spec.agent.clone().unwrap_or_default();
    let user = user.update_strategy.unwrap_or_default();
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

fn pull_secret(secret: otelagent_api::PullSecret) -> LocalObjectReference {
    LocalObjectReference { name: secret.name }
}

/// Where agents may run: the user's terms, each without nodes for which there is no image.
fn affinity(user: Option<&otelagent_api::Affinity>, is_bundled: bool) -> Option<Affinity> {
    let required = user.and_then(|user| user.node_affinity.as_ref()?.required.as_ref());
    let requirement = |requirement: &otelagent_api::NodeRequirement| NodeSelectorRequirement {
        key: requirement.key.clone(),
        operator: requirement.operator.as_str().into(),
        values: (!requirement.values.is_empty()).then(|| requirement.values.clone()),
    };
    let has_image = is_bundled.then(|| NodeSelectorRequirement {
        key: "kubernetes.io/arch".into(),
        operator: "NotIn".into(),
        values: Some(names::ARCHITECTURES_WITHOUT_IMAGE.map(Into::into).into()),
    });
    let term = |requirements: Vec<NodeSelectorRequirement>| NodeSelectorTerm {
        match_expressions: Some(requirements.into_iter().chain(has_image.clone()).collect()),
        match_fields: None,
    };
    let terms = match required {
        Some(required) => {
            let terms = required.node_selector_terms.iter();
            let terms = terms.map(|user| user.match_expressions.iter().map(requirement).collect());
            terms.map(term).collect()
        }
        None if is_bundled => vec![term(Vec::new())],
        None => return None,
    };
    Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: terms,
            }),
            preferred_during_scheduling_ignored_during_execution: None,
        }),
        ..Affinity::default()
    })
}

fn toleration(toleration: &otelagent_api::Toleration) -> Toleration {
    let own = toleration.clone();
    Toleration {
        key: own.key,
        operator: own.operator,
        value: own.value,
        effect: own.effect,
        toleration_seconds: own.toleration_seconds,
    }
}
