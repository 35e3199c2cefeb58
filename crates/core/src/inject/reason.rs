//! Why a selected pod is left alone: as a function of the pod, and as CEL for the policies.
//!
//! Each rule is here twice; the equivalence test sends pods through both. What would make a pod
//! invalid, or keep it from starting, is a reason: injection never denies a pod by itself.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::cel::{quoted, quoted_list};
use super::containers::{CONTAINERS, containers};
use super::json::{entry, has, list, text};
use super::ports;
use super::recipe::{Moved, Recipe};
use crate::names;
use otelagent_api::Mode;

/// The kubelet's mark on the API's copy of a static pod, whose spec the API cannot change.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The label of nodes, and so of node selectors, that tells their operating system.
const OS: &str = "kubernetes.io/os";
/// With which a pod asks the OpenTelemetry operator for a collector beside it, by name or `true`.
const COLLECTOR: &str = "sidecar.opentelemetry.io/inject";
/// Bytes of all annotations of an object, keys included (`ValidateAnnotationsSize` of apimachinery).
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Why a pod is admitted as it is. [`Reason::word`] is stable; [`fmt::Display`] is a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its label says so.
    OptedOut,
    /// It only shows a static pod of a node.
    MirrorPod,
    /// Another `OtelAgent` was first.
    AlreadyInjectedByAnother {
        /// Value of the label of the other one.
        agent: String,
    },
    /// It is a copy of a pod that was injected with another recipe.
    InjectedEarlier,
    /// The agent runs on Linux only.
    Windows,
    /// The OpenTelemetry operator is asked for a collector in it, which takes what the application sends.
    CollectorAsked,
    /// A sidecar on the host network would take the node's ports.
    HostNetwork,
    /// The name of the agent's Service means nothing to it.
    NoClusterDns,
    /// The name of what the sidecar would send to means nothing to it.
    NoUpstreamDns,
    /// A sidecar may not fit in resources set for the pod as a whole.
    PodLevelResources,
    /// A container has the agent's name.
    NameTaken {
        /// The name.
        container: String,
    },
    /// A volume has the name of one of the agent's.
    VolumeTaken {
        /// The name.
        volume: String,
    },
    /// Containers declare one of the agent's ports, and one of those it could take instead.
    PortTaken {
        /// The port.
        port: u64,
    },
    /// The agent's configuration does not fit any more.
    AnnotationsTooLarge,
}

