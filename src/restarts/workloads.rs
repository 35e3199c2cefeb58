//! Reads and patches the workloads that are restarted for one `OtelAgent`.
//!
//! The operator does not watch workloads. It reads a few at a time, and only while there is something to
//! restart.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{
    ApiResource, DynamicObject, GroupVersionKind, ListParams, PartialObjectMeta, Patch, PatchParams,
};
use kube::{Api, Client};
use otelagent_core::build::ValidAgent;
use otelagent_core::names;
use otelagent_core::pods::{Controller, WorkloadRef};
use otelagent_core::restart::{Budget, KINDS, Workload, is_marked};
use serde_json::{Value, json};

use crate::cache::Stores;
use crate::controller::{ControllerError, Result};
use crate::runtime::Metrics;
use crate::runtime::client::next_page;

/// Objects of a page of a list: a tenant's may have a quarter of a megabyte of annotations each.
const PAGE: u32 = 50;
/// Most workloads that count as being restarted; `maxConcurrentRestarts` is not larger.
const MAX_MARKED: usize = 1000;

/// A workload with the object from which it was read.
pub(crate) struct ReadWorkload {
    pub(crate) workload: Workload,
    pub(crate) object: Value,
}

/// Access to the workloads of one `OtelAgent`.
pub(crate) struct Workloads<'a> {
    client: &'a Client,
    stores: &'a Stores,
    metrics: &'a Metrics,
    valid: &'a ValidAgent,
    /// By namespace, for those that were read.
    budgets: BTreeMap<String, Vec<Budget>>,
}

impl<'a> Workloads<'a> {
    /// Nothing is read yet.
    pub(crate) fn of(
        client: &'a Client,
        stores: &'a Stores,
        metrics: &'a Metrics,
        valid: &'a ValidAgent,
    ) -> Self {
        Self {
            client,
            stores,
            metrics,
            valid,
            budgets: BTreeMap::new(),
        }
    }

    /// Finds them among all workloads with the label, of which others may have made any number: only those in
    /// selected namespaces count, and only where the operator set the label.
    pub(crate) async fn list_marked(&self) -> Result<BTreeSet<WorkloadRef>> {
        let label = self.valid.label();
        let query = ListParams::default().labels(&format!("{}={label}", names::LABEL_RESTARTING));
        let mut query = query.limit(PAGE);
        let mut found = BTreeSet::new();
        for kind in KINDS {
            let client = self.client.clone();
            let api: Api<DynamicObject> = Api::all_with(client, &resource(kind));
            loop {
                let page = api.list_metadata(&query).await;
                let page = page.map_err(ControllerError::api(format!("list restarted {kind}s")))?;
                let ours = page.items.iter().filter(|object| {
                    self.is_selected(object.metadata.namespace.as_deref().unwrap_or_default())
                        && is_marked(&json!(object), &label)
                });
                let owners = ours.map(|object| Workload::owner(kind, &json!(object)));
                found.extend(owners.take(MAX_MARKED.saturating_sub(found.len())));
                if !next_page(&mut query, &page.metadata) {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Whether pods of a namespace are selected.
    fn is_selected(&self, namespace: &str) -> bool {
        let labels = self.stores.namespaces.read().labels(namespace);
        let selection = self.valid.selection.as_ref();
        selection.is_some_and(|selection| selection.in_namespace(namespace, &labels))
    }

    /// Reads workloads from the server; also returns those that do not exist.
    pub(crate) async fn read(
        &mut self,
        owners: &[&WorkloadRef],
    ) -> Result<(Vec<ReadWorkload>, BTreeSet<WorkloadRef>)> {
        let (mut seen, mut gone) = (Vec::new(), BTreeSet::new());
        for owner in owners {
            let found = self.beside(owner).get_opt(&owner.name).await;
            let found = found.map_err(ControllerError::api(format!("read {owner}")))?;
            match found {
                Some(object) => seen.push(self.read_one(&owner.kind, &object).await?),
                None => drop(gone.insert((*owner).clone())),
            }
        }
        Ok((seen, gone))
    }

    async fn read_one(&mut self, kind: &str, object: &DynamicObject) -> Result<ReadWorkload> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        if !self.budgets.contains_key(&namespace) {
            let all = self.list_budgets(&namespace).await?;
            self.budgets.insert(namespace.clone(), all);
        }
        let budgets = self.budgets.get(&namespace).map_or(&[][..], Vec::as_slice);
        let object = json!(object);
        let owner = Workload::owner(kind, &object);
        let down = self.pods_on_nodes_that_are_down(&owner);
        Ok(ReadWorkload {
            workload: Workload::read(owner, &object, budgets, down),
            object,
        })
    }

    async fn list_budgets(&self, namespace: &str) -> Result<Vec<Budget>> {
        let client = self.client.clone();
        let budgets = ApiResource::erase::<PodDisruptionBudget>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &budgets);
        let mut query = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&query).await;
            let action = format!("list the PodDisruptionBudgets of {namespace}");
            let page = page.map_err(ControllerError::api(action))?;
            let values = page.items.iter().map(|item| json!(item));
            found.extend(values.filter_map(|value| Budget::read(&value)));
            if !next_page(&mut query, &page.metadata) {
                return Ok(found);
            }
        }
    }

