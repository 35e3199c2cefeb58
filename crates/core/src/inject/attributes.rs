//! `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` of a pod's containers, by OpenTelemetry's "Populating
//! resource attributes in Kubernetes".
//!
//! The labels `app.kubernetes.io/*` are not used: the conventions require an opt-in for them, because their
//! authors may not have meant them for telemetry. [`super::program`] has the same rules in CEL; change both
//! together.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::environment::{NODE_NAME, POD_NAME, POD_UID};
use super::json::{entry, list, text};
use crate::owners::{self, Above};

/// The prefix of annotations that become resource attributes.
pub(super) const ANNOTATION_PREFIX: &str = "resource.opentelemetry.io/";
/// The longest value, encoded: the SDK for Node.js discards all attributes because of one longer value, and
/// until 2026 counted the encoded characters.
pub(super) const MAX_VALUE: usize = 255;
/// Controllers whose kind has an attribute in the conventions.
pub(super) const KINDS: [&str; 5] = [
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "ReplicationController",
];
/// Characters that need no encoding, as the inside of an RE2 character class: W3C Baggage's octets without
/// `%`, which starts an encoded one, without `=`, at which some SDKs split, without `$`, which the kubelet
/// expands, without `+`, which Java read as a space until 2026, and without `~`, for which old SDKs for Node.js
/// discard all attributes.
pub(super) const SAFE: &str = r"!#&-*\--:<>-\[\]-}";
/// What stands above a controller and has an attribute in the conventions, with the attribute's part.
pub(super) const OUTER_KINDS: [(&str, &str); 2] =
    [("Deployment", "deployment"), ("CronJob", "cronjob")];

/// The attributes that all containers of a pod share.
pub(super) struct PodAttributes<'a> {
    /// Value of `OTEL_SERVICE_NAME`.
    pub(super) service_name: String,
    namespace: &'a str,
    /// The pod's name; a pod may not have it yet, and then gets a short one.
    pod_name: &'a str,
    computed: Vec<String>,
    given: Vec<String>,
    annotations: BTreeMap<&'a str, &'a str>,
}

impl<'a> PodAttributes<'a> {
    /// Reads a pod as its creator sent it; it may not have a name or a uid yet.
    pub(super) fn of(pod: &'a Value, namespace: &'a str) -> Self {
        let (owners, annotations) = (owners(pod), annotations(pod));
        let annotated = annotations.get("service.name").copied();
        let mut names = annotated
            .into_iter()
            .chain(owners.iter().map(|(_, name)| *name));
        let service_name = names.find(|name| !name.is_empty());
        let mut computed = vec![
            format!("k8s.namespace.name={namespace}"),
            format!("k8s.pod.name=$({POD_NAME})"),
            format!("k8s.pod.uid=$({POD_UID})"),
            format!("k8s.node.name=$({NODE_NAME})"),
            format!("service.namespace={namespace}"),
        ];
        let of_known_kind = owners.iter().filter(|(kind, _)| !kind.is_empty());
        computed.extend(
            of_known_kind.map(|(kind, name)| format!("k8s.{kind}.name={}", percent_encode(name))),
        );
        computed.retain(|attribute| is_injectable(attribute, &annotations));
        let others = annotations
            .iter()
            .filter(|(key, value)| **key != "service.name" && !value.is_empty());
        let given = others.map(|(key, value)| format!("{key}={}", percent_encode(value)));
        Self {
            // The kubelet reads `$$` as `$` and would expand `$(...)`.
            service_name: service_name
                .map_or_else(|| format!("$({POD_NAME})"), |name| name.replace('$', "$$")),
            namespace,
            pod_name: text(&pod["metadata"], "name"),
            computed,
            given: given.collect(),
            annotations,
        }
    }

    /// Attributes of one container, as `key=value`, each key once.
    pub(super) fn of_container(&self, container: &Value) -> Vec<String> {
        let (namespace, name) = (self.namespace, text(container, "name"));
        let characters = [namespace, self.pod_name, name].map(|part| part.chars().count());
        // By the conventions namespace, pod and container, joined by two dots; the uid where that is too long.
        let pod = if characters.iter().sum::<usize>() + 2 <= MAX_VALUE {
            format!("{namespace}.$({POD_NAME})")
        } else {
            format!("$({POD_UID})")
        };
        let mut own = vec![
            format!("k8s.container.name={name}"),
            format!("service.instance.id={pod}.{name}"),
        ];
        let version = version(text(container, "image"));
        if !version.is_empty() {
            own.push(format!("service.version={version}"));
        }
        own.retain(|attribute| is_injectable(attribute, &self.annotations));
        [&self.computed[..], &own, &self.given].concat()
    }
}