impl Reason {
    /// Stable word for conditions, events and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::OptedOut => "OptedOut",
            Self::MirrorPod => "MirrorPod",
            Self::AlreadyInjectedByAnother { .. } => "AlreadyInjectedByAnother",
            Self::InjectedEarlier => "InjectedEarlier",
            Self::Windows => "Windows",
            Self::CollectorAsked => "CollectorAsked",
            Self::HostNetwork => "HostNetwork",
            Self::NoClusterDns => "NoClusterDns",
            Self::NoUpstreamDns => "NoUpstreamDns",
            Self::PodLevelResources => "PodLevelResources",
            Self::NameTaken { .. } => "NameTaken",
            Self::VolumeTaken { .. } => "VolumeTaken",
            Self::PortTaken { .. } => "PortTaken",
            Self::AnnotationsTooLarge => "AnnotationsTooLarge",
        }
    }

    /// What the sentence says before and after the detail that differs from pod to pod.
    fn sentence(&self) -> [&'static str; 2] {
        match self {
            Self::OptedOut => ["it opts out with the label otelagent.dev/inject=false", ""],
            Self::MirrorPod => ["it shows a static pod, which only its node can change", ""],
            Self::AlreadyInjectedByAnother { .. } => {
                ["it carries the label of another OtelAgent, ", ""]
            }
            Self::InjectedEarlier => [
                "it is a copy of a pod injected earlier; remove its otelagent.dev labels and what was injected",
                "",
            ],
            Self::Windows => [
                "it is for Windows nodes, and the agent runs on Linux only",
                "",
            ],
            Self::CollectorAsked => [
                "its annotation sidecar.opentelemetry.io/inject asks for a collector of its own; remove it to use this agent",
                "",
            ],
            Self::HostNetwork => [
                "it is on the host network, where a sidecar would take the node's ports; use another mode",
                "",
            ],
            Self::NoClusterDns => [
                "its DNS policy does not resolve the agent's Service; use ClusterFirst, ClusterFirstWithHostNet on the \
                 host network, or None with searches",
                "",
            ],
            Self::NoUpstreamDns => [
                "its DNS policy does not resolve the Service that a sidecar would send to; use ClusterFirst, None with \
                 searches, or another name in export.endpoint",
                "",
            ],
            Self::PodLevelResources => [
                "it sets spec.resources, in which a sidecar may not fit; use another mode",
                "",
            ],
            Self::NameTaken { .. } => ["a container is named ", ", as the agent's; rename it"],
            Self::VolumeTaken { .. } => {
                ["a volume is named ", ", as one of the agent's; rename it"]
            }
            Self::PortTaken { .. } => [
                "a container uses port ",
                ", as the agent does, and the ports it would take instead are used too; change either",
            ],
            Self::AnnotationsTooLarge => [
                "its annotations and the agent's configuration exceed 256 KiB together",
                "",
            ],
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::AlreadyInjectedByAnother { agent } => agent.clone(),
            Self::NameTaken { container } => container.clone(),
            Self::VolumeTaken { volume } => volume.clone(),
            Self::PortTaken { port } => port.to_string(),
            _ => String::new(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = self.sentence();
        write!(f, "{before}{}{after}", self.detail())
    }
}

/// The first reason to leave a pod alone.
pub(super) fn why_not(pod: &Value, recipe: &Recipe) -> Option<Reason> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let label = |key| entry(pod, ["metadata", "labels"], key);
    if label(names::LABEL_INJECT) == Some("false") {
        return Some(Reason::OptedOut);
    }
    if entry(pod, ["metadata", "annotations"], MIRROR).is_some() {
        return Some(Reason::MirrorPod);
    }
    if let Some(agent) = label(names::LABEL_AGENT) {
        if agent != recipe.agent {
            return Some(Reason::AlreadyInjectedByAnother {
                agent: agent.to_owned(),
            });
        }
        if label(names::LABEL_CONFIG) != Some(&recipe.hash()) {
            return Some(Reason::InjectedEarlier);
        }
    }
    if recipe.sidecar.is_none() && bears_sidecar(spec) {
        return Some(Reason::InjectedEarlier);
    }
    let os = spec.get("os").map(|os| text(os, "name"));
    if os == Some("windows") || entry(pod, ["spec", "nodeSelector"], OS) == Some("windows") {
        return Some(Reason::Windows);
    }
    if !matches!(
        entry(pod, ["metadata", "annotations"], COLLECTOR),
        None | Some("" | "false")
    ) {
        return Some(Reason::CollectorAsked);
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    if recipe.mode == Mode::NodeLocal && !resolves_services(spec, host_network) {
        return Some(Reason::NoClusterDns);
    }
    recipe
        .sidecar
        .as_ref()
        .and_then(|sidecar| why_no_sidecar(pod, spec, host_network, recipe, sidecar))
}

/// Whether a sidecar of ours is in it, which a recipe without one can give no configuration.
fn bears_sidecar(spec: &Value) -> bool {
    let named = |key, name| {
        list(spec, key)
            .iter()
            .any(|item| text(item, "name") == name)
    };
    named("initContainers", names::CONTAINER) && named("volumes", names::CONFIG_VOLUME)
}

/// Whether `name.namespace.svc` can mean something to a pod: it needs a list of domains to search.
fn resolves_services(spec: &Value, host_network: bool) -> bool {
    match text(spec, "dnsPolicy") {
        "Default" => false,
        "None" => spec
            .get("dnsConfig")
            .is_some_and(|config| !list(config, "searches").is_empty()),
        "" | "ClusterFirst" => !host_network,
        _ => true,
    }
}

fn why_no_sidecar(
    pod: &Value,
    spec: &Value,
    host_network: bool,
    recipe: &Recipe,
    sidecar: &Value,
) -> Option<Reason> {
    let name = text(sidecar, "name");
    if host_network {
        return Some(Reason::HostNetwork);
    }
    if recipe.upstream_is_service && !resolves_services(spec, host_network) {
        return Some(Reason::NoUpstreamDns);
    }
    if has(spec, "resources") {
        return Some(Reason::PodLevelResources);
    }
    let injected = is_injected(spec, sidecar);
    if !injected && containers(pod).any(|container| text(container, "name") == name) {
        return Some(Reason::NameTaken {
            container: name.to_owned(),
        });
    }
    let volumes = list(spec, "volumes");
    let taken = recipe.volumes.iter().map(|volume| text(volume, "name"));
    let taken = taken
        .into_iter()
        .find(|name| volumes.iter().any(|volume| text(volume, "name") == *name));
    if let Some(volume) = taken.filter(|_| !injected) {
        return Some(Reason::VolumeTaken {
            volume: volume.to_owned(),
        });
    }
    let elsewhere = |moved: &Moved| ports::clash(pod, &moved.sidecar).is_none();
    if let Some(port) = ports::clash(pod, sidecar)
        && !recipe.moved.as_ref().is_some_and(elsewhere)
    {
        return Some(Reason::PortTaken { port });
    }
    (annotation_bytes(pod, recipe) > MAX_ANNOTATIONS).then_some(Reason::AnnotationsTooLarge)
}

/// Whether the sidecar is there already: a container that is ours by name and image. A name alone could be
/// anybody's, and labels are no sign: `kubectl debug --copy-to` drops them, with the configuration among the
/// annotations, without which the copy would never start.
fn is_injected(spec: &Value, sidecar: &Value) -> bool {
    let same = |other: &Value| {
        ["name", "image"]
            .iter()
            .all(|key| text(other, key) == text(sidecar, key))
    };
    list(spec, "initContainers").iter().any(same)
}

fn annotation_bytes(pod: &Value, recipe: &Recipe) -> usize {
    let annotations = pod
        .get("metadata")
        .and_then(|metadata| metadata.get("annotations"))
        .and_then(Value::as_object);
    let kept = annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| !recipe.annotations.contains_key(*key));
    kept.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum::<usize>()
        + bytes(ports::moved(pod, recipe).map_or(&recipe.annotations, |moved| &moved.annotations))
}

