//! Why a selected pod is not injected: as a function of the pod, and as CEL for the policies.
//!
//! Each rule exists twice; the equivalence test sends pods through both. Injection never denies a pod by
//! itself, so anything that would make a pod invalid, or prevent its start, is a reason.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::cel::{quoted, quoted_list};
use super::containers::{CONTAINERS, containers, takes_user_of_pod};
use super::json::{entry, has, list, text};
use super::ports;
use super::recipe::{Moved, Recipe};
use super::unfit::{VIRTUAL, WINDOWS, WITHOUT_IMAGE};
use crate::names;
use otelagent_api::Mode;

/// The kubelet's annotation on the mirror of a static pod, whose spec the API cannot change.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation by which a pod requests a collector from the OpenTelemetry Operator, by name or `true`.
pub(super) const COLLECTOR: &str = "sidecar.opentelemetry.io/inject";
/// Bytes of all annotations of an object, keys included (`ValidateAnnotationsSize` of apimachinery).
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Why a pod is admitted unchanged. [`fmt::Display`] is a sentence; the variants hold what differs between
/// pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "as their sentences say")]
pub enum Reason {
    OptedOut,
    MirrorPod,
    AlreadyInjectedByAnother(String),
    InjectedEarlier,
    Windows,
    Architecture,
    VirtualNode,
    CollectorAsked,
    HostNetwork,
    NoClusterDns,
    NoUpstreamDns,
    PodLevelResources,
    NameTaken(String),
    VolumeTaken(String),
    PortTaken(String),
    AnnotationsTooLarge,
}

impl Reason {
    /// A stable word for conditions, events and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::OptedOut => "OptedOut",
            Self::MirrorPod => "MirrorPod",
            Self::AlreadyInjectedByAnother(_) => "AlreadyInjectedByAnother",
            Self::InjectedEarlier => "InjectedEarlier",
            Self::Windows => "Windows",
            Self::CollectorAsked => "CollectorAsked",
            Self::HostNetwork => "HostNetwork",
            Self::NoClusterDns => "NoClusterDns",
            Self::NoUpstreamDns => "NoUpstreamDns",
            Self::Architecture => "Architecture",
            Self::VirtualNode => "VirtualNode",
            Self::PodLevelResources => "PodLevelResources",
            Self::NameTaken(_) => "NameTaken",
            Self::VolumeTaken(_) => "VolumeTaken",
            Self::PortTaken(_) => "PortTaken",
            Self::AnnotationsTooLarge => "AnnotationsTooLarge",
        }
    }

    /// Why, and what to do, with `{}` in place of [`Reason::detail`].
    fn sentence(&self) -> &'static str {
        match self {
            Self::OptedOut => "it opts out with the label otelagent.dev/inject=false",
            Self::MirrorPod => "it shows a static pod, which only its node can change",
            Self::AlreadyInjectedByAnother(_) => "it carries the label of another OtelAgent, {}",
            Self::InjectedEarlier => {
                "it is a copy of a pod injected earlier; remove its otelagent.dev labels and what was injected"
            }
            Self::Windows => "it is for Windows nodes, and the agent runs on Linux only",
            Self::CollectorAsked => {
                "its annotation sidecar.opentelemetry.io/inject asks for a collector of its own; remove it to use this agent"
            }
            Self::HostNetwork => {
                "it is on the host network, where a sidecar would take the node's ports; use another mode"
            }
            Self::NoClusterDns => {
                "its DNS policy does not resolve the agent's Service; use ClusterFirst, ClusterFirstWithHostNet on the \
                 host network, or None with searches"
            }
            Self::NoUpstreamDns => {
                "its DNS policy does not resolve the Service that a sidecar would send to; use ClusterFirst, None with \
                 searches, or another name in export.endpoint"
            }
            Self::Architecture => {
                "it is for nodes of an architecture for which the agent has no image; use another mode, or agent.image"
            }
            Self::VirtualNode => {
                "it is for virtual nodes (type=virtual-kubelet), which may not run sidecars; use another node, or send from the \
                 application to the upstream"
            }
            Self::PodLevelResources => {
                "it sets spec.resources, in which a sidecar may not fit; use another mode"
            }
            Self::NameTaken(_) => "a container is named {}, as the agent's; rename it",
            Self::VolumeTaken(_) => "a volume is named {}, as one of the agent's; rename it",
            Self::PortTaken(_) => {
                "a container uses port {}, as the agent does, and the ports it would take instead are used too; change either"
            }
            Self::AnnotationsTooLarge => {
                "its annotations and the agent's configuration exceed 256 KiB together"
            }
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::AlreadyInjectedByAnother(detail)
            | Self::NameTaken(detail)
            | Self::VolumeTaken(detail)
            | Self::PortTaken(detail) => Some(detail),
            _ => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = self.sentence();
        f.write_str(&sentence.replace("{}", self.detail().unwrap_or_default()))
    }
}

