//! One store per kind, filled by the watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{ObjectRef, Store};
use otelagent_api::Mode;
use otelagent_core::names;
use tokio::sync::watch;

use super::decode::Decoded;
use super::events::Warnings;
use super::namespace_limits::Limits;
use super::pods::Pods;
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
}

/// What one platform namespace has. A namespace that does not exist, or in which the operator has no rights, is
/// refused, and concerns no other.
pub(crate) struct PlatformStores {
    pub(crate) daemon_sets: Store<DaemonSet>,
    pub(crate) services: Store<Service>,
    /// Whether the API server has refused to show it since it was last found readable.
    pub(super) refused: Arc<watch::Sender<bool>>,
}

impl PlatformStores {
    /// Waits until it has been filled once, or was refused.
    async fn until_known(&self) {
        let filled = async {
            let _ = self.daemon_sets.wait_until_ready().await;
            let _ = self.services.wait_until_ready().await;
        };
        let mut refused = self.refused.subscribe();
        tokio::select! {
            () = filled => {}
            // The sender lives as long as this does.
            _ = refused.wait_for(|refused| *refused) => {}
        }
    }

    /// Whether it has been filled once.
    pub(crate) fn is_filled(&self) -> bool {
        let daemon_sets = self.daemon_sets.wait_until_ready().now_or_never();
        let services = self.services.wait_until_ready().now_or_never();
        daemon_sets.and(services).is_some()
    }

    /// Whether the API server has refused to show it.
    pub(crate) fn is_refused(&self) -> bool {
        *self.refused.borrow()
    }

    /// Notes that it is readable.
    pub(crate) fn is_readable_again(&self) {
        self.refused.send_replace(false);
    }
}

/// Whether these labels are of a mode's workload, its pods or its Service, made for one `OtelAgent`.
pub(crate) fn serves(labels: &BTreeMap<String, String>, agent: &str, mode: Mode) -> bool {
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    is(names::LABEL_OWNER, agent) && is(names::LABEL_WORKLOAD, mode.as_str())
}

impl Stores {
    /// Waits until every store has been filled once, except for a kind that cannot be read yet and for platform
    /// namespaces that are refused.
    pub(crate) async fn wait_until_ready(&self, unreadable: Option<&str>) {
        // A dropped writer means that the watch task has ended, which ends the process.
        let _ = self.agents.wait_until_ready().await;
        self.pods.wait_until_filled().await;
        self.nodes.wait_until_filled().await;
        self.namespaces.wait_until_filled().await;
        self.limit_ranges.wait_until_filled().await;
        self.resource_quotas.wait_until_filled().await;
        for namespace in self.platform.values() {
            namespace.until_known().await;
        }
        for (kind, store) in &self.admission {
            if unreadable != Some(*kind) {
                let _ = store.wait_until_ready().await;
            }
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
