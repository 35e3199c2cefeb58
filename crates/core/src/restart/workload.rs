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
    /// Why a rollout would not progress now, if so.
    pub stalled: Option<String>,
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
    /// Which workload an object is.
    pub fn owner(kind: &str, object: &Value) -> WorkloadRef {
        let text = |key| object["metadata"][key].as_str().unwrap_or_default().into();
        WorkloadRef {
            api_version: "apps/v1".into(),
            kind: kind.into(),
            namespace: text("namespace"),
            name: text("name"),
        }
    }

    /// Reads a Deployment, `StatefulSet` or `DaemonSet`, `budgets` being those of its namespace and `down` the
    /// number of its pods on nodes that are not Ready.
    pub fn read(owner: WorkloadRef, object: &Value, budgets: &[Budget], down: usize) -> Self {
        let template = &object["spec"]["template"]["metadata"]["labels"];
        let labels: BTreeMap<String, String> =
            serde_json::from_value(template.clone()).unwrap_or_default();
        let selects = |budget: &&Budget| budget.selector.matches(&labels);
        let down = i64::try_from(down).unwrap_or(i64::MAX);
        Self {
            unsettled: unsettled(&owner.kind, object, down),
            not_restartable: not_restartable(object),
            stalled: stalled(&owner.kind, object, down),
            restarted_for: object["metadata"]["annotations"][names::ANNOTATION_RESTARTED_FOR]
                .as_str()
                .map(Into::into),
            guards: budgets.iter().filter(selects).cloned().collect(),
            owner,
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
    if !spec["template"]["metadata"]["labels"][names::LABEL_AGENT].is_null() {
        return Some(format!(
            "its pod template has the label {}, so its pods are not injected: remove it",
            names::LABEL_AGENT
        ));
    }
    if partition.as_i64().is_some_and(|partition| partition > 0) {
        return Some("its update strategy has a partition, which would keep some pods".into());
    }
    None
}

/// A pod of a `DaemonSet` on a node that is down is neither replaced nor available, however long one waits.
fn unsettled(kind: &str, object: &Value, down: i64) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |key| status[key].as_i64().unwrap_or_default();
    if status["observedGeneration"] != object["metadata"]["generation"] {
        return Some("its controller has not observed its last change yet".into());
    }
    let (wanted, [all, updated, available], down) = if kind == "DaemonSet" {
        let keys = [
            "currentNumberScheduled",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        (number("desiredNumberScheduled"), keys.map(number), down)
    } else {
        let keys = ["replicas", "updatedReplicas", "availableReplicas"];
        (spec["replicas"].as_i64().unwrap_or(1), keys.map(number), 0)
    };
    let beside = |pods: i64| pods.saturating_add(down);
    if beside(updated) < wanted || all > beside(updated) {
        Some(format!(
            "its rollout is in progress: {updated} of {wanted} pods are updated"
        ))
    } else if beside(available) < wanted {
        Some(format!("{available} of {wanted} pods are available"))
    } else if kind == "StatefulSet" && status["currentRevision"] != status["updateRevision"] {
        Some("its rollout is in progress".into())
    } else {
        None
    }
}

/// Its controller counts pods on nodes that are down among those that may be unavailable.
fn stalled(kind: &str, object: &Value, down: i64) -> Option<String> {
    if kind != "DaemonSet" || down == 0 {
        return None;
    }
    let wanted = &object["status"]["desiredNumberScheduled"];
    let wanted = wanted.as_i64().unwrap_or_default();
    let rolling = &object["spec"]["updateStrategy"]["rollingUpdate"];
    let unavailable = nodes(&rolling["maxUnavailable"], wanted).unwrap_or(1);
    let surge = nodes(&rolling["maxSurge"], wanted).unwrap_or(0);
    (down >= unavailable.max(surge)).then(|| {
        let nodes = if down == 1 { "1 node is" } else { &format!("{down} nodes are") };
        format!("{nodes} down, and its update strategy replaces no more pods meanwhile: raise maxUnavailable")
    })
}

/// A count, or a percentage of all nodes that is rounded up.
fn nodes(value: &Value, all: i64) -> Option<i64> {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%'));
    match percent {
        Some(percent) => {
            let percent: i64 = percent.parse().ok()?;
            Some(all.saturating_mul(percent).saturating_add(99) / 100)
        }
        None => value.as_i64(),
    }
}

/// Whether the operator itself gave a workload the label of a restart for this `OtelAgent`: everybody who may
/// write the workload may give it that label.
pub fn is_marked(object: &Value, agent: &str) -> bool {
    let metadata = &object["metadata"];
    let field = format!("f:{}", names::LABEL_RESTARTING);
    let managers = metadata["managedFields"].as_array();
    metadata["labels"][names::LABEL_RESTARTING] == agent
        && managers.into_iter().flatten().any(|manager| {
            let fields = &manager["fieldsV1"]["f:metadata"]["f:labels"];
            manager["manager"] == names::RESTART_MANAGER && !fields[field.as_str()].is_null()
        })
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
        let state = |status: &Value| unsettled("Deployment", &deployment(status), 1);
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
        assert_ne!(unsettled("StatefulSet", &set, 1), None);
        set["status"]["currentRevision"] = "r2".into();
        assert_eq!(unsettled("StatefulSet", &set, 1), None);
        let mut daemons = json!({
            "metadata": {"generation": 1},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "currentNumberScheduled": 2,
                "updatedNumberScheduled": 2, "numberAvailable": 2},
        });
        assert_eq!(unsettled("DaemonSet", &daemons, 0), None);
        daemons["status"]["updatedNumberScheduled"] = 1.into();
        assert_ne!(unsettled("DaemonSet", &daemons, 0), None);
    }

    /// A `DaemonSet` of ten nodes with so many pods that are not updated and not available.
    fn daemon_set(unavailable: i64, max_unavailable: &Value) -> Value {
        json!({
            "metadata": {"generation": 1},
            "spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": max_unavailable}}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 10, "currentNumberScheduled": 10,
                "updatedNumberScheduled": 10 - unavailable, "numberAvailable": 10 - unavailable},
        })
    }

    #[test]
    fn daemon_set_is_settled_when_only_pods_on_nodes_that_are_down_are_behind() {
        let state =
            |unavailable, down| unsettled("DaemonSet", &daemon_set(unavailable, &json!(1)), down);
        assert_eq!(state(1, 1), None);
        assert_ne!(state(2, 1), None, "a pod on a node that is up is behind");
        assert_ne!(state(1, 0), None);
    }

    #[test]
    fn daemon_set_waits_while_nodes_that_are_down_take_up_its_strategy() {
        let stalls = |max: Value, down| stalled("DaemonSet", &daemon_set(1, &max), down).is_some();
        assert!(stalls(json!(1), 1));
        assert!(stalls(json!("10%"), 1));
        assert!(!stalls(json!("11%"), 1), "rounded up");
        assert!(!stalls(json!(2), 1));
        assert!(!stalls(json!(1), 0));
        let mut surging = daemon_set(1, &json!(0));
        surging["spec"]["updateStrategy"]["rollingUpdate"]["maxSurge"] = 2.into();
        assert_eq!(stalled("DaemonSet", &surging, 1), None);
        assert_eq!(stalled("Deployment", &daemon_set(1, &json!(1)), 1), None);
    }

    #[test]
    fn mark_counts_only_where_the_operator_set_it() {
        let marked = |manager: &str, field: &str| {
            json!({"metadata": {
                "labels": {names::LABEL_RESTARTING: "a.b"},
                "managedFields": [{"manager": manager, "fieldsV1": {"f:metadata": {"f:labels": {field: {}}}}}],
            }})
        };
        let field = format!("f:{}", names::LABEL_RESTARTING);
        assert!(is_marked(&marked(names::RESTART_MANAGER, &field), "a.b"));
        assert!(!is_marked(&marked(names::RESTART_MANAGER, &field), "a.c"));
        assert!(!is_marked(&marked("kubectl", &field), "a.b"));
        assert!(!is_marked(&marked(names::RESTART_MANAGER, "f:app"), "a.b"));
        let bare = json!({"metadata": {"labels": {names::LABEL_RESTARTING: "a.b"}}});
        assert!(!is_marked(&bare, "a.b"));
    }

    #[test]
    fn workload_whose_template_names_an_agent_is_not_restarted() {
        let labels = json!({names::LABEL_AGENT: "a.b"});
        let why = not_restartable(&json!({"spec": {"template": {"metadata": {"labels": labels}}}}));
        assert!(why.is_some_and(|why| why.contains(names::LABEL_AGENT)));
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
            let object = deployment(&settled());
            let owner = Workload::owner("Deployment", &object);
            let read = Workload::read(owner, &object, &[budget], 0);
            read.guarded_by().map(str::to_owned)
        };
        assert_eq!(guarded(budget("cart", 1, 1)), None);
        assert_eq!(guarded(budget("other", 0, 1)), None);
        assert_eq!(guarded(budget("cart", 0, 1)).as_deref(), Some("strict"));
        assert_eq!(guarded(budget("cart", 1, 0)).as_deref(), Some("strict"));
    }
}