/// The first reason not to inject a pod.
pub(super) fn why_not(pod: &Value, recipe: &Recipe) -> Option<Reason> {
    let spec = &pod["spec"];
    let label = |key| entry(pod, ["metadata", "labels"], key);
    let annotation = |key| entry(pod, ["metadata", "annotations"], key);
    if label(names::LABEL_INJECT) == Some("false") {
        return Some(Reason::OptedOut);
    }
    if annotation(MIRROR).is_some() {
        return Some(Reason::MirrorPod);
    }
    if let Some(agent) = label(names::LABEL_AGENT) {
        if agent != recipe.agent {
            return Some(Reason::AlreadyInjectedByAnother(agent.into()));
        }
        if label(names::LABEL_CONFIG) != Some(&recipe.hash()) {
            return Some(Reason::InjectedEarlier);
        }
    }
    if recipe.sidecar.is_none() && bears_sidecar(spec) {
        return Some(Reason::InjectedEarlier);
    }
    if is_for_windows(spec) {
        return Some(Reason::Windows);
    }
    if !matches!(annotation(COLLECTOR), None | Some("" | "false")) {
        return Some(Reason::CollectorAsked);
    }
    if recipe.mode == Mode::NodeLocal && !resolves_services(spec) {
        return Some(Reason::NoClusterDns);
    }
    let sidecar = recipe.sidecar.as_ref()?;
    why_no_sidecar(pod, spec, recipe, sidecar)
}

fn is_named(list: &[Value], name: &str) -> bool {
    list.iter().any(|item| text(item, "name") == name)
}

/// Whether the pod has an injected sidecar, for which a recipe without one has no configuration.
fn bears_sidecar(spec: &Value) -> bool {
    is_named(list(spec, "initContainers"), names::CONTAINER)
        && is_named(list(spec, "volumes"), names::CONFIG_VOLUME)
}

/// Whether the pod can be placed on Windows nodes only.
fn is_for_windows(spec: &Value) -> bool {
    spec["os"]["name"] == "windows" || WINDOWS.confines(spec)
}

/// Whether a sidecar has the bundled image, whose user is that of the image. The architectures of another image are
/// unknown.
fn is_bundled(sidecar: &Value) -> bool {
    takes_user_of_pod(sidecar)
}

/// Whether a pod can resolve `name.namespace.svc`, which needs a list of search domains.
fn resolves_services(spec: &Value) -> bool {
    match text(spec, "dnsPolicy") {
        "Default" => false,
        "None" => !list(&spec["dnsConfig"], "searches").is_empty(),
        "" | "ClusterFirst" => spec["hostNetwork"] != true,
        _ => true,
    }
}

fn why_no_sidecar(pod: &Value, spec: &Value, recipe: &Recipe, sidecar: &Value) -> Option<Reason> {
    let name = text(sidecar, "name");
    if is_bundled(sidecar) && WITHOUT_IMAGE.confines(spec) {
        return Some(Reason::Architecture);
    }
    if VIRTUAL.confines(spec) {
        return Some(Reason::VirtualNode);
    }
    if spec["hostNetwork"] == true {
        return Some(Reason::HostNetwork);
    }
    if recipe.upstream_is_service && !resolves_services(spec) {
        return Some(Reason::NoUpstreamDns);
    }
    if has(spec, "resources") {
        return Some(Reason::PodLevelResources);
    }
    if !is_injected(spec, sidecar) {
        if containers(pod).any(|container| text(container, "name") == name) {
            return Some(Reason::NameTaken(name.into()));
        }
        let mut volumes = recipe.volumes.iter().map(|volume| text(volume, "name"));
        if let Some(taken) = volumes.find(|name| is_named(list(spec, "volumes"), name)) {
            return Some(Reason::VolumeTaken(taken.into()));
        }
    }
    let elsewhere = |moved: &Moved| ports::clash(pod, &moved.sidecar).is_none();
    if let Some(port) = ports::clash(pod, sidecar)
        && !recipe.moved.as_ref().is_some_and(elsewhere)
    {
        return Some(Reason::PortTaken(port.to_string()));
    }
    (annotation_bytes(pod, recipe) > MAX_ANNOTATIONS).then_some(Reason::AnnotationsTooLarge)
}

