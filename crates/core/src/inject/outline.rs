//! As much of a pod as decides whether it can be injected, to be kept for every pod of a cluster.
//!
//! An outline is the pod without everything that [`super::reason`] does not read. The pods of one workload have
//! the same outline, and most outlines are a few bytes.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Affinity, NodeAffinity};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::reason::{COLLECTOR, MIRROR, Reason, why_not};
use super::recipe::Recipe;
use super::unfit::{ARCH, NODE_TYPE, OS};
use crate::names;

/// Annotations of fewer bytes fit beside every configuration, so their size is not kept: it may differ between
/// the pods of a workload.
const SMALL: usize = 12 << 10;
/// Key of the size of the annotations in an outline, and of the annotation that takes their place.
const BYTES: &str = "otelagent.dev/annotation-bytes";
/// Names of the injected container and of injected volumes begin so.
const OWN_PREFIX: &str = "otelagent";
/// Annotations that injection adds begin so.
const OWN_KEYS: &str = "otelagent.dev/";
/// Most items of a list that are kept, so that no pod takes more memory than its labels do.
const MAX_ITEMS: usize = 100;

/// The fields that are read of a pod's annotations.
#[derive(Clone, Debug, Default)]
pub struct PodAnnotations {
    /// Whether the pod is the mirror of a static one.
    pub is_mirror: bool,
    asks_for_collector: bool,
    /// Of all keys and values, without what injection adds.
    bytes: usize,
    /// Of the annotation to which injection joins its own value, so that only a new pod tells what its user wrote.
    joined_bytes: usize,
}

