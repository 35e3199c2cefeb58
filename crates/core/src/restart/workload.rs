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

/// What is known of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which one.
    pub owner: WorkloadRef,
    /// Why it is not settled: it is rolling out, or pods are unavailable. `None` once all its pods are of its
    /// present template and available.
    pub unsettled: Option<String>,
    /// Why it must not be restarted, if so.
    pub not_restartable: Option<String>,
    /// The purpose of its last restart.
    pub restarted_for: Option<String>,
    /// Disruption budgets that select its pods.
    pub guards: Vec<Budget>,
}

/// A `PodDisruptionBudget`: which pods it selects, and whether it allows a disruption now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    pub(super) name: String,
    pub(super) selector: Selector,
    pub(super) allows: bool,
}

impl Budget {
    /// Reads one. A selector that cannot be read selects nothing. Requirements on labels that controllers add
    /// are left out: a template lacks them.
    pub fn read(object: &Value) -> Option<Self> {
        let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
        let mut selector: Selector = serde_json::from_value(spec["selector"].clone()).ok()?;
        let of_template = |key: &str| !ADDED.contains(&key);
        selector.match_labels.retain(|key, _| of_template(key));
        selector
            .match_expressions
            .retain(|requirement| of_template(&requirement.key));
        let is_current = status["observedGeneration"] == metadata["generation"];
        let allowed = status["disruptionsAllowed"].as_i64();
        Some(Self {
            name: metadata["name"].as_str()?.into(),
            selector,
            allows: is_current && allowed.is_some_and(|allowed| allowed > 0),
        })
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
        let selects = |budget: &&Budget| budget.selector.matches(&labels);
        Self {
            owner: WorkloadRef {
                api_version: "apps/v1".into(),
                kind: kind.into(),
                namespace: text(&metadata["namespace"]),
                name: text(&metadata["name"]),
            },
            unsettled: unsettled(kind, object),
            not_restartable: not_restartable(object),
            restarted_for: metadata["annotations"][names::ANNOTATION_RESTARTED_FOR]
                .as_str()
                .map(Into::into),
            guards: budgets.iter().filter(selects).cloned().collect(),
        }
    }

    /// A budget that allows no disruption of its pods now.
    pub fn guarded_by(&self) -> Option<&str> {
        let guard = self.guards.iter().find(|guard| !guard.allows)?;
        Some(&guard.name)
    }

    /// Namespace and name of every budget that selects its pods.
    pub(super) fn budgets(&self) -> impl Iterator<Item = (&str, &str)> {
        let namespace = self.owner.namespace.as_str();
        let names = self.guards.iter().map(|guard| guard.name.as_str());
        names.map(move |name| (namespace, name))
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

fn unsettled(kind: &str, object: &Value) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |key| status[key].as_i64().unwrap_or_default();
    if status["observedGeneration"] != object["metadata"]["generation"] {
        return Some("its controller has not observed its last change yet".into());
    }
    let (wanted, [all, updated, available]) = if kind == "DaemonSet" {
        let keys = [
            "currentNumberScheduled",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        (number("desiredNumberScheduled"), keys.map(number))
    } else {
        let keys = ["replicas", "updatedReplicas", "availableReplicas"];
        (spec["replicas"].as_i64().unwrap_or(1), keys.map(number))
    };
    if updated < wanted || all > updated {
        Some(format!(
            "its rollout is in progress: {updated} of {wanted} pods are updated"
        ))
    } else if available < wanted {
        Some(format!("{available} of {wanted} pods are available"))
    } else if kind == "StatefulSet" && status["currentRevision"] != status["updateRevision"] {
        Some("its rollout is in progress".into())
    } else {
        None
    }
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
    fn deployment_is_settled_when_all_pods_are_updated_and_available() {
        let state = |status: &Value| unsettled("Deployment", &deployment(status));
        assert_eq!(state(&settled()), None);
        for (key, value) in [
            ("observedGeneration", 2),
            ("replicas", 3),
            ("updatedReplicas", 1),
            ("availableReplicas", 1),
        ] {
            let mut status = settled();
            status[key] = value.into();
            assert_ne!(state(&status), None, "{key}");
        }
    }

    #[test]
    fn stateful_sets_settle_by_revision_and_daemon_sets_by_nodes() {
        let mut set = deployment(&settled());
        set["status"]["currentRevision"] = "r1".into();
        set["status"]["updateRevision"] = "r2".into();
        assert_ne!(unsettled("StatefulSet", &set), None);
        set["status"]["currentRevision"] = "r2".into();
        assert_eq!(unsettled("StatefulSet", &set), None);
        let mut daemons = json!({
            "metadata": {"generation": 1},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                "updatedNumberScheduled": 2, "numberAvailable": 2},
        });
        assert_eq!(unsettled("DaemonSet", &daemons), None);
        daemons["status"]["updatedNumberScheduled"] = 1.into();
        assert_ne!(unsettled("DaemonSet", &daemons), None);
    }

    #[test]
    fn paused_on_delete_and_partitioned_workloads_are_not_restarted() {
        let spec = |spec: Value| not_restartable(&json!({"spec": spec}));
        let rolling = json!({"updateStrategy": {"type": "RollingUpdate"}});
        assert_eq!(spec(rolling), None);
        assert!(spec(json!({"paused": true})).is_some());
        assert!(spec(json!({"updateStrategy": {"type": "OnDelete"}})).is_some());
        let partition = json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}});
        assert!(spec(partition).is_some());
    }

    #[test]
    fn budget_that_allows_nothing_or_is_behind_guards_its_pods() {
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