/// Whether the pod already has the sidecar: a container with its name and image. The name alone is not
/// enough, and neither are labels: `kubectl debug --copy-to` drops them together with the annotations, and
/// the copy would not start without its configuration.
fn is_injected(spec: &Value, sidecar: &Value) -> bool {
    let same = |other: &Value, key| text(other, key) == text(sidecar, key);
    let mut containers = list(spec, "initContainers").iter();
    containers.any(|other| same(other, "name") && same(other, "image"))
}

fn annotation_bytes(pod: &Value, recipe: &Recipe) -> usize {
    let annotations = pod["metadata"]["annotations"].as_object();
    let kept = annotations.into_iter().flatten();
    let kept = kept.filter(|(key, _)| !recipe.annotations.contains_key(*key));
    kept.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum::<usize>()
        + joined_bytes(pod, recipe)
        + bytes(ports::moved(pod, recipe).map_or(&recipe.annotations, |moved| &moved.annotations))
}

/// At most what is joined to lists, with a comma.
fn joined_bytes(pod: &Value, recipe: &Recipe) -> usize {
    let is_listed = |key: &str, name: &str| {
        let names = entry(pod, ["metadata", "annotations"], key).unwrap_or_default();
        names.split(',').any(|other| other.trim() == name)
    };
    let joined = recipe.joined_annotations.iter();
    let joined = joined.filter(|(key, name)| !is_listed(key, name));
    joined.map(|(key, name)| key.len() + name.len() + 1).sum()
}

/// [`joined_bytes`] in CEL, as terms of a list.
fn joined_bytes_in_cel(recipe: &Recipe) -> String {
    let joined = recipe.joined_annotations.iter().map(|(key, name)| {
        format!(
            ", object.metadata.?annotations[?{}].orValue(\"\").split(\",\").exists(n, n.trim() == {}) ? 0 : {}",
            quoted(key),
            quoted(name),
            key.len() + name.len() + 1
        )
    });
    joined.collect()
}