/// Whether no annotation sets or removes the key of a `key=value` pair, and the value is not too long.
fn is_injectable(attribute: &str, annotations: &BTreeMap<&str, &str>) -> bool {
    let (key, value) = attribute.split_once('=').unwrap_or((attribute, ""));
    !annotations.contains_key(key) && value.chars().count() <= MAX_VALUE
}

/// The key of a `key=value` pair.
pub(super) fn key(attribute: &str) -> &str {
    attribute.split('=').next().unwrap_or_default()
}

/// `text` with everything but [`SAFE`] as `%XX` of its UTF-8 bytes.
pub(super) fn percent_encode(text: &str) -> String {
    let safe = |byte| matches!(byte, 0x21 | 0x23 | 0x26..=0x2A | 0x2D..=0x3A | 0x3C | 0x3E..=0x5B | 0x5D..=0x7D);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if safe(byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Annotations that say something of an attribute, by its key: a value, or, if empty, that the attribute is left
/// out. Skips those that are too long.
fn annotations(pod: &Value) -> BTreeMap<&str, &str> {
    let all = pod["metadata"]["annotations"].as_object();
    all.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION_PREFIX)?, value.as_str()?)))
        .filter(|(key, value)| {
            value.chars().count() <= MAX_VALUE
                && (*key == "service.name" || percent_encode(value).len() <= MAX_VALUE)
        })
        .collect()
}

/// Kind (as in `k8s.<kind>.name`, empty if the conventions have none) and name of the pod's owners,
/// outermost first.
fn owners(pod: &Value) -> Vec<(String, &str)> {
    let controllers = list(&pod["metadata"], "ownerReferences").iter();
    let controllers = controllers.filter(|owner| owner["controller"] == true);
    let mut found = Vec::new();
    for controller in controllers {
        let (kind, name) = (text(controller, "kind"), text(controller, "name"));
        if name.chars().count() > MAX_VALUE {
            continue;
        }
        let label = |key: &str| entry(pod, ["metadata", "labels"], key);
        let annotation = |key: &str| entry(pod, ["metadata", "annotations"], key);
        let above = owners::above(kind, name, label, annotation).into_iter();
        found.extend(above.map(|Above { kind, name, .. }| {
            let known = OUTER_KINDS.iter().find(|(own, _)| *own == kind);
            (known.map_or("", |(_, part)| part).to_owned(), name)
        }));
        let known = KINDS.iter().find(|known| **known == kind);
        found.push((
            known.map_or_else(String::new, |kind| kind.to_ascii_lowercase()),
            name,
        ));
    }
    found
}

