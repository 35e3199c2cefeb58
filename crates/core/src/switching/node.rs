//! Nodes, and which of them a `DaemonSet` targets.
//!
//! The `DaemonSet` controller decides by the pod template: its node selector, its required node affinity, and
//! its tolerations together with those that the controller adds itself. A node that it does not target has no
//! agent, so no switch waits for one there.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

/// The nodes of the cluster, by name.
pub type NodeStates = BTreeMap<String, Arc<NodeState>>;

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// Whether it is Ready.
    pub ready: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
}

/// Taints that the `DaemonSet` controller makes every pod tolerate, each with its effect.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same for pods on the host network.
const TOLERATED_ON_HOST_NETWORK: (&str, &str) =
    ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Which nodes a `DaemonSet` targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Targets {
    selector: BTreeMap<String, String>,
    /// Required terms, one of which must match; `None` without a requirement.
    terms: Option<Vec<NodeSelectorTerm>>,
    tolerations: Vec<Toleration>,
    on_host_network: bool,
}

impl Targets {
    /// Those of a `DaemonSet` as it exists.
    pub fn of(workload: &DaemonSet) -> Self {
        let pod = workload.spec.as_ref();
        let Some(pod) = pod.and_then(|spec| spec.template.spec.as_ref()) else {
            return Self::default();
        };
        let affinity = pod.affinity.as_ref();
        let affinity = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| {
            let required = &affinity.required_during_scheduling_ignored_during_execution;
            required.as_ref()
        });
        Self {
            selector: pod.node_selector.clone().unwrap_or_default(),
            terms: required.map(|required| required.node_selector_terms.clone()),
            tolerations: pod.tolerations.clone().unwrap_or_default(),
            on_host_network: pod.host_network == Some(true),
        }
    }

    /// Why the `DaemonSet` leaves this node out; `None` if it does not.
    pub fn leaves_out(&self, name: &str, node: &NodeState) -> Option<String> {
        let is_lacking = |(key, value): &(&String, &String)| node.labels.get(*key) != Some(*value);
        if let Some((key, value)) = self.selector.iter().find(is_lacking) {
            return Some(match node.labels.get(key) {
                Some(other) => format!("it has label {key}={other}, not {value}"),
                None => format!("it lacks label {key}={value}"),
            });
        }
        let matches = |term: &NodeSelectorTerm| is_matched(term, name, &node.labels);
        if let Some(terms) = &self.terms
            && !terms.iter().any(matches)
        {
            return Some(left_out(terms, &node.labels));
        }
        let taint = node.taints.iter().find(|taint| !self.tolerates(taint))?;
        Some(format!("its taint {} is not tolerated", taint.key))
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        if !["NoSchedule", "NoExecute"].contains(&taint.effect.as_str()) {
            return true;
        }
        let own = (taint.key.as_str(), taint.effect.as_str());
        TOLERATED.contains(&own)
            || self.on_host_network && own == TOLERATED_ON_HOST_NETWORK
            || self.tolerations.iter().any(|one| is_tolerated(taint, one))
    }
}

fn is_tolerated(taint: &Taint, by: &Toleration) -> bool {
    let is = |own: &Option<String>, other: &str| {
        own.as_deref()
            .is_none_or(|own| own.is_empty() || own == other)
    };
    let value = taint.value.as_deref().unwrap_or_default();
    is(&by.effect, &taint.effect)
        && is(&by.key, &taint.key)
        && (by.operator.as_deref() == Some("Exists")
            || by.value.as_deref().unwrap_or_default() == value)
}

/// Which label keeps a node out, if there is one term only.
fn left_out(terms: &[NodeSelectorTerm], labels: &BTreeMap<String, String>) -> String {
    let why = "the agent's node affinity leaves it out";
    let [term] = terms else { return why.into() };
    let mut expressions = term.match_expressions.iter().flatten();
    let unmet =
        |one: &&NodeSelectorRequirement| !is_met(one, labels.get(&one.key).map(String::as_str));
    match expressions
        .find(unmet)
        .map(|one| (&one.key, labels.get(&one.key)))
    {
        Some((key, Some(value))) => format!("{why}: it has label {key}={value}"),
        Some((key, None)) => format!("{why}: it lacks label {key}"),
        None => why.into(),
    }
}

/// A term without requirements matches no node.
fn is_matched(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.iter().flatten();
    let expressions = expressions.map(|one| (one, labels.get(&one.key).map(String::as_str)));
    let fields = term.match_fields.iter().flatten();
    let fields = fields.map(|one| (one, (one.key == "metadata.name").then_some(name)));
    let mut all = expressions.chain(fields).peekable();
    all.peek().is_some() && all.all(|(requirement, value)| is_met(requirement, value))
}

