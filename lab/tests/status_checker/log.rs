//! What an independent watcher saw, and what must hold of it at every moment.
//!
//! Every version of an object is a revision of one etcd, which orders events of different kinds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use otelagent_core::names;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::read::{is_finished, is_ready, is_terminating, label, text};

/// Group, version, kind and plural of the watched kinds.
const KINDS: [(&str, &str, &str, &str); 9] = [
    ("", "v1", "ConfigMap", "configmaps"),
    ("otelagent.dev", "v1alpha1", "OtelAgent", "otelagents"),
    ("", "v1", "Pod", "pods"),
    ("", "v1", "Service", "services"),
    ("apps", "v1", "DaemonSet", "daemonsets"),
    (ADMISSION, "v1", POLICY, "mutatingadmissionpolicies"),
    (ADMISSION, "v1", BINDING, "mutatingadmissionpolicybindings"),
    (
        ADMISSION,
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
    ),
    (
        ADMISSION,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
    ),
];
const ADMISSION: &str = "admissionregistration.k8s.io";
const POLICY: &str = "MutatingAdmissionPolicy";
const BINDING: &str = "MutatingAdmissionPolicyBinding";

/// One change of an object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The revision of etcd.
    pub(crate) revision: u64,
    /// The object's kind.
    pub(crate) kind: &'static str,
    /// Whether the object no longer exists.
    pub(crate) gone: bool,
    /// The parts of the object that the checks need.
    pub(crate) object: Value,
}

/// Watches the whole cluster and records changes by the namespace they concern.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<HashMap<String, Vec<Change>>>>);

impl Recorder {
    /// Starts to watch, until the present runtime ends.
    pub(crate) fn start(client: &Client) -> Self {
        let recorder = Self::default();
        for (group, version, kind, plural) in KINDS {
            let resource = ApiResource {
                group: group.into(),
                version: version.into(),
                api_version: if group.is_empty() {
                    version.into()
                } else {
                    format!("{group}/{version}")
                },
                kind: kind.into(),
                plural: plural.into(),
            };
            let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
            tokio::spawn(recorder.clone().watch(api, kind));
        }
        recorder
    }

    async fn watch(self, api: Api<DynamicObject>, kind: &'static str) {
        let mut version: Option<String> = None;
        loop {
            if version.is_none() {
                match api.list(&ListParams::default()).await {
                    Ok(listed) => {
                        version.clone_from(&listed.metadata.resource_version);
                        listed
                            .items
                            .iter()
                            .for_each(|object| self.record(kind, object, false));
                    }
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
                continue;
            }
            let from = version.clone().unwrap_or_default();
            let Ok(stream) = api.watch(&WatchParams::default(), &from).await else {
                version = None;
                continue;
            };
            let mut stream = std::pin::pin!(stream);
            while let Some(Ok(event)) = stream.next().await {
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        self.record(kind, &object, false);
                        version = object.resource_version();
                    }
                    WatchEvent::Deleted(object) => {
                        self.record(kind, &object, true);
                        version = object.resource_version();
                    }
                    WatchEvent::Bookmark(mark) => {
                        version = Some(mark.metadata.resource_version);
                    }
                    WatchEvent::Error(_) => {
                        version = None;
                        break;
                    }
                }
            }
        }
    }

    fn record(&self, kind: &'static str, object: &DynamicObject, gone: bool) {
        let scope = object.namespace().or_else(|| {
            names::owner_of_cluster_object(&object.name_any()).map(|(namespace, _)| namespace)
        });
        let revision = object.resource_version().and_then(|text| text.parse().ok());
        let (Some(scope), Some(revision)) = (scope, revision) else {
            return;
        };
        let change = Change {
            revision,
            kind,
            gone,
            object: relevant(&serde_json::to_value(object).unwrap_or_default()),
        };
        self.lock().entry(scope).or_default().push(change);
    }

    /// Changes of a namespace and of the cluster-scoped objects made for it, in order. Watches lag behind.
    pub(crate) fn events(&self, namespace: &str) -> Vec<Change> {
        let mut events = self.lock().get(namespace).cloned().unwrap_or_default();
        events.sort_by_key(|change| change.revision);
        // A watch that starts again lists what was recorded before.
        events.dedup_by_key(|change| {
            (
                change.revision,
                change.kind,
                uid(&change.object),
                change.gone,
            )
        });
        events
    }

    /// Forgets a namespace.
    pub(crate) fn forget(&self, namespace: &str) {
        self.lock().remove(namespace);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Change>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(object: &Value) -> String {
    text(object, "/metadata/uid").to_owned()
}

/// The parts that the checks below need, and no more: thousands are kept.
fn relevant(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let annotation = |key: &str| metadata["annotations"][key].clone();
    json!({
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "labels": metadata["labels"], "deletionTimestamp": metadata["deletionTimestamp"],
            "annotations": {
                names::ANNOTATION_SERVING: annotation(names::ANNOTATION_SERVING),
                names::ANNOTATION_UNUSED_SINCE: annotation(names::ANNOTATION_UNUSED_SINCE),
            },
        },
        "spec": {
            "nodeName": object["spec"]["nodeName"], "policyName": object["spec"]["policyName"],
            "workloads": object["spec"]["workloads"],
        },
        "status": {"phase": object["status"]["phase"], "conditions": object["status"]["conditions"]},
    })
}

