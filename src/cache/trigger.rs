//! Which `OtelAgent`s a change concerns, and their queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use otelagent_api::OtelAgent;
use otelagent_core::build::selection;
use otelagent_core::inject::Selection;
use otelagent_core::names;
use otelagent_core::read::Decoded;
use otelagent_core::reconcile::overlap::may_meet;
use tokio::sync::Notify;

use super::pods::PodChange;
use super::store::{Cached, Namespaces};

/// Queues the `OtelAgent`s that must be reconciled.
#[derive(Clone)]
pub(crate) struct Trigger {
    /// The known `OtelAgent`s.
    pub(super) agents: Store<Decoded>,
    sender: UnboundedSender<ObjectRef<Decoded>>,
    gone: Arc<Notify>,
    /// Whether this process leads. A standby queues nothing; a new leader reconciles every object.
    leads: Arc<AtomicBool>,
}

impl Trigger {
    /// A trigger of a process that does not lead yet.
    pub(super) fn new(agents: Store<Decoded>, sender: UnboundedSender<ObjectRef<Decoded>>) -> Self {
        Self {
            agents,
            sender,
            gone: Arc::default(),
            leads: Arc::default(),
        }
    }

    /// Notes that an `OtelAgent` was deleted.
    pub(super) fn one_is_gone(&self) {
        self.gone.notify_one();
    }

    /// Starts queueing, with every object first.
    pub(crate) fn begin(&self) {
        self.leads.store(true, Ordering::SeqCst);
        self.each(|_| true);
    }

    /// Waits until an `OtelAgent` is deleted.
    pub(crate) async fn an_object_is_gone(&self) {
        self.gone.notified().await;
    }

    /// Queues one object. An error means that the receiver is gone, so nothing reconciles any more.
    pub(crate) fn one(&self, agent: ObjectRef<Decoded>) {
        if self.leads.load(Ordering::SeqCst) {
            let _ = self.sender.unbounded_send(agent);
        }
    }

    /// Queues every object that `wants` accepts.
    pub(crate) fn each(&self, wants: impl Fn(&OtelAgent) -> bool) {
        for agent in self.agents.state() {
            if agent.agent.as_ref().is_ok_and(&wants) {
                self.one(ObjectRef::from_obj(agent.as_ref()));
            }
        }
    }
}

/// The label value that names an `OtelAgent`.
pub(crate) fn label_of(agent: &OtelAgent) -> String {
    names::agent_label(&agent.namespace().unwrap_or_default(), &agent.name_any())
}

/// Whether the injection of `agent` may depend on `other`. The older one wins, so it never depends on a
/// younger one.
pub(super) fn may_lose_to(agent: &OtelAgent, other: &Decoded, platform: &BTreeSet<String>) -> bool {
    agent.metadata.creation_timestamp >= other.meta().creation_timestamp
        && may_meet(&agent.metadata, other.meta(), platform)
}

/// Whether an object may belong to an `OtelAgent`: by its label, or by its name if somebody has removed the
/// label.
pub(super) fn is_made_for(object: &ObjectMeta, agent: &OtelAgent) -> bool {
    let labels = object.labels.as_ref();
    let label = labels.and_then(|labels| labels.get(names::LABEL_OWNER));
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let object_name = object.name.as_deref().unwrap_or_default();
    let is_named = match &object.namespace {
        Some(of) => {
            let rest = object_name.strip_prefix(&name);
            *of == namespace && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        }
        None => names::owner_of_cluster_object(object_name) == Some((namespace, name)),
    };
    is_named || label.is_some_and(|label| *label == label_of(agent))
}

/// Queues the `OtelAgent` that a pod belongs to, as its agent or by injection, and those that select it.
pub(super) fn pod_changed(trigger: &Trigger, namespaces: &Cached<Namespaces>, change: &PodChange) {
    for labels in &change.labels {
        let namespace = change.namespace.as_str();
        let labels_of_namespace = namespaces.read().labels(namespace);
        let owner = labels.get(names::LABEL_OWNER);
        let marks: Vec<&String> = owner
            .into_iter()
            .chain(labels.get(names::LABEL_AGENT))
            .collect();
        trigger.each(|agent| {
            let label = label_of(agent);
            let selects = |s: Selection| s.matches(namespace, &labels_of_namespace, labels);
            marks.iter().any(|mark| **mark == label)
                || owner.is_none() && selection(agent).is_some_and(selects)
        });
    }
}