fn bytes(annotations: &BTreeMap<String, String>) -> usize {
    annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// One reason as CEL over `object`.
pub struct Condition {
    /// Name of the policy's match condition.
    pub name: &'static str,
    /// Holds if the pod must be left alone.
    pub applies: String,
    /// The sentence, as an expression that is evaluated only where the condition holds.
    pub sentence: String,
}

/// The reasons that a recipe can meet, in the order of [`why_not`], all but [`Reason::OptedOut`], which
/// the policies' object selector keeps away.
pub(super) fn conditions(recipe: &Recipe) -> Vec<Condition> {
    let (agent, config) = (quoted(names::LABEL_AGENT), quoted(names::LABEL_CONFIG));
    let (own, hash) = (quoted(&recipe.agent), quoted(&recipe.hash()));
    let label = format!("object.metadata.?labels[?{agent}]");
    let earlier = format!(
        "{label}.hasValue() && {label}.value() == {own} \
         && object.metadata.?labels[?{config}].orValue(\"\") != {hash}"
    );
    let earlier = if recipe.sidecar.is_some() {
        earlier
    } else {
        format!("{earlier} || {}", bears_sidecar_in_cel())
    };
    let mut conditions = vec![
        mirror(),
        condition(
            "another",
            &Reason::AlreadyInjectedByAnother {
                agent: String::new(),
            },
            format!("{label}.hasValue() && {label}.value() != {own}"),
            &format!("string({label}.value())"),
        ),
        condition("earlier", &Reason::InjectedEarlier, earlier, ""),
        condition(
            "windows",
            &Reason::Windows,
            format!(
                "object.spec.?os.?name.orValue(\"\") == \"windows\" \
                 || object.spec.?nodeSelector[?{}].orValue(\"\") == \"windows\"",
                quoted(OS)
            ),
            "",
        ),
    ];
    let collector = format!(
        "!(object.metadata.?annotations[?{}].orValue(\"\") in [\"\", \"false\"])",
        quoted(COLLECTOR)
    );
    conditions.push(condition(
        "collector",
        &Reason::CollectorAsked,
        collector,
        "",
    ));
    if recipe.mode == Mode::NodeLocal {
        conditions.push(condition(
            "dns",
            &Reason::NoClusterDns,
            unresolved_services(),
            "",
        ));
    }
    if let Some(sidecar) = &recipe.sidecar {
        conditions.extend(sidecar_conditions(recipe, sidecar));
    }
    conditions
}

/// The same as [`bears_sidecar`].
fn bears_sidecar_in_cel() -> String {
    let named = |list: &str, name: &str| {
        let name = quoted(name);
        format!("object.spec.?{list}.orValue([]).exists(i, i.name == {name})")
    };
    let container = named("initContainers", names::CONTAINER);
    let volume = named("volumes", names::CONFIG_VOLUME);
    format!("{container} && {volume}")
}

/// The contrary of [`resolves_services`].
fn unresolved_services() -> String {
    let dns = "object.spec.?dnsPolicy.orValue(\"ClusterFirst\")";
    format!(
        "{dns} == \"Default\" || {dns} == \"None\" && object.spec.?dnsConfig.?searches.orValue([]).size() == 0 \
         || object.spec.?hostNetwork.orValue(false) && {dns} == \"ClusterFirst\""
    )
}

/// Of mirror pods the policies say nothing at all: not even `Fail` may refuse them, or the API would
/// not show what runs on a node.
pub fn mirror() -> Condition {
    let applies = format!(
        "{} in object.metadata.?annotations.orValue({{}})",
        quoted(MIRROR)
    );
    condition("mirror", &Reason::MirrorPod, applies, "")
}

fn sidecar_conditions(recipe: &Recipe, sidecar: &Value) -> Vec<Condition> {
    let (name, image) = (
        quoted(text(sidecar, "name")),
        quoted(text(sidecar, "image")),
    );
    let injected = format!(
        "object.spec.?initContainers.orValue([])\
         .exists(c, c.name == {name} && c.?image.orValue(\"\") == {image})"
    );
    let volumes = quoted_list(recipe.volumes.iter().map(|volume| text(volume, "name")));
    let taken =
        |name: &str| format!("object.spec.?volumes.orValue([]).exists(w, w.name == {name})");
    let host_network = "object.spec.?hostNetwork.orValue(false)".to_owned();
    let mut conditions = vec![condition(
        "host-network",
        &Reason::HostNetwork,
        host_network,
        "",
    )];
    if recipe.upstream_is_service {
        let applies = unresolved_services();
        conditions.push(condition(
            "upstream-dns",
            &Reason::NoUpstreamDns,
            applies,
            "",
        ));
    }
    conditions.extend([
        condition(
            "pod-resources",
            &Reason::PodLevelResources,
            "has(object.spec.resources)".into(),
            "",
        ),
        condition(
            "name",
            &Reason::NameTaken {
                container: String::new(),
            },
            format!("!{injected} && {CONTAINERS}.exists(c, c.name == {name})"),
            &name,
        ),
        condition(
            "volume",
            &Reason::VolumeTaken {
                volume: String::new(),
            },
            format!("!{injected} && {volumes}.exists(v, {})", taken("v")),
            &format!("{volumes}.filter(v, {})[0]", taken("v")),
        ),
        port_condition(recipe, sidecar),
        annotations_condition(recipe),
    ]);
    conditions
}

fn port_condition(recipe: &Recipe, sidecar: &Value) -> Condition {
    let nowhere = recipe.moved.as_ref().map_or_else(String::new, |moved| {
        format!(" && {}", ports::clash_in_cel(&moved.sidecar))
    });
    condition(
        "port",
        &Reason::PortTaken { port: 0 },
        format!("{}{nowhere}", ports::clash_in_cel(sidecar)),
        &format!(
            "string({}.filter(port, {})[0])",
            ports::ports_in_cel(sidecar),
            ports::declared_in_cel(sidecar, "== port")
        ),
    )
}

fn annotations_condition(recipe: &Recipe) -> Condition {
    let added = bytes(&recipe.annotations).to_string();
    let added = match (&recipe.moved, ports::moved_in_cel(recipe)) {
        (Some(moved), Some(clash)) => {
            format!("{clash} ? {} : {added}", bytes(&moved.annotations))
        }
        _ => added,
    };
    let kept = format!(
        "object.metadata.?annotations.orValue({{}}).map(k, k in {} ? 0 \
         : bytes(string(k)).size() + bytes(string(object.metadata.annotations[k])).size())",
        quoted_list(recipe.annotations.keys().map(String::as_str))
    );
    condition(
        "annotations",
        &Reason::AnnotationsTooLarge,
        format!("([{added}] + {kept}).sum() > {MAX_ANNOTATIONS}"),
        "",
    )
}

fn condition(name: &'static str, reason: &Reason, applies: String, detail: &str) -> Condition {
    let [before, after] = reason.sentence();
    let sentence = if detail.is_empty() {
        quoted(before)
    } else {
        format!("{} + {detail} + {}", quoted(before), quoted(after))
    };
    Condition {
        name,
        applies,
        sentence,
    }
}
