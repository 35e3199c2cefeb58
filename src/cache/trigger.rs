//! Which `OtelAgent`s a change concerns, and the queue they are put into.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use otelagent_api::OtelAgent;
use otelagent_core::build::selection;
use otelagent_core::names;
use tokio::sync::Notify;

use super::decode::Decoded;
use super::pods::PodChange;
use super::store::{Cached, Namespaces};

/// Sends the `OtelAgent`s that must be looked at.
#[derive(Clone)]
pub(crate) struct Trigger {
    /// The `OtelAgent`s that are known.
    pub(super) agents: Store<Decoded>,
    sender: UnboundedSender<ObjectRef<Decoded>>,
    gone: Arc<Notify>,
    /// Whether anybody listens: a standby would only pile up what the next leader looks at anyway.
    leads: Arc<AtomicBool>,
}

impl Trigger {
    /// Nobody listens yet.
    pub(super) fn new(agents: Store<Decoded>, sender: UnboundedSender<ObjectRef<Decoded>>) -> Self {
        Self {
            agents,
            sender,
            gone: Arc::default(),
            leads: Arc::default(),
        }
    }

    /// An `OtelAgent` was seen to be deleted.
    pub(super) fn one_is_gone(&self) {
        self.gone.notify_one();
    }

    /// From now on somebody listens; asks for every object first.
    pub(crate) fn begin(&self) {
        self.leads.store(true, Ordering::SeqCst);
        self.each(|_| true);
    }

    /// Waits until an `OtelAgent` was seen to be deleted.
    pub(crate) async fn an_object_is_gone(&self) {
        self.gone.notified().await;
    }

    /// Asks for one object. After the receiver is gone nobody needs to look.
    pub(crate) fn one(&self, agent: ObjectRef<Decoded>) {
        if self.leads.load(Ordering::SeqCst) {
            let _ = self.sender.unbounded_send(agent);
        }
    }

    /// Asks for every object that `wants`.
    pub(crate) fn each(&self, wants: impl Fn(&OtelAgent) -> bool) {
        for agent in self.agents.state() {
            if agent.agent.as_ref().is_ok_and(&wants) {
                self.one(ObjectRef::from_obj(agent.as_ref()));
            }
        }
    }
}

/// The label value that stands for an `OtelAgent`.
pub(crate) fn label_of(agent: &OtelAgent) -> String {
    names::agent_label(&agent.namespace().unwrap_or_default(), &agent.name_any())
}

/// Whether what an `OtelAgent` injects may depend on another. The older wins, so it depends on none that is
/// younger.
pub(super) fn may_lose_to(agent: &OtelAgent, other: &Decoded, platform: &BTreeSet<String>) -> bool {
    agent.metadata.creation_timestamp >= other.meta().creation_timestamp
        && may_meet(&agent.metadata, other.meta(), platform)
}

/// Whether an object could be of an `OtelAgent`: by its label or, since that may have been taken away, by
/// its name.
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

pub(super) fn pod_changed(trigger: &Trigger, namespaces: &Cached<Namespaces>, change: &PodChange) {
    for labels in &change.labels {
        let mark = [names::LABEL_AGENT, names::LABEL_OWNER]
            .into_iter()
            .find_map(|key| labels.get(key));
        if let Some(label) = mark {
            trigger.each(|agent| label_of(agent) == *label);
            continue;
        }
        let namespace = change.namespace.as_str();
        let labels_of_namespace = namespaces.read().labels(namespace);
        trigger.each(|agent| {
            selection(agent).is_some_and(|s| s.matches(namespace, &labels_of_namespace, labels))
        });
    }
}

/// Whether two may select the same pods: those of different namespaces only where one is a platform's.
pub(crate) fn may_meet(one: &ObjectMeta, other: &ObjectMeta, platform: &BTreeSet<String>) -> bool {
    let (one, other) = (&one.namespace, &other.namespace);
    let is_platform = |name: &Option<String>| name.as_ref().is_some_and(|n| platform.contains(n));
    one == other || is_platform(one) || is_platform(other)
}
