//! Warnings of Kubernetes about agents that cannot be created or cannot start.
//!
//! Neither a `DaemonSet` nor its pods carry these reasons in their status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Event, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use serde::Deserialize;

use super::store::Cache;

/// The kinds, reasons and beginnings of messages that are cached: a pod cannot be created, its volumes cannot be mounted
/// (a Secret or `ConfigMap` is missing), its sandbox cannot be made, its agent says why it is not ready.
const CACHED: [(&str, &str, &str); 4] = [
    ("DaemonSet", "FailedCreate", ""),
    ("Pod", "FailedMount", ""),
    ("Pod", "FailedCreatePodSandBox", ""),
    ("Pod", "Unhealthy", STARTUP_PROBE),
];
/// Why a node ends a pod, or does not let it begin. The pod then soon is gone, with what its status said.
const ENDED: [&str; 12] = [
    "Evicted",
    "NodeAffinity",
    "OutOfcpu",
    "OutOfephemeral-storage",
    "OutOfmemory",
    "OutOfpods",
    "PodOSNotSupported",
    "Preempted",
    "Preempting",
    "SysctlForbidden",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
];
/// How the kubelet begins what a startup probe said.
pub(crate) const STARTUP_PROBE: &str = "Startup probe failed: ";
/// Longest cached message, in characters.
const MAX_MESSAGE: usize = 300;

/// An event as decoded.
#[derive(Resource, Clone, Debug, Deserialize)]
#[resource(inherit = Event)]
#[serde(from = "Event")]
pub(crate) struct PartialEvent {
    pub(crate) metadata: ObjectMeta,
    about: ObjectReference,
    reason: String,
    message: String,
    /// The node that says so.
    node: Option<String>,
    at: Option<Timestamp>,
}

impl From<Event> for PartialEvent {
    fn from(event: Event) -> Self {
        let series = event.series.and_then(|series| series.last_observed_time);
        let precise = [series, event.event_time].into_iter().flatten();
        let precise = precise.map(|MicroTime(at)| at);
        let coarse = [event.last_timestamp, event.first_timestamp];
        let coarse = coarse.into_iter().flatten().map(|Time(at)| at);
        Self {
            metadata: ObjectMeta {
                name: event.metadata.name,
                namespace: event.metadata.namespace,
                resource_version: event.metadata.resource_version,
                ..ObjectMeta::default()
            },
            about: event.involved_object,
            node: event.source.and_then(|source| source.host),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            at: precise.chain(coarse).max(),
        }
    }
}

/// The cached warnings of one namespace, by kind and name of their object and by their own name.
#[derive(Default)]
pub(crate) struct Warnings(BTreeMap<(String, String, String), Warning>);

/// What an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    /// Uid of the object that it is about.
    uid: Option<String>,
    /// When it was last said.
    pub(crate) at: Timestamp,
    pub(crate) message: String,
    /// The node that has ended the pod, and why.
    ended: Option<(String, String)>,
}

impl Warnings {
    /// The last warning about an object.
    pub(crate) fn last(&self, kind: &str, name: &str, uid: Option<&str>) -> Option<&Warning> {
        let first = (kind.to_owned(), name.to_owned(), String::new());
        let about = self.0.range(first..);
        let about = about.take_while(|((of, called, _), _)| of == kind && called == name);
        let about = about.map(|(_, warning)| warning);
        about
            .filter(|warning| uid.is_none() || warning.uid.as_deref() == uid)
            .max_by_key(|warning| warning.at)
    }

    /// Why nodes have ended the last pod that they had of an agent workload, by node.
    pub(crate) fn ended(&self, workload: &str) -> BTreeMap<String, String> {
        let prefix = format!("{workload}-");
        let first = ("Pod".to_owned(), prefix.clone(), String::new());
        let about = self.0.range(first..);
        let about =
            about.take_while(|((kind, name, _), _)| kind == "Pod" && name.starts_with(&prefix));
        let mut last: BTreeMap<&str, (&str, &Warning)> = BTreeMap::new();
        for (_, warning) in about {
            let Some((node, reason)) = &warning.ended else {
                continue;
            };
            let newest = last.entry(node).or_insert((reason, warning));
            if newest.1.at <= warning.at {
                *newest = (reason, warning);
            }
        }
        let said = last.into_iter().map(|(node, (reason, warning))| {
            let message = &warning.message;
            (node.to_owned(), format!("{reason}: {message}"))
        });
        said.collect()
    }
}

impl PartialEvent {
    fn ended(&self) -> Option<(String, String)> {
        let is_ended = ENDED.contains(&self.reason.as_str());
        Some((self.node.clone()?, self.reason.clone())).filter(|_| is_ended)
    }

    fn key(&self) -> Option<(String, String, String)> {
        let (kind, name) = (self.about.kind.clone()?, self.about.name.clone()?);
        let is_ended = kind == "Pod" && self.ended().is_some();
        let is_cached = is_ended
            || CACHED.iter().any(|(of, reason, message)| {
                *of == kind && *reason == self.reason && self.message.starts_with(message)
            });
        is_cached.then_some((kind, name, self.metadata.name.clone()?))
    }

