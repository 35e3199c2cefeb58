//! Reads a workload from its object, and renders the patch that restarts it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::names;
use crate::pods::WorkloadRef;
use otelagent_api::Selector;

/// Kinds of `apps/v1` that can be restarted.
pub const KINDS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// What `kubectl rollout restart` writes into the template.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// Labels that controllers add to pods and that templates lack.
const ADDED: [&str; 4] = [
    "pod-template-hash",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
];

/// Whether an owner is of a kind that the operator can restart.
pub fn is_restartable(owner: &WorkloadRef) -> bool {
    owner.api_version == "apps/v1" && KINDS.contains(&owner.kind.as_str())
}

/// Whether a workload's rollout is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// All its pods are of its present template and available.
    Settled,
    /// It is rolling out, or pods are unavailable: why.
    Unsettled(String),
}

/// What is known of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which one.
    pub owner: WorkloadRef,
    /// Whether it runs what it should.
    pub state: State,
    /// Why it must not be restarted, if so.
    pub not_restartable: Option<String>,
    /// The purpose of its last restart.
    pub restarted_for: Option<String>,
    /// Disruption budgets that select its pods.
    pub guards: Vec<Guard>,
}

/// A disruption budget that selects the pods of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its name.
    pub budget: String,
    /// Whether it allows a disruption now.
    pub allows: bool,
}

/// A `PodDisruptionBudget`: which pods it selects, and whether it allows a disruption.
#[derive(Clone, Debug)]
pub struct Budget {
    name: String,
    selector: Selector,
    allows: bool,
}

impl Budget {
    /// Reads one. A selector that cannot be read selects nothing.
    pub fn read(object: &Value) -> Option<Self> {
        let is_current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let allowed = object["status"]["disruptionsAllowed"].as_i64();
        Some(Self {
            name: object["metadata"]["name"].as_str()?.into(),
            selector: serde_json::from_value(object["spec"]["selector"].clone()).ok()?,
            allows: is_current && allowed.is_some_and(|allowed| allowed > 0),
        })
    }

    fn guard(&self) -> Guard {
        Guard {
            budget: self.name.clone(),
            allows: self.allows,
        }
    }

