//! One store per kind, as the watches have filled it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::reflector::{ObjectRef, Store};
use otelagent_api::Mode;
use otelagent_core::names;

use super::decode::Decoded;
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
    pub(crate) daemon_sets: Vec<Store<DaemonSet>>,
    pub(crate) services: Vec<Store<Service>>,
    /// By kind; those that the server serves and the operator may read.
    pub(crate) admission: BTreeMap<&'static str, Store<DynamicObject>>,
}

/// Whether these labels are of a mode's workload, its pods or its Service, made for one `OtelAgent`.
pub(crate) fn serves(labels: &BTreeMap<String, String>, agent: &str, mode: Mode) -> bool {
    let is = |key: &str, value: &str| labels.get(key).is_some_and(|found| found == value);
    is(names::LABEL_OWNER, agent) && is(names::LABEL_WORKLOAD, mode.as_str())
}

impl Stores {
    /// Waits until every store has been filled once, but for that of a kind that cannot be read yet.
    pub(crate) async fn wait_until_ready(&self, unreadable: Option<&str>) {
        // A dropped writer means the watch task ended, which ends the process by itself.
        let _ = self.agents.wait_until_ready().await;
        self.pods.wait_until_filled().await;
        self.nodes.wait_until_filled().await;
        self.namespaces.wait_until_filled().await;
        self.limit_ranges.wait_until_filled().await;
        self.resource_quotas.wait_until_filled().await;
        for store in &self.daemon_sets {
            let _ = store.wait_until_ready().await;
        }
        for store in &self.services {
            let _ = store.wait_until_ready().await;
        }
        for (kind, store) in &self.admission {
            if unreadable != Some(*kind) {
                let _ = store.wait_until_ready().await;
            }
        }
    }

    /// The vehicle of a mode of an `OtelAgent`: of that name, and by its labels or its owner reference
    /// made for one of that name. Whose it is, only the server knows where the reference is gone.
    pub(crate) fn daemon_set(
        &self,
        namespace: &str,
        agent: &str,
        mode: Mode,
    ) -> Option<Arc<DaemonSet>> {
        let name = names::agent_workload(agent, mode.kebab());
        let reference = ObjectRef::new(&name).within(namespace);
        let label = names::agent_label(namespace, agent);
        let found = self
            .daemon_sets
            .iter()
            .find_map(|store| store.get(&reference));
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