/// How often an object was created and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// How often it was created.
    pub(crate) made: usize,
    /// How often it was deleted.
    pub(crate) removed: usize,
}

/// Counts, by kind and name, of the objects the operator made for one `OtelAgent`. Policies, whose names are
/// hashes, are numbered in the order of their creation.
pub(crate) fn summary(events: &[Change], name: &str) -> BTreeMap<String, Count> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut known: HashSet<String> = HashSet::new();
    let mut policies: Vec<String> = Vec::new();
    for change in events {
        if matches!(change.kind, "Pod" | "OtelAgent")
            || label(&change.object, names::LABEL_MANAGED_BY).is_none()
        {
            continue;
        }
        let own = text(&change.object, "/metadata/name");
        let key = if change.kind == POLICY {
            let at = policies.iter().position(|policy| policy == own);
            let at = at.unwrap_or_else(|| {
                policies.push(own.to_owned());
                policies.len() - 1
            });
            format!("{POLICY} {at}")
        } else {
            let namespace = text(&change.object, "/metadata/namespace");
            let tail = own.rsplit(&format!("{name}.")).next().unwrap_or(own);
            let is_canary = namespace.is_empty() && tail == "canary";
            let own = if is_canary {
                "canary"
            } else if namespace.is_empty() {
                ""
            } else {
                own
            };
            format!("{} {}", change.kind, own.replace(name, "NAME"))
        };
        let id = uid(&change.object);
        let count = counts.entry(key).or_default();
        if known.insert(id) {
            count.made += 1;
        }
        count.removed += usize::from(change.gone);
    }
    counts
}

/// The cluster at one moment, as the recorded changes tell it.
#[derive(Default)]
struct Moment {
    objects: HashMap<String, (&'static str, Value)>,
    served: bool,
}

/// What was wrong with one `OtelAgent` at any moment; empty if nothing was.
///
/// `strict` also requires a ready agent on the node of every live pod of a node mode. That holds while no agent is
/// updated, moved or deleted by another user.
pub(crate) fn violations(
    events: &[Change],
    namespace: &str,
    name: &str,
    strict: bool,
) -> Vec<String> {
    let owner = names::agent_label(namespace, name);
    let mut moment = Moment::default();
    let mut wrong = Vec::new();
    for change in events {
        let before = moment.objects.get(&uid(&change.object)).cloned();
        if change.gone {
            moment.objects.remove(&uid(&change.object));
        } else {
            moment
                .objects
                .insert(uid(&change.object), (change.kind, change.object.clone()));
        }
        let Some(agent) = moment.agent(name) else {
            moment.served = false;
            continue;
        };
        let selects = agent["spec"]["workloads"].is_object();
        let goes_now = change.gone || is_terminating(&change.object);
        let went_before = before.is_some_and(|(_, object)| is_terminating(&object));
        let mut found = Vec::new();
        if matches!(change.kind, "DaemonSet" | "Service") && goes_now && !went_before {
            found.extend(moment.removed_in_use(change, &owner));
        }
        if selects {
            found.extend(moment.serves_nothing(namespace, name, &owner));
        } else {
            moment.served = false;
        }
        if strict && change.kind == "Pod" {
            found.extend(moment.pods_without_agent(&owner));
        }
        wrong.extend(
            found
                .into_iter()
                .map(|what| format!("revision {}: {what}", change.revision)),
        );
    }
    wrong
}

impl Moment {
    fn all(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        self.objects
            .values()
            .filter(move |(of, _)| *of == kind)
            .map(|(_, object)| object)
    }

