//! What an independent watcher saw, and what must hold of it at every moment.
//!
//! All versions of one cluster are revisions of one etcd, so events of different kinds can be put in the
//! order in which they happened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use otelagent_core::names;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::read::{is_going, is_live, is_ready, label, text};

/// Group, version, kind and plural of what is watched.
const KINDS: [(&str, &str, &str, &str); 8] = [
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

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// When, on the cluster's one clock.
    pub(crate) revision: u64,
    /// Of which kind.
    pub(crate) kind: &'static str,
    /// Whether the object is gone with it.
    pub(crate) gone: bool,
    /// The object, as much of it as is asked about.
    pub(crate) object: Value,
}

/// Watches the whole cluster and notes what changes, by the namespace it is for.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<HashMap<String, Vec<Seen>>>>);

impl Recorder {
    /// Begins to watch, on the present runtime; goes on until that ends.
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
                            .for_each(|object| self.note(kind, object, false));
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
                        self.note(kind, &object, false);
                        version = object.resource_version();
                    }
                    WatchEvent::Deleted(object) => {
                        self.note(kind, &object, true);
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

    fn note(&self, kind: &'static str, object: &DynamicObject, gone: bool) {
        let scope = object.namespace().or_else(|| {
            names::owner_of_cluster_object(&object.name_any()).map(|(namespace, _)| namespace)
        });
        let revision = object.resource_version().and_then(|text| text.parse().ok());
        let (Some(scope), Some(revision)) = (scope, revision) else {
            return;
        };
        let seen = Seen {
            revision,
            kind,
            gone,
            object: slim(&serde_json::to_value(object).unwrap_or_default()),
        };
        self.lock().entry(scope).or_default().push(seen);
    }

    /// What was seen of a namespace and of the cluster-scoped objects made for it, in order. Watches
    /// lag by a moment.
    pub(crate) fn events(&self, namespace: &str) -> Vec<Seen> {
        let mut events = self.lock().get(namespace).cloned().unwrap_or_default();
        events.sort_by_key(|seen| seen.revision);
        // A watch that began anew lists what was seen before.
        events.dedup_by_key(|seen| (seen.revision, seen.kind, uid(&seen.object), seen.gone));
        events
    }

    /// Forgets a namespace.
    pub(crate) fn forget(&self, namespace: &str) {
        self.lock().remove(namespace);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<Seen>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(object: &Value) -> String {
    text(object, "/metadata/uid").to_owned()
}

/// What is asked about below, and no more: thousands are kept.
fn slim(object: &Value) -> Value {
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

/// How often an object was made and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Times it came to be.
    pub(crate) made: usize,
    /// Times it went.
    pub(crate) removed: usize,
}

/// Counts by kind and name of what the operator made for one `OtelAgent`; policies, whose names are
/// hashes, in the order in which they came.
pub(crate) fn summary(events: &[Seen], name: &str) -> BTreeMap<String, Count> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut known: HashSet<String> = HashSet::new();
    let mut policies: Vec<String> = Vec::new();
    for seen in events {
        if matches!(seen.kind, "Pod" | "OtelAgent")
            || label(&seen.object, names::LABEL_MANAGED_BY).is_none()
        {
            continue;
        }
        let own = text(&seen.object, "/metadata/name");
        let key = if seen.kind == POLICY {
            let at = policies.iter().position(|policy| policy == own);
            let at = at.unwrap_or_else(|| {
                policies.push(own.to_owned());
                policies.len() - 1
            });
            format!("{POLICY} {at}")
        } else {
            let namespace = text(&seen.object, "/metadata/namespace");
            let tail = own.rsplit(&format!("{name}.")).next().unwrap_or(own);
            let is_canary = namespace.is_empty() && tail == "canary";
            let own = if is_canary {
                "canary"
            } else if namespace.is_empty() {
                ""
            } else {
                own
            };
            format!("{} {}", seen.kind, own.replace(name, "NAME"))
        };
        let id = uid(&seen.object);
        let count = counts.entry(key).or_default();
        if known.insert(id) {
            count.made += 1;
        }
        count.removed += usize::from(seen.gone);
    }
    counts
}

/// The cluster at one moment, as the events tell it.
#[derive(Default)]
struct Moment {
    objects: HashMap<String, (&'static str, Value)>,
    served: bool,
}

/// What was wrong at any moment with one `OtelAgent`; empty where nothing was.
///
/// `strict` asks in addition for a ready agent on the node of every live pod of a node mode, which holds
/// while no agent is updated, moved to other nodes or taken away by somebody else.
pub(crate) fn violations(
    events: &[Seen],
    namespace: &str,
    name: &str,
    strict: bool,
) -> Vec<String> {
    let owner = names::agent_label(namespace, name);
    let mut moment = Moment::default();
    let mut wrong = Vec::new();
    for seen in events {
        let before = moment.objects.get(&uid(&seen.object)).cloned();
        if seen.gone {
            moment.objects.remove(&uid(&seen.object));
        } else {
            moment
                .objects
                .insert(uid(&seen.object), (seen.kind, seen.object.clone()));
        }
        let Some(agent) = moment.agent(name) else {
            moment.served = false;
            continue;
        };
        let selects = agent["spec"]["workloads"].is_object();
        let goes_now = seen.gone || is_going(&seen.object);
        let went_before = before.is_some_and(|(_, object)| is_going(&object));
        let mut told = Vec::new();
        if matches!(seen.kind, "DaemonSet" | "Service") && goes_now && !went_before {
            told.extend(moment.removed_in_use(seen, &owner));
        }
        if selects {
            told.extend(moment.serves_nothing(namespace, name, &owner));
        } else {
            moment.served = false;
        }
        if strict && seen.kind == "Pod" {
            told.extend(moment.pods_without_agent(&owner));
        }
        wrong.extend(
            told.into_iter()
                .map(|what| format!("revision {}: {what}", seen.revision)),
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

    /// The `OtelAgent` while it lives.
    fn agent(&self, name: &str) -> Option<Value> {
        self.all("OtelAgent")
            .find(|agent| text(agent, "/metadata/name") == name && !is_going(agent))
            .cloned()
    }

    fn users(&self, owner: &str, mode: &str) -> Vec<&Value> {
        self.all("Pod")
            .filter(|pod| {
                is_live(pod)
                    && label(pod, names::LABEL_AGENT) == Some(owner)
                    && label(pod, names::LABEL_MODE) == Some(mode)
            })
            .collect()
    }

    fn removed_in_use(&self, seen: &Seen, owner: &str) -> Option<String> {
        let mode = label(&seen.object, names::LABEL_WORKLOAD)?;
        if label(&seen.object, names::LABEL_OWNER) != Some(owner) {
            return None;
        }
        let users = self.users(owner, mode).len();
        (users > 0).then(|| {
            format!(
                "{} {} was removed while {users} pods used {mode}",
                seen.kind,
                text(&seen.object, "/metadata/name")
            )
        })
    }

    /// Once a binding was there: it, its policy and a ready agent behind it.
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
            return Some(format!("policy {policy} is bound and gone"));
        }
        let mode = label_of_serving(&binding);
        if mode == "Sidecar" {
            return None;
        }
        let stands = self.all("DaemonSet").any(|object| {
            label(object, names::LABEL_OWNER) == Some(owner)
                && label(object, names::LABEL_WORKLOAD) == Some(mode)
                && !is_going(object)
        });
        (!stands || self.nodes(owner, mode).is_empty())
            .then(|| format!("pods are given {mode}, and no agent of it is ready"))
    }

    /// Nodes with a ready agent of a mode.
    fn nodes(&self, owner: &str, mode: &str) -> Vec<&str> {
        self.all("Pod")
            .filter(|pod| {
                label(pod, names::LABEL_OWNER) == Some(owner)
                    && label(pod, names::LABEL_WORKLOAD) == Some(mode)
                    && is_ready(pod)
                    && !is_going(pod)
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