/// Tag and digest of an image, from which the conventions derive `service.version`.
fn version(image: &str) -> String {
    let reference = image.split('@').next().unwrap_or_default();
    let tag = reference.rsplit_once(':').map(|(_, tag)| tag);
    let digest = image.rsplit_once('@').map(|(_, digest)| digest);
    let (tag, digest) = (
        tag.filter(|tag| is_tag(tag)),
        digest.filter(|digest| is_digest(digest)),
    );
    tag.into_iter().chain(digest).collect::<Vec<_>>().join("@")
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let algorithm_byte = |b: u8| b.is_ascii_alphanumeric() || b"+._-".contains(&b);
        !algorithm.is_empty()
            && algorithm.bytes().all(algorithm_byte)
            && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_every_sdk_reads_back_stays_unencoded() {
        assert_eq!(
            percent_encode("a b,c=d;e%$(X)\"\\é/:@!#&'*<>?[]^_`{|}"),
            "a%20b%2Cc%3Dd%3Be%25%24(X)%22%5C%C3%A9/:@!#&'*<>?[]^_`{|}"
        );
        // Java reads a plus sign as a space, and Node.js discards everything for a tilde.
        assert_eq!(percent_encode("1.4.0+build~7"), "1.4.0%2Bbuild%7E7");
    }

    /// The attributes of a container `app` of a pod with this metadata.
    fn attributes(metadata: &Value) -> BTreeMap<String, String> {
        let pod = json!({"metadata": metadata});
        let container = json!({"name": "app", "image": "shop:1"});
        let pairs = PodAttributes::of(&pod, "ns").of_container(&container);
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        let owned = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        owned.collect()
    }

    #[test]
    fn annotation_that_is_too_long_for_node_js_is_left_out() {
        let of = |text: &str| {
            let found =
                attributes(&json!({"annotations": {"resource.opentelemetry.io/team": text}}));
            found.get("team").cloned()
        };
        assert_eq!(of(&"x".repeat(255)), Some("x".repeat(255)));
        assert_eq!(of(&"x".repeat(256)), None);
        assert_eq!(of(&"é".repeat(42)).map(|text| text.len()), Some(252));
        assert_eq!(of(&"é".repeat(43)), None, "it has 258 characters, encoded");
    }

    #[test]
    fn annotation_that_is_too_long_changes_nothing() {
        let key = "resource.opentelemetry.io/service.version";
        let found = attributes(&json!({"annotations": {key: "é".repeat(43)}}));
        assert_eq!(found["service.version"], "1");
    }

    #[test]
    fn empty_annotation_leaves_an_attribute_out() {
        let key = "resource.opentelemetry.io/service.instance.id";
        let found = attributes(&json!({"annotations": {key: ""}}));
        assert_eq!(found.get("service.instance.id"), None);
        assert_eq!(found["k8s.container.name"], "app");
    }

    #[test]
    fn instance_has_the_pods_uid_where_its_name_is_too_long() {
        let instance =
            |name: &str| attributes(&json!({"name": name}))["service.instance.id"].clone();
        // With the namespace, the container and two dots, 255 characters.
        assert_eq!(instance(&"p".repeat(248)), "ns.$(OTELAGENT_POD_NAME).app");
        assert_eq!(instance(&"p".repeat(249)), "$(OTELAGENT_POD_UID).app");
        assert_eq!(
            attributes(&json!({}))["service.instance.id"],
            "ns.$(OTELAGENT_POD_NAME).app"
        );
    }

    #[test]
    fn owner_of_an_impossible_name_is_ignored() {
        let controller =
            json!({"kind": "StatefulSet", "name": "x".repeat(256), "controller": true});
        let pod = json!({"metadata": {"ownerReferences": [controller]}});
        assert_eq!(
            PodAttributes::of(&pod, "ns").service_name,
            "$(OTELAGENT_POD_NAME)"
        );
    }

    #[test]
    fn service_of_a_rollout_keeps_its_name_over_releases() {
        let controller =
            json!({"kind": "ReplicaSet", "name": "shop-6d8f9c7b5d", "controller": true});
        let pod = json!({"metadata": {
            "labels": {"rollouts-pod-template-hash": "6d8f9c7b5d"}, "ownerReferences": [controller],
        }});
        let found = PodAttributes::of(&pod, "ns");
        assert_eq!(found.service_name, "shop");
        let has = |part: &str| found.computed.iter().any(|pair| pair.starts_with(part));
        assert!(has("k8s.replicaset.name=shop-6d8f9c7b5d") && !has("k8s.deployment.name"));
    }

    #[test]
    fn version_is_tag_and_digest_of_the_image() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(version("shop:1.2"), "1.2");
        assert_eq!(version("registry:5000/shop"), "");
        assert_eq!(
            version(&format!("registry:5000/shop:1.2@{digest}")),
            format!("1.2@{digest}")
        );
        assert_eq!(version(&format!("shop@{digest}")), digest);
        assert_eq!(version("shop:$(X)"), "");
        assert_eq!(version("shop@sha256:zz"), "");
    }

    #[test]
    fn deployment_is_known_by_the_hash_of_its_pod_template() {
        let pod = json!({"metadata": {
            "labels": {"pod-template-hash": "abc"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "shop-abc", "controller": true}],
        }});
        assert_eq!(
            owners(&pod),
            [
                ("deployment".to_owned(), "shop"),
                ("replicaset".to_owned(), "shop-abc")
            ]
        );
    }
}