    /// How many pods of a workload are on nodes that are not Ready.
    fn pods_on_nodes_that_are_down(&self, owner: &WorkloadRef) -> usize {
        let stores = self.stores;
        let nodes = stores.nodes.read().states();
        let pods = stores.pods.read();
        let is_owned = |controller: &Controller| {
            controller.kind == owner.kind && controller.name == owner.name
        };
        let of_workload = pods
            .namespace(&owner.namespace)
            .filter(|(_, pod)| pod.controller.as_deref().is_some_and(is_owned));
        let is_down = |node: &str| nodes.get(node).is_some_and(|node| !node.ready);
        of_workload
            .filter(|(_, pod)| pod.runs_on().is_some_and(is_down))
            .count()
    }

    /// What the server has of a workload besides its spec and status; `None` without such a workload.
    pub(crate) async fn metadata(
        &self,
        owner: &WorkloadRef,
    ) -> Result<Option<PartialObjectMeta<DynamicObject>>> {
        let found = self.beside(owner).get_metadata_opt(&owner.name).await;
        found.map_err(ControllerError::api(format!("read {owner}")))
    }

    /// Patches a workload. Returns why the server refused it, if the refusal concerns this workload alone.
    /// Any other failure is an error, because it concerns all workloads.
    pub(crate) async fn write(
        &self,
        owner: &WorkloadRef,
        change: &Value,
        what: &'static str,
    ) -> Result<Option<String>> {
        let parameters = PatchParams {
            field_manager: Some(names::RESTART_MANAGER.into()),
            ..PatchParams::default()
        };
        let change = Patch::Merge(change);
        let api = self.beside(owner);
        match api.patch(&owner.name, &parameters, &change).await {
            Ok(_) => {
                self.metrics.wrote("Workload", what);
                tracing::info!(%owner, what, "workload");
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Ok(Some("it has just changed".into()))
            }
            Err(kube::Error::Api(status)) if concerns_one(status.code) => {
                let why = format!("the server refuses to {what} it: {}", status.message);
                tracing::warn!(%owner, what, message = status.message, "workload refused");
                Ok(Some(why))
            }
            Err(error) => Err(ControllerError::api(format!("{what} {owner}"))(error)),
        }
    }

    /// The API for workloads of the same kind and namespace.
    fn beside(&self, owner: &WorkloadRef) -> Api<DynamicObject> {
        let client = self.client.clone();
        Api::namespaced_with(client, &owner.namespace, &resource(&owner.kind))
    }
}

/// Whether a refusal concerns only this request: a webhook, a policy or a quota answers 400, 403 or 422,
/// while 401 and 429 are not about the object.
fn concerns_one(code: u16) -> bool {
    matches!(code, 400 | 403 | 413 | 422)
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind))
}