    /// The `OtelAgent`, unless it is being deleted.
    fn agent(&self, name: &str) -> Option<Value> {
        self.all("OtelAgent")
            .find(|agent| text(agent, "/metadata/name") == name && !is_terminating(agent))
            .cloned()
    }

    fn users(&self, owner: &str, mode: &str) -> Vec<&Value> {
        self.all("Pod")
            .filter(|pod| {
                !is_finished(pod)
                    && label(pod, names::LABEL_AGENT) == Some(owner)
                    && label(pod, names::LABEL_MODE) == Some(mode)
            })
            .collect()
    }

    fn removed_in_use(&self, change: &Change, owner: &str) -> Option<String> {
        let mode = label(&change.object, names::LABEL_WORKLOAD)?;
        if label(&change.object, names::LABEL_OWNER) != Some(owner) {
            return None;
        }
        let users = self.users(owner, mode).len();
        (users > 0).then(|| {
            format!(
                "{} {} was deleted while {users} pods used {mode}",
                change.kind,
                text(&change.object, "/metadata/name")
            )
        })
    }

    /// After a binding existed once: it, its policy and a ready agent behind it exist.
    fn serves_nothing(&mut self, namespace: &str, name: &str, owner: &str) -> Option<String> {
        let own = names::cluster_object(namespace, name, None);
        let binding = self
            .all(BINDING)
            .find(|binding| text(binding, "/metadata/name") == own)
            .cloned();
        let Some(binding) = binding else {
            return self.served.then(|| "the binding is gone".into());
        };
        self.served = true;
        let policy = text(&binding, "/spec/policyName");
        if !self
            .all(POLICY)
            .any(|object| text(object, "/metadata/name") == policy)
        {
            return Some(format!("policy {policy} is bound and does not exist"));
        }
        let mode = label_of_serving(&binding);
        if mode == "Sidecar" {
            return None;
        }
        let stands = self.all("DaemonSet").any(|object| {
            label(object, names::LABEL_OWNER) == Some(owner)
                && label(object, names::LABEL_WORKLOAD) == Some(mode)
                && !is_terminating(object)
        });
        (!stands || self.nodes(owner, mode).is_empty())
            .then(|| format!("new pods use {mode}, and no agent of it is ready"))
    }

    /// Nodes with a ready agent of a mode.
    fn nodes(&self, owner: &str, mode: &str) -> Vec<&str> {
        self.all("Pod")
            .filter(|pod| {
                label(pod, names::LABEL_OWNER) == Some(owner)
                    && label(pod, names::LABEL_WORKLOAD) == Some(mode)
                    && is_ready(pod)
                    && !is_terminating(pod)
            })
            .map(|pod| text(pod, "/spec/nodeName"))
            .collect()
    }

    fn pods_without_agent(&self, owner: &str) -> Option<String> {
        ["HostPort", "HostNetwork", "NodeLocal"]
            .into_iter()
            .find_map(|mode| {
                let nodes = self.nodes(owner, mode);
                let alone = self
                    .users(owner, mode)
                    .into_iter()
                    .find(|pod| is_ready(pod) && !nodes.contains(&text(pod, "/spec/nodeName")))?;
                Some(format!(
                    "pod {} uses {mode} on {}, where no agent of it is ready",
                    text(alone, "/metadata/name"),
                    text(alone, "/spec/nodeName")
                ))
            })
    }
}

fn label_of_serving(binding: &Value) -> &str {
    binding["metadata"]["annotations"][names::ANNOTATION_SERVING]
        .as_str()
        .unwrap_or_default()
}
