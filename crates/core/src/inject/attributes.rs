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
use super::json::{list, text};

/// The prefix of annotations that become resource attributes.
pub(super) const ANNOTATION_PREFIX: &str = "resource.opentelemetry.io/";
/// Longer annotations are skipped, which bounds the cost of a policy.
pub(super) const MAX_VALUE: usize = 1024;
/// Controllers whose kind has an attribute in the conventions.
pub(super) const KINDS: [&str; 5] = [
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "ReplicationController",
];
/// Characters that need no encoding, as the inside of an RE2 character class: W3C Baggage's octets without
/// `%`, which starts an encoded one, without `=`, at which some SDKs split, and without `$`, which the
/// kubelet expands.
pub(super) const SAFE: &str = r"!#&-+\--:<>-\[\]-~";
/// The end of the name of a `CronJob`'s Job: the scheduled time in minutes, here from 2019 to 2049. Any
/// eight digits would also match a date such as 20261122.
pub(super) const CRON_SUFFIX: &str = "-(2[6-9]|3[0-9]|4[01])[0-9]{6}$";
/// The length of that suffix.
pub(super) const CRON_SUFFIX_CHARS: usize = 9;

/// The attributes that all containers of a pod share.
pub(super) struct PodAttributes<'a> {
    /// Value of `OTEL_SERVICE_NAME`.
    pub(super) service_name: String,
    namespace: &'a str,
    computed: Vec<String>,
    given: Vec<String>,
    annotations: BTreeMap<&'a str, &'a str>,
}

impl<'a> PodAttributes<'a> {
    /// Reads a pod as its creator sent it; it may not have a name or a uid yet.
    pub(super) fn of(pod: &'a Value, namespace: &'a str) -> Self {
        let (owners, annotations) = (owners(pod), annotations(pod));
        let owner = owners.first().map(|(_, name)| *name);
        let service_name = annotations.get("service.name").copied().or(owner);
        let service_name = service_name.filter(|name| !name.is_empty());
        let mut computed = vec![
            format!("k8s.namespace.name={namespace}"),
            format!("k8s.pod.name=$({POD_NAME})"),
            format!("k8s.pod.uid=$({POD_UID})"),
            format!("k8s.node.name=$({NODE_NAME})"),
            format!("service.namespace={namespace}"),
        ];
        let named = owners.iter().filter(|(kind, _)| !kind.is_empty());
        computed
            .extend(named.map(|(kind, name)| format!("k8s.{kind}.name={}", percent_encode(name))));
        computed.retain(|attribute| !annotations.contains_key(key(attribute)));
        let others = annotations
            .iter()
            .filter(|(key, _)| **key != "service.name");
        let given = others.map(|(key, value)| format!("{key}={}", percent_encode(value)));
        Self {
            // The kubelet reads `$$` as `$` and would expand `$(...)`.
            service_name: service_name
                .map_or_else(|| format!("$({POD_NAME})"), |name| name.replace('$', "$$")),
            namespace,
            computed,
            given: given.collect(),
            annotations,
        }
    }

    /// Attributes of one container, as `key=value`, each key once.
    pub(super) fn of_container(&self, container: &Value) -> Vec<String> {
        let (namespace, name) = (self.namespace, text(container, "name"));
        let mut own = vec![
            format!("k8s.container.name={name}"),
            format!("service.instance.id={namespace}.$({POD_NAME}).{name}"),
        ];
        let version = version(text(container, "image"));
        if !version.is_empty() {
            own.push(format!("service.version={version}"));
        }
        own.retain(|attribute| !self.annotations.contains_key(key(attribute)));
        [&self.computed[..], &own, &self.given].concat()
    }
}

/// The key of a `key=value` pair.
pub(super) fn key(attribute: &str) -> &str {
    attribute.split('=').next().unwrap_or_default()
}

/// `text` with everything but [`SAFE`] as `%XX` of its UTF-8 bytes.
pub(super) fn percent_encode(text: &str) -> String {
    let safe = |byte| matches!(byte, 0x21 | 0x23 | 0x26..=0x2B | 0x2D..=0x3A | 0x3C | 0x3E..=0x5B | 0x5D..=0x7E);
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

/// Annotations that become attributes, by key; skips empty ones.
fn annotations(pod: &Value) -> BTreeMap<&str, &str> {
    let all = pod["metadata"]["annotations"].as_object();
    all.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.strip_prefix(ANNOTATION_PREFIX)?, value.as_str()?)))
        .filter(|(_, value)| !value.is_empty() && value.chars().count() <= MAX_VALUE)
        .collect()
}

/// Kind (as in `k8s.<kind>.name`, empty if the conventions have none) and name of the pod's owners,
/// outermost first. A pod names only its direct owner; the Deployment of a `ReplicaSet` and the `CronJob`
/// of a Job follow from the names that their controllers give.
fn owners(pod: &Value) -> Vec<(String, &str)> {
    let metadata = &pod["metadata"];
    let owners = list(metadata, "ownerReferences").iter();
    let hash = metadata["labels"]["pod-template-hash"].as_str();
    let mut found = Vec::new();
    for owner in owners.filter(|owner| owner["controller"] == true) {
        let (kind, name) = (text(owner, "kind"), text(owner, "name"));
        let (outer_kind, outer) = match kind {
            "ReplicaSet" => (
                "deployment",
                hash.and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-')),
            ),
            "Job" => ("cronjob", without_cron_suffix(name)),
            _ => ("", None),
        };
        let outer = outer.filter(|outer| !outer.is_empty());
        found.extend(outer.map(|outer| (outer_kind.to_owned(), outer)));
        let known = KINDS.iter().find(|known| **known == kind);
        let kind = known.map_or_else(String::new, |kind| kind.to_ascii_lowercase());
        found.push((kind, name));
    }
    found
}

/// The name without [`CRON_SUFFIX`], if it ends in one.
fn without_cron_suffix(name: &str) -> Option<&str> {
    let (outer, suffix) = name.split_at_checked(name.len().checked_sub(CRON_SUFFIX_CHARS)?)?;
    let digits = suffix.strip_prefix('-')?;
    let is_number = digits.bytes().all(|b| b.is_ascii_digit());
    let minutes: u32 = is_number.then(|| digits.parse().ok())??;
    (26_000_000..42_000_000).contains(&minutes).then_some(outer)
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
            percent_encode("a b,c=d;e%$(X)\"\\é/:@"),
            "a%20b%2Cc%3Dd%3Be%25%24(X)%22%5C%C3%A9/:@"
        );
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
    fn cron_job_is_distinguished_from_a_job_that_ends_in_a_date() {
        assert_eq!(without_cron_suffix("backup-29834567"), Some("backup"));
        assert_eq!(without_cron_suffix("import-20261122"), None);
        assert_eq!(without_cron_suffix("éééé"), None);
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
