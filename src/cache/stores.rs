//! One store per kind, filled by the watches.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use otelagent_api::Mode;
use otelagent_core::inject::kinds::WEBHOOK_CONFIGURATION;
use otelagent_core::names;
use otelagent_core::read::Decoded;
use otelagent_core::switching::serves;

use super::events::Warnings;
use super::namespace_limits::Limits;
use super::pods::Pods;
use super::refusals::Refusals;
use super::store::{Cached, Namespaces, Nodes};

/// The API of one admission kind; the client library has no types for servers this new.
pub(crate) fn admission_resource(kind: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    ApiResource::from_gvk(&kind)
}

/// What the watches have seen.
pub(crate) struct Stores {
    pub(crate) agents: Store<Decoded>,
    pub(crate) pods: Arc<Cached<Pods>>,
    pub(crate) nodes: Arc<Cached<Nodes>>,
    pub(crate) namespaces: Arc<Cached<Namespaces>>,
    pub(crate) limit_ranges: Arc<Cached<Limits<LimitRange>>>,
    pub(crate) resource_quotas: Arc<Cached<Limits<ResourceQuota>>>,
    /// By namespace.
    pub(crate) platform: BTreeMap<String, PlatformStores>,
    /// By platform namespace. Nothing waits for them: they only explain.
    pub(crate) warnings: BTreeMap<String, Arc<Cached<Warnings>>>,
    /// By kind; those that the server serves and the operator may read.
    pub(crate) admission: BTreeMap<&'static str, Store<DynamicObject>>,
    /// What the API server refuses to show.
    pub(crate) refusals: Refusals,
}

/// What one platform namespace has. A namespace that does not exist, or in which the operator has no rights, is
/// refused, and concerns no other.
pub(crate) struct PlatformStores {
    pub(crate) daemon_sets: Store<DaemonSet>,
    pub(crate) services: Store<Service>,
}

impl PlatformStores {
    /// Whether it has been filled once.
    pub(crate) fn is_filled(&self) -> bool {
        is_ready(&self.daemon_sets) && is_ready(&self.services)
    }
}

/// Waits until a store has been filled once.
async fn ready<K>(store: &Store<K>)
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let _ = store.wait_until_ready().await;
}

/// Whether a store has been filled once.
fn is_ready<K>(store: &Store<K>) -> bool
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    store.wait_until_ready().now_or_never().is_some()
}

impl Stores {
    /// Waits until every store has been filled once or is refused, except for a kind that cannot be read yet. What is
    /// refused concerns those that need it, who say so.
    pub(crate) async fn wait_until_ready(&self, unreadable: Option<&str>) {
        // A dropped writer means that the watch task has ended, which ends the process.
        let _ = self.agents.wait_until_ready().await;
        self.known("pods", None, self.pods.wait_until_filled())
            .await;
        let nodes = self.nodes.wait_until_filled();
        self.known("nodes", None, nodes).await;
        let namespaces = self.namespaces.wait_until_filled();
        self.known("namespaces", None, namespaces).await;
        let ranges = self.limit_ranges.wait_until_filled();
        self.known("limitranges", None, ranges).await;
        let quotas = self.resource_quotas.wait_until_filled();
        self.known("resourcequotas", None, quotas).await;
        for (namespace, stores) in &self.platform {
            let daemon_sets = ready(&stores.daemon_sets);
            self.known("daemonsets", Some(namespace), daemon_sets).await;
            let services = ready(&stores.services);
            self.known("services", Some(namespace), services).await;
        }
        for (kind, store) in &self.admission {
            if unreadable != Some(*kind) {
                let plural = admission_resource(kind).plural;
                self.known(&plural, None, ready(store)).await;
            }
        }
    }

    /// Waits until a store is filled, or its watch is refused.
    async fn known(&self, plural: &str, namespace: Option<&str>, filled: impl Future<Output = ()>) {
        tokio::select! {
            () = filled => {}
            () = self.refusals.until_refused(plural, namespace) => {}
        }
    }

    /// A store without which nothing can be decided for an `OtelAgent` of this namespace, and which has not been
    /// filled yet. Webhook configurations may be unreadable for good.
    pub(crate) fn unfilled(&self, namespace: &str) -> Option<&'static str> {
        let platform = self.platform.get(namespace);
        let kinds = self.admission.iter();
        let mut admission = kinds.filter(|(kind, _)| **kind != WEBHOOK_CONFIGURATION);
        if !self.pods.is_filled() {
            Some("pods")
        } else if !self.nodes.is_filled() {
            Some("nodes")
        } else if !self.namespaces.is_filled() {
            Some("namespaces")
        } else if platform.is_some_and(|stores| !stores.is_filled()) {
            Some("DaemonSet")
        } else {
            let found = admission.find(|(_, store)| !is_ready(store));
            found.map(|(kind, _)| *kind)
        }
    }

    /// The agent workload of an `OtelAgent` in a mode: by its name, and by its labels or its owner
    /// reference. If the reference is gone, only the server knows to whom it belongs.
    pub(crate) fn daemon_set(
        &self,
        namespace: &str,
        agent: &str,
        mode: Mode,
    ) -> Option<Arc<DaemonSet>> {
        let name = names::agent_workload(agent, mode.kebab());
        let reference = ObjectRef::new(&name).within(namespace);
        let label = names::agent_label(namespace, agent);
        let found = self.platform.get(namespace)?.daemon_sets.get(&reference);
        found.filter(|found| {
            let refers = |owner: &OwnerReference| owner.kind == "OtelAgent" && owner.name == agent;
            serves(found.labels(), &label, mode) || found.owner_references().iter().any(refers)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use otelagent_core::inject::kinds::ADMISSION_KINDS;

    #[test]
    fn admission_objects_are_where_the_api_server_has_them() {
        let plurals = ADMISSION_KINDS.map(|kind| admission_resource(kind).plural);
        let expected = [
            "validatingadmissionpolicybindings",
            "mutatingwebhookconfigurations",
            "mutatingadmissionpolicybindings",
            "validatingadmissionpolicies",
            "mutatingadmissionpolicies",
        ];
        assert_eq!(plurals, expected);
    }
}