    fn object(&self) -> ObjectMeta {
        ObjectMeta {
            name: self.about.name.clone(),
            namespace: self.metadata.namespace.clone(),
            ..ObjectMeta::default()
        }
    }
}

impl Cache for Warnings {
    type Object = PartialEvent;
    /// The object that it is about.
    type Change = ObjectMeta;

    fn insert(&mut self, event: PartialEvent) -> Option<ObjectMeta> {
        let (key, at) = (event.key()?, event.at?);
        let warning = Warning {
            uid: event.about.uid.clone(),
            at,
            message: event.message.chars().take(MAX_MESSAGE).collect(),
            ended: event.ended(),
        };
        let before = self.0.insert(key, warning.clone());
        (before != Some(warning)).then(|| event.object())
    }

    /// An event that ends says nothing new.
    fn remove(&mut self, event: &PartialEvent) -> Option<ObjectMeta> {
        self.0.remove(&event.key()?);
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(name: &str, reason: &str, message: &str, second: u32) -> PartialEvent {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "x"}, "reason": reason, "message": message,
            "involvedObject": {"kind": "DaemonSet", "name": "node-host-port", "uid": "u1"},
            "firstTimestamp": "2026-11-22T10:00:00Z",
            "lastTimestamp": format!("2026-11-22T10:00:{second:02}Z"),
        }))
        .unwrap()
    }

    #[test]
    fn last_warning_about_an_object_is_known_until_its_event_ends() {
        let mut known = Warnings::default();
        let quota = event("a", "FailedCreate", "quota", 2);
        let changed = known.insert(quota.clone()).unwrap();
        assert_eq!(changed.name.as_deref(), Some("node-host-port"));
        assert_eq!(known.insert(quota.clone()), None);
        known.insert(event("b", "FailedCreate", "class", 1));
        known.insert(event("c", "SuccessfulCreate", "made", 9));
        let last = |known: &Warnings, name: &str, uid| {
            let last = known.last("DaemonSet", name, Some(uid));
            last.map(|warning| warning.message.clone())
        };
        let mine = "node-host-port";
        assert_eq!(last(&known, mine, "u1").as_deref(), Some("quota"));
        assert_eq!(last(&known, mine, "u2"), None, "of an earlier object");
        assert_eq!(last(&known, "node", "u1"), None);
        assert!(
            known
                .insert(event("a", "FailedCreate", "quota", 3))
                .is_some()
        );
        known.remove(&quota);
        assert_eq!(last(&known, mine, "u1").as_deref(), Some("class"));
    }

    #[test]
    fn of_failed_probes_only_those_are_known_that_say_why_an_agent_does_not_start() {
        let mut known = Warnings::default();
        let mut probe = |name: &str, message: &str| {
            let mut event = event(name, "Unhealthy", message, 1);
            event.about.kind = Some("Pod".into());
            known.insert(event)
        };
        assert!(probe("a", "Readiness probe failed: statuscode: 503").is_none());
        assert!(probe("b", "Startup probe failed: port").is_some());
        let last = known.last("Pod", "node-host-port", None);
        assert_eq!(last.unwrap().message, "Startup probe failed: port");
    }

    #[test]
    fn last_end_of_an_agent_is_known_of_each_node() {
        let mut known = Warnings::default();
        let mut end = |name: &str, pod: &str, node: &str, reason: &str, second: u32| {
            let mut event = event(name, reason, "low on memory", second);
            event.about.kind = Some("Pod".into());
            event.about.name = Some(pod.into());
            event.node = Some(node.into());
            known.insert(event);
        };
        end("a", "node-host-port-x", "n1", "Evicted", 1);
        end("b", "node-host-port-y", "n1", "OutOfcpu", 2);
        end("c", "node-host-port-z", "n2", "Evicted", 3);
        end("d", "node-host-port-v", "n3", "Killing", 4);
        end("e", "shop-x", "n4", "Evicted", 5);
        let expected = [
            ("n1", "OutOfcpu: low on memory"),
            ("n2", "Evicted: low on memory"),
        ];
        let expected = expected.map(|(node, why)| (node.to_owned(), why.to_owned()));
        assert_eq!(known.ended("node-host-port"), expected.into());
    }

    #[test]
    fn time_is_the_last_that_an_event_has() {
        let at = |fields: serde_json::Value| {
            let mut event = json!({"metadata": {}, "involvedObject": {}});
            event
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            let event: PartialEvent = serde_json::from_value(event).unwrap();
            event.at.map(|at| at.to_string())
        };
        let time = "2026-11-22T10:00:00.5Z";
        let series = json!({
            "eventTime": "2026-11-22T09:00:00.000000Z",
            "series": {"count": 2, "lastObservedTime": "2026-11-22T10:00:00.500000Z"},
        });
        assert_eq!(at(series).as_deref(), Some(time));
        assert_eq!(at(json!({"lastTimestamp": null, "eventTime": null})), None);
    }
}