/// The fields that are read of a pod's spec.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node on which it runs.
    #[serde(skip_serializing)]
    pub node_name: Option<String>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_selector: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_network: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_config: Option<DnsConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Present>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Container>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Container>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    volumes: Vec<Named>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct DnsConfig {
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    searches: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Port>,
    #[serde(skip_serializing)]
    startup_probe: Option<Probe>,
    #[serde(skip_serializing)]
    readiness_probe: Option<Probe>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<HttpGet>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HttpGet {
    port: Value,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_port: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
}

/// A value of which only its presence matters.
#[derive(Clone, Copy, Debug)]
struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

impl Serialize for Present {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

/// Treats `null` as absent, as the API server does.
pub fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl<'de> Deserialize<'de> for PodAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = PodAnnotations;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut read = PodAnnotations::default();
                while let Some((key, value)) = map.next_entry::<String, Option<String>>()? {
                    read.add(&key, &value.unwrap_or_default());
                }
                Ok(read)
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl PodAnnotations {
    fn add(&mut self, key: &str, value: &str) {
        if key.starts_with(OWN_KEYS) {
            return;
        }
        let bytes = if key == names::ANNOTATION_LOCAL_VOLUMES {
            &mut self.joined_bytes
        } else {
            &mut self.bytes
        };
        *bytes = bytes.saturating_add(key.len() + value.len());
        self.is_mirror |= key == MIRROR;
        self.asks_for_collector |= key == COLLECTOR && !matches!(value, "" | "false");
    }
}

/// The outline of a pod, as text. Of an injected pod it is that of a new pod of the same workload: without
/// what injection has added.
pub fn outline(annotations: &PodAnnotations, mut spec: PodSpec, is_injected: bool) -> String {
    spec.reduce(is_injected);
    let mut outline = json!({});
    if annotations.asks_for_collector {
        outline["metadata"]["annotations"][COLLECTOR] = "true".into();
    }
    let joined = if is_injected {
        0
    } else {
        annotations.joined_bytes
    };
    let bytes = annotations.bytes.saturating_add(joined);
    if bytes > SMALL {
        outline[BYTES] = bytes.into();
    }
    match serde_json::to_value(spec) {
        Ok(Value::Object(spec)) if !spec.is_empty() => outline["spec"] = spec.into(),
        _ => {}
    }
    outline.to_string()
}

impl PodSpec {
    /// The port at which the kubelet asks the agent of this pod for its health; `None` if it runs a command.
    pub fn health_port(&self) -> Option<u16> {
        let mut all = self.init_containers.iter().chain(&self.containers);
        let agent = all.find(|container| container.name.as_deref() == Some(names::CONTAINER))?;
        let probes = [&agent.startup_probe, &agent.readiness_probe];
        let mut asked = probes.into_iter().flatten();
        let asked = asked.find_map(|probe| probe.http_get.as_ref())?;
        u16::try_from(asked.port.as_u64()?).ok()
    }

    /// Whether the pod has the network of its node.
    pub fn is_on_host_network(&self) -> bool {
        self.host_network == Some(true)
    }

    /// Drops what no reason depends on, so that outlines are small and alike.
    fn reduce(&mut self, is_injected: bool) {
        let is_own = |name: &str| name.starts_with(OWN_PREFIX);
        if let Some(selector) = &mut self.node_selector {
            selector.retain(|key, _| tells_nodes_apart(key));
        }
        self.node_selector.take_if(|selector| selector.is_empty());
        self.affinity = self.affinity.take().and_then(of_kinds_of_nodes);
        self.dns_policy.take_if(|policy| policy == "ClusterFirst");
        self.host_network.take_if(|host| !*host);
        if is_injected {
            let is_ours = |container: &Container| {
                matches!(
                    container.name.as_deref(),
                    Some(names::CONTAINER | names::START_GATE)
                )
            };
            self.init_containers.retain(|container| !is_ours(container));
        }
        if let Some(dns) = &mut self.dns_config {
            dns.searches.truncate(1);
        }
        self.volumes
            .retain(|volume| is_own(&volume.name) && !is_injected);
        self.volumes.truncate(MAX_ITEMS);
        for containers in [&mut self.containers, &mut self.init_containers] {
            for container in &mut *containers {
                container.name.take_if(|name| !is_own(name));
                container.image.take_if(|_| container.name.is_none());
                container.ports.truncate(MAX_ITEMS);
            }
            containers.retain(|container| container.name.is_some() || !container.ports.is_empty());
            containers.truncate(MAX_ITEMS);
        }
    }
}

/// Whether a label of nodes says where an injected pod can run.
fn tells_nodes_apart(label: &str) -> bool {
    OS.contains(&label) || ARCH.contains(&label) || label == NODE_TYPE
}

/// The part of an affinity that decides whether a pod may run where the agent does: a node must match one of the
/// terms, so that all must name an operating system or an architecture.
fn of_kinds_of_nodes(affinity: Affinity) -> Option<Affinity> {
    let nodes = affinity.node_affinity?;
    let mut required = nodes.required_during_scheduling_ignored_during_execution?;
    if required.node_selector_terms.len() > MAX_ITEMS {
        return None;
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = None;
        let expressions = term.match_expressions.as_mut()?;
        expressions.retain(|expression| tells_nodes_apart(&expression.key));
        if expressions.is_empty() {
            return None;
        }
    }
    Some(Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(required),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    })
}

/// Why a pod with this outline cannot be injected: the same as of the whole pod without labels.
pub fn why_not_outlined(outline: &str, recipe: &Recipe) -> Option<Reason> {
    let mut pod: Value = serde_json::from_str(outline).ok()?;
    if let Some(bytes) = pod.get(BYTES).and_then(Value::as_u64) {
        let rest = usize::try_from(bytes)
            .unwrap_or_default()
            .saturating_sub(BYTES.len());
        pod["metadata"]["annotations"][BYTES] = "-".repeat(rest).into();
    }
    why_not(&pod, recipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlined(pod: &Value, is_injected: bool) -> String {
        let annotations = pod["metadata"]["annotations"].clone();
        let annotations = serde_json::from_value(annotations).unwrap_or_default();
        let spec = serde_json::from_value(pod["spec"].clone()).unwrap();
        outline(&annotations, spec, is_injected)
    }

    #[test]
    fn outline_of_an_ordinary_pod_is_empty_and_equal_for_all_pods_of_a_workload() {
        let pod = |annotation: &str| {
            json!({
                "metadata": {"annotations": {"cni/address": annotation}},
                "spec": {
                    "nodeName": annotation, "dnsPolicy": "ClusterFirst", "hostNetwork": false,
                    "nodeSelector": {"disk": "ssd"},
                    "containers": [{"name": "app", "image": annotation, "env": [{"name": "A"}]}],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            })
        };
        assert_eq!(outlined(&pod("a"), false), "{}");
        assert_eq!(outlined(&pod("b"), false), "{}");
    }

    #[test]
    fn outline_of_an_injected_pod_is_that_of_a_new_one() {
        let sidecar = json!({"name": names::CONTAINER, "image": "agent:1", "ports": [{"containerPort": 4317}]});
        let pod = json!({
            "metadata": {"annotations": {names::ANNOTATION_CONFIG: "x".repeat(SMALL * 2)}},
            "spec": {
                "hostNetwork": true, "initContainers": [sidecar], "containers": [{"name": "app"}],
                "volumes": [{"name": names::CONFIG_VOLUME}],
            },
        });
        assert_eq!(outlined(&pod, true), r#"{"spec":{"hostNetwork":true}}"#);
        assert_ne!(outlined(&pod, false), outlined(&pod, true));
    }
}