fn bytes(annotations: &BTreeMap<String, String>) -> usize {
    let annotations = annotations.iter();
    annotations
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

/// One reason, as CEL over `object`.
pub struct Condition {
    /// Name of the policy's match condition.
    pub name: &'static str,
    /// True if the pod must not be injected.
    pub applies: String,
    /// The sentence, as an expression that is evaluated only if the condition holds.
    pub sentence: String,
}

impl Condition {
    /// The detail of the reason is a CEL expression.
    fn new(name: &'static str, applies: String, reason: &Reason) -> Self {
        let sentence = reason.sentence();
        let sentence = match sentence.split_once("{}").zip(reason.detail()) {
            Some(((before, after), detail)) => {
                format!("{} + {detail} + {}", quoted(before), quoted(after))
            }
            None => quoted(sentence),
        };
        Self {
            name,
            applies,
            sentence,
        }
    }
}

/// The possible reasons for a recipe, in the order of [`why_not`], without [`Reason::OptedOut`], which the
/// policies' object selector handles.
pub(super) fn conditions(recipe: &Recipe) -> Vec<Condition> {
    let (agent, config) = (quoted(names::LABEL_AGENT), quoted(names::LABEL_CONFIG));
    let (own, hash) = (quoted(&recipe.agent), quoted(&recipe.hash()));
    let label = format!("object.metadata.?labels[?{agent}]");
    let another = Reason::AlreadyInjectedByAnother(format!("string({label}.value())"));
    let others = format!("{label}.hasValue() && {label}.value() != {own}");
    let mut earlier = format!(
        "{label}.hasValue() && {label}.value() == {own} \
         && object.metadata.?labels[?{config}].orValue(\"\") != {hash}"
    );
    if recipe.sidecar.is_none() {
        earlier = format!("{earlier} || {}", bears_sidecar_in_cel());
    }
    let collector = format!(
        "!(object.metadata.?annotations[?{}].orValue(\"\") in [\"\", \"false\"])",
        quoted(COLLECTOR)
    );
    let mut conditions = vec![
        mirror(),
        Condition::new("another", others, &another),
        Condition::new("earlier", earlier, &Reason::InjectedEarlier),
        Condition::new("windows", for_windows(), &Reason::Windows),
        Condition::new("collector", collector, &Reason::CollectorAsked),
    ];
    if recipe.mode == Mode::NodeLocal {
        let dns = Condition::new("dns", unresolved_services(), &Reason::NoClusterDns);
        conditions.push(dns);
    }
    if let Some(sidecar) = &recipe.sidecar {
        conditions.extend(sidecar_conditions(recipe, sidecar));
    }
    conditions
}

/// The same as [`is_for_windows`].
fn for_windows() -> String {
    let confined = WINDOWS.confines_in_cel();
    format!("object.spec.?os.?name.orValue(\"\") == \"windows\" || {confined}")
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

/// The opposite of [`resolves_services`].
fn unresolved_services() -> String {
    let dns = "object.spec.?dnsPolicy.orValue(\"ClusterFirst\")";
    format!(
        "{dns} == \"Default\" || {dns} == \"None\" && object.spec.?dnsConfig.?searches.orValue([]).size() == 0 \
         || object.spec.?hostNetwork.orValue(false) && {dns} == \"ClusterFirst\""
    )
}

/// The policies ignore mirror pods: even `Fail` must not refuse them, or the API would not show what runs
/// on a node.
pub fn mirror() -> Condition {
    let mirror = quoted(MIRROR);
    let applies = format!("{mirror} in object.metadata.?annotations.orValue({{}})");
    Condition::new("mirror", applies, &Reason::MirrorPod)
}

fn sidecar_conditions(recipe: &Recipe, sidecar: &Value) -> Vec<Condition> {
    let name = quoted(text(sidecar, "name"));
    let image = quoted(text(sidecar, "image"));
    let injected = format!(
        "object.spec.?initContainers.orValue([])\
         .exists(c, c.name == {name} && c.?image.orValue(\"\") == {image})"
    );
    let named = format!("!{injected} && {CONTAINERS}.exists(c, c.name == {name})");
    let volumes = quoted_list(recipe.volumes.iter().map(|volume| text(volume, "name")));
    let taken = "object.spec.?volumes.orValue([]).exists(w, w.name == v)";
    let volume = format!("!{injected} && {volumes}.exists(v, {taken})");
    let first_taken = format!("{volumes}.filter(v, {taken})[0]");
    let host_network = "object.spec.?hostNetwork.orValue(false)".into();
    let resources = "has(object.spec.resources)".into();
    let upstream = recipe.upstream_is_service.then(unresolved_services);
    let upstream = upstream.map(|dns| Condition::new("upstream-dns", dns, &Reason::NoUpstreamDns));
    let architecture = is_bundled(sidecar).then(|| WITHOUT_IMAGE.confines_in_cel());
    let architecture = architecture
        .map(|confined| Condition::new("architecture", confined, &Reason::Architecture));
    let virtual_nodes = VIRTUAL.confines_in_cel();
    let virtual_nodes = Condition::new("virtual-node", virtual_nodes, &Reason::VirtualNode);
    let mut conditions: Vec<Condition> = architecture.into_iter().chain([virtual_nodes]).collect();
    conditions.push(Condition::new(
        "host-network",
        host_network,
        &Reason::HostNetwork,
    ));
    conditions.extend(upstream);
    conditions.extend([
        Condition::new("pod-resources", resources, &Reason::PodLevelResources),
        Condition::new("name", named, &Reason::NameTaken(name)),
        Condition::new("volume", volume, &Reason::VolumeTaken(first_taken)),
        port_condition(recipe, sidecar),
        annotations_condition(recipe),
    ]);
    conditions
}

fn port_condition(recipe: &Recipe, sidecar: &Value) -> Condition {
    let mut clash = ports::clash_in_cel(sidecar);
    if let Some(moved) = &recipe.moved {
        clash = format!("{clash} && {}", ports::clash_in_cel(&moved.sidecar));
    }
    let first = format!(
        "string({}.filter(port, {})[0])",
        ports::ports_in_cel(sidecar),
        ports::declared_in_cel(sidecar, "== port")
    );
    Condition::new("port", clash, &Reason::PortTaken(first))
}

fn annotations_condition(recipe: &Recipe) -> Condition {
    let mut added = bytes(&recipe.annotations).to_string();
    if let Some((moved, clash)) = recipe.moved.as_ref().zip(ports::moved_in_cel(recipe)) {
        added = format!("{clash} ? {} : {added}", bytes(&moved.annotations));
    }
    let kept = format!(
        "object.metadata.?annotations.orValue({{}}).map(k, k in {} ? 0 \
         : bytes(string(k)).size() + bytes(string(object.metadata.annotations[k])).size())",
        quoted_list(recipe.annotations.keys().map(String::as_str))
    );
    let joined = joined_bytes_in_cel(recipe);
    let applies = format!("([{added}{joined}] + {kept}).sum() > {MAX_ANNOTATIONS}");
    Condition::new("annotations", applies, &Reason::AnnotationsTooLarge)
}