    /// Whether it selects pods of a template with these labels. Requirements on labels that controllers add
    /// count as met, since a template lacks them.
    fn guards(&self, labels: &BTreeMap<String, String>) -> bool {
        let known = |key: &str| !ADDED.contains(&key);
        let selector = Selector {
            match_labels: self
                .selector
                .match_labels
                .iter()
                .filter(|(key, _)| known(key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            match_expressions: self
                .selector
                .match_expressions
                .iter()
                .filter(|requirement| known(&requirement.key))
                .cloned()
                .collect(),
        };
        selector.matches(labels)
    }
}

impl Workload {
    /// Reads a Deployment, `StatefulSet` or `DaemonSet`, `budgets` being those of its namespace.
    pub fn read(kind: &str, object: &Value, budgets: &[Budget]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let template = &object["spec"]["template"]["metadata"]["labels"];
        let labels: BTreeMap<String, String> =
            serde_json::from_value(template.clone()).unwrap_or_default();
        let guards = budgets.iter().filter(|budget| budget.guards(&labels));
        Self {
            owner: WorkloadRef {
                api_version: "apps/v1".into(),
                kind: kind.into(),
                namespace: text(&metadata["namespace"]),
                name: text(&metadata["name"]),
            },
            state: state(kind, object),
            not_restartable: not_restartable(object),
            restarted_for: metadata["annotations"][names::ANNOTATION_RESTARTED_FOR]
                .as_str()
                .map(Into::into),
            guards: guards.map(Budget::guard).collect(),
        }
    }

    /// A budget that allows no disruption of its pods now.
    pub fn guarded_by(&self) -> Option<&str> {
        let guard = self.guards.iter().find(|guard| !guard.allows)?;
        Some(&guard.budget)
    }

    /// Namespace and name of every budget that selects its pods.
    pub(super) fn budgets(&self) -> impl Iterator<Item = (&str, &str)> {
        let namespace = self.owner.namespace.as_str();
        self.guards
            .iter()
            .map(move |guard| (namespace, guard.budget.as_str()))
    }
}

fn not_restartable(object: &Value) -> Option<String> {
    let spec = &object["spec"];
    let partition = &spec["updateStrategy"]["rollingUpdate"]["partition"];
    if spec["paused"] == true {
        return Some("its rollout is paused (kubectl rollout resume)".into());
    }
    if spec["updateStrategy"]["type"] == "OnDelete" {
        return Some("its update strategy is OnDelete: delete its pods to replace them".into());
    }
    if partition.as_i64().is_some_and(|partition| partition > 0) {
        return Some("its update strategy has a partition, which would keep some pods".into());
    }
    None
}

fn state(kind: &str, object: &Value) -> State {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    if status["observedGeneration"] != object["metadata"]["generation"] {
        return State::Unsettled("its controller has not observed its last change yet".into());
    }
    let (wanted, all, updated, available) = if kind == "DaemonSet" {
        (
            number(&status["desiredNumberScheduled"]),
            number(&status["currentNumberScheduled"]),
            number(&status["updatedNumberScheduled"]),
            number(&status["numberAvailable"]),
        )
    } else {
        (
            spec["replicas"].as_i64().unwrap_or(1),
            number(&status["replicas"]),
            number(&status["updatedReplicas"]),
            number(&status["availableReplicas"]),
        )
    };
    if updated < wanted || all > updated {
        return State::Unsettled(format!(
            "its rollout is in progress: {updated} of {wanted} pods are updated"
        ));
    }
    if available < wanted {
        return State::Unsettled(format!("{available} of {wanted} pods are available"));
    }
    if kind == "StatefulSet" && status["currentRevision"] != status["updateRevision"] {
        return State::Unsettled("its rollout is in progress".into());
    }
    State::Settled
}

/// The patch that restarts a workload, as `kubectl rollout restart` does, and records the purpose. The API
/// server refuses it if the workload has changed since it was read.
pub fn patch(seen: &Value, agent: &str, purpose: &str, now: &str) -> Value {
    json!({
        "metadata": {
            "resourceVersion": seen["metadata"]["resourceVersion"],
            "uid": seen["metadata"]["uid"],
            "labels": {names::LABEL_RESTARTING: agent},
            "annotations": {names::ANNOTATION_RESTARTED_FOR: purpose},
        },
        "spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}},
    })
}

/// The patch that removes the label of a running restart.
pub fn release(seen: &Value) -> Value {
    json!({"metadata": {
        "resourceVersion": seen["metadata"]["resourceVersion"],
        "uid": seen["metadata"]["uid"],
        "labels": {names::LABEL_RESTARTING: null},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(status: &Value) -> Value {
        json!({
            "metadata": {"name": "cart", "namespace": "shop", "generation": 3},
            "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "cart"}}}},
            "status": status,
        })
    }

    fn settled() -> Value {
        json!({"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2})
    }

    #[test]
    fn a_deployment_is_settled_when_all_pods_are_updated_and_available() {
        let state = |status: &Value| state("Deployment", &deployment(status));
        assert_eq!(state(&settled()), State::Settled);
        for (key, value) in [
            ("observedGeneration", 2),
            ("replicas", 3),
            ("updatedReplicas", 1),
            ("availableReplicas", 1),
        ] {
            let mut status = settled();
            status[key] = value.into();
            assert_ne!(state(&status), State::Settled, "{key}");
        }
    }

    #[test]
    fn stateful_sets_settle_by_revision_and_daemon_sets_by_nodes() {
        let mut set = deployment(&settled());
        set["status"]["currentRevision"] = "r1".into();
        set["status"]["updateRevision"] = "r2".into();
        assert_ne!(state("StatefulSet", &set), State::Settled);
        set["status"]["currentRevision"] = "r2".into();
        assert_eq!(state("StatefulSet", &set), State::Settled);
        let mut daemons = json!({
            "metadata": {"generation": 1},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                "updatedNumberScheduled": 2, "numberAvailable": 2},
        });
        assert_eq!(state("DaemonSet", &daemons), State::Settled);
        daemons["status"]["updatedNumberScheduled"] = 1.into();
        assert_ne!(state("DaemonSet", &daemons), State::Settled);
    }

    #[test]
    fn paused_on_delete_and_partitioned_workloads_are_not_restarted() {
        let spec = |spec: Value| not_restartable(&json!({"spec": spec}));
        assert_eq!(
            spec(json!({"updateStrategy": {"type": "RollingUpdate"}})),
            None
        );
        assert!(spec(json!({"paused": true})).is_some());
        assert!(spec(json!({"updateStrategy": {"type": "OnDelete"}})).is_some());
        let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}});
        assert!(spec(partition).is_some());
    }

    #[test]
    fn a_budget_that_allows_nothing_or_is_behind_guards_its_pods() {
        let budget = |app: &str, allowed: i64, observed: i64| {
            Budget::read(&json!({
                "metadata": {"name": "strict", "generation": 1},
                "spec": {"selector": {"matchLabels": {"app": app, "pod-template-hash": "x"}}},
                "status": {"disruptionsAllowed": allowed, "observedGeneration": observed},
            }))
            .unwrap()
        };
        let guarded = |budget: Budget| {
            let read = Workload::read("Deployment", &deployment(&settled()), &[budget]);
            read.guarded_by().map(str::to_owned)
        };
        assert_eq!(guarded(budget("cart", 1, 1)), None);
        assert_eq!(guarded(budget("other", 0, 1)), None);
        assert_eq!(guarded(budget("cart", 0, 1)).as_deref(), Some("strict"));
        assert_eq!(guarded(budget("cart", 1, 0)).as_deref(), Some("strict"));
    }
}