fn is_met(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = || {
        let bound = values.first().and_then(|bound| number(bound))?;
        Some(value.and_then(number)?.cmp(&bound))
    };
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(std::cmp::Ordering::is_gt),
        "Lt" => compared().is_some_and(std::cmp::Ordering::is_lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn targets(pod: &Value) -> Targets {
        let mut pod = pod.clone();
        pod["containers"] = json!([]);
        let workload = json!({"metadata": {}, "spec": {"selector": {}, "template": {"spec": pod}}});
        Targets::of(&serde_json::from_value(workload).unwrap())
    }

    fn node(labels: &Value, taints: &Value) -> NodeState {
        NodeState {
            ready: true,
            labels: serde_json::from_value(labels.clone()).unwrap(),
            taints: serde_json::from_value(taints.clone()).unwrap(),
        }
    }

    fn linux(taints: &Value) -> NodeState {
        node(&json!({"kubernetes.io/os": "linux"}), taints)
    }

    #[test]
    fn node_is_left_out_by_selector_and_by_taints_of_virtual_nodes() {
        let agents = targets(&json!({"nodeSelector": {"kubernetes.io/os": "linux"}}));
        let why = |node: &NodeState| agents.leaves_out("n", node);
        assert_eq!(why(&linux(&json!([]))), None);
        let windows = node(&json!({"kubernetes.io/os": "windows"}), &json!([]));
        assert_eq!(
            why(&windows).unwrap(),
            "it has label kubernetes.io/os=windows, not linux"
        );
        assert_eq!(
            why(&node(&json!({}), &json!([]))).unwrap(),
            "it lacks label kubernetes.io/os=linux"
        );
        for key in [
            "virtual-kubelet.io/provider",
            "eks.amazonaws.com/compute-type",
        ] {
            let taints = json!([{"key": key, "value": "x", "effect": "NoSchedule"}]);
            let expected = format!("its taint {key} is not tolerated");
            assert_eq!(why(&linux(&taints)), Some(expected));
        }
    }

    #[test]
    fn taints_are_tolerated_as_the_daemonset_controller_and_the_spec_say() {
        let agents = targets(&json!({"tolerations": [
            {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoSchedule"},
            {"key": "any", "operator": "Exists"},
        ]}));
        let tolerates = |key: &str, value: &str, effect: &str| {
            let taints = json!([{"key": key, "value": value, "effect": effect}]);
            agents.leaves_out("n", &linux(&taints)).is_none()
        };
        assert!(tolerates("gpu", "a", "NoSchedule"));
        assert!(!tolerates("gpu", "b", "NoSchedule"));
        assert!(!tolerates("gpu", "a", "NoExecute"));
        assert!(tolerates("gpu", "b", "PreferNoSchedule"));
        assert!(tolerates("any", "x", "NoExecute"));
        assert!(tolerates(
            "node.kubernetes.io/unschedulable",
            "",
            "NoSchedule"
        ));
        assert!(tolerates("node.kubernetes.io/not-ready", "", "NoExecute"));
        let unavailable = ("node.kubernetes.io/network-unavailable", "NoSchedule");
        assert!(!tolerates(unavailable.0, "", unavailable.1));
        let taints = json!([{"key": unavailable.0, "effect": unavailable.1}]);
        let on_host = targets(&json!({"hostNetwork": true}));
        assert_eq!(on_host.leaves_out("n", &linux(&taints)), None);
        let all = targets(&json!({"tolerations": [{"operator": "Exists"}]}));
        let taints = json!([{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]);
        assert_eq!(all.leaves_out("n", &linux(&taints)), None);
    }

    #[test]
    fn required_affinity_leaves_nodes_out() {
        let with = |terms: Value| {
            targets(&json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            }}}))
        };
        let node = node(&json!({"zone": "a", "cores": "8"}), &json!([]));
        let expressions = |all: &[(&str, &str, &[&str])]| -> Value {
            let all = all.iter().map(|(key, operator, values)| {
                json!({"key": key, "operator": operator, "values": values})
            });
            json!({"matchExpressions": all.collect::<Vec<_>>()})
        };
        let takes = |terms: Value| with(terms).leaves_out("n1", &node).is_none();
        for (key, operator, values, expected) in [
            ("zone", "In", &["a", "b"] as &[&str], true),
            ("zone", "In", &["b"], false),
            ("zone", "NotIn", &["b"], true),
            ("rack", "NotIn", &["b"], true),
            ("zone", "Exists", &[], true),
            ("zone", "DoesNotExist", &[], false),
            ("cores", "Gt", &["4"], true),
            ("cores", "Lt", &["4"], false),
            ("zone", "Gt", &["4"], false),
        ] {
            let term = expressions(&[(key, operator, values)]);
            assert_eq!(
                takes(json!([term])),
                expected,
                "{key} {operator} {values:?}"
            );
        }
        let (a, b) = (
            ("zone", "In", &["a"] as &[&str]),
            ("zone", "In", &["b"] as &[&str]),
        );
        assert!(!takes(json!([expressions(&[a, b])])), "all of a term");
        let why = |terms: Value| with(terms).leaves_out("n1", &node).unwrap_or_default();
        let named = "the agent's node affinity leaves it out: it has label zone=a";
        assert_eq!(why(json!([expressions(&[a, b])])), named);
        let lacking = expressions(&[("rack", "Exists", &[])]);
        let named = "the agent's node affinity leaves it out: it lacks label rack";
        assert_eq!(why(json!([lacking])), named);
        assert!(
            takes(json!([expressions(&[b]), expressions(&[a])])),
            "any term"
        );
        assert!(!takes(json!([{}])), "an empty term");
        let named = |name: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]);
        assert!(takes(named("n1")) && !takes(named("n2")));
    }
}
