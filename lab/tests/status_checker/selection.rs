//! Which `OtelAgent` a pod is for, from selectors and labels alone.

use otelagent_core::names;
use serde_json::Value;

use super::checker::condition;
use super::read::{items, label, text};
use super::view::{ClusterView, OPERATOR_NAMESPACE};

/// docs/injection.md: pods of `kube-system`, of the operator's namespace and mirror pods are never asked about.
const NEVER: [&str; 2] = ["kube-system", OPERATOR_NAMESPACE];
/// On pods that a kubelet made from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whose a pod without injection should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The checked `OtelAgent`'s.
    Ours,
    /// No `OtelAgent`'s, or an older one's.
    NotOurs,
    /// The documentation does not say: a spec that is not carried out may leave an older selection active.
    Open,
}

/// Whether an `OtelAgent` acts on what its present spec selects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Acts {
    Yes,
    No,
    Perhaps,
}

impl ClusterView {
    /// Whose a pod is, if it is not injected yet. Of several `OtelAgent`s the oldest wins, then namespace and name.
    pub(super) fn claim(&self, pod: &Value) -> Claim {
        if !may_be_injected(pod) {
            return Claim::NotOurs;
        }
        let mut is_open = false;
        for agent in self.agents_by_age() {
            let is_ours = self.is_checked(agent);
            match self.acts(agent) {
                Acts::Yes if self.selects(agent, pod) => {
                    return match (is_open, is_ours) {
                        (true, _) => Claim::Open,
                        (false, true) => Claim::Ours,
                        (false, false) => Claim::NotOurs,
                    };
                }
                Acts::No | Acts::Perhaps if is_ours => return Claim::Open,
                Acts::Perhaps if might_select(agent, pod) => is_open = true,
                _ => {}
            }
            if is_ours {
                break;
            }
        }
        Claim::NotOurs
    }

    /// Whether an older `OtelAgent` may select pods in a namespace in which the checked one selects some.
    pub(super) fn may_overlap(&self) -> bool {
        let own = self.selected_namespaces(&self.agent);
        let older = self
            .agents_by_age()
            .into_iter()
            .take_while(|agent| !self.is_checked(agent));
        older
            .filter(|agent| self.acts(agent) != Acts::No)
            .any(|agent| {
                let theirs = self.selected_namespaces(agent);
                theirs.iter().any(|namespace| own.contains(namespace))
                    || self.acts(agent) == Acts::Perhaps
                        && (has_namespace_selector(agent)
                            || own.contains(&text(agent, "/metadata/namespace")))
            })
    }

    /// Names of the namespaces an `OtelAgent` selects.
    pub(super) fn selected_namespaces(&self, agent: &Value) -> Vec<&str> {
        let names = self
            .namespaces
            .iter()
            .map(|namespace| text(namespace, "/metadata/name"));
        names
            .filter(|name| !NEVER.contains(name) && self.selects_namespace(agent, name))
            .collect()
    }

    /// Namespace and labels of a pod that, created now, is the checked `OtelAgent`'s without a doubt.
    pub(super) fn example(&self) -> Option<(String, Value)> {
        let of_pods = self.pods.iter().map(|pod| {
            let mut labels = pod["metadata"]["labels"].clone();
            if let Some(labels) = labels.as_object_mut() {
                labels.retain(|key, _| !key.starts_with(names::GROUP));
            }
            (text(pod, "/metadata/namespace"), labels)
        });
        let named = example_labels(&self.agent["spec"]["workloads"]["podSelector"]);
        let of_selector = self
            .selected_namespaces(&self.agent)
            .into_iter()
            .map(|namespace| (namespace, named.clone()));
        let mut all = of_pods.chain(of_selector);
        all.find_map(|(namespace, labels)| {
            let metadata = serde_json::json!({"namespace": namespace, "labels": labels});
            let pod = serde_json::json!({"metadata": metadata});
            (self.claim(&pod) == Claim::Ours).then(|| (namespace.to_owned(), labels))
        })
    }

    fn agents_by_age(&self) -> Vec<&Value> {
        let mut all: Vec<&Value> = self.agents.iter().collect();
        all.sort_by_key(|agent| {
            [
                text(agent, "/metadata/creationTimestamp"),
                text(agent, "/metadata/namespace"),
                text(agent, "/metadata/name"),
            ]
        });
        all
    }

    fn is_checked(&self, agent: &Value) -> bool {
        agent["metadata"]["uid"] == self.agent["metadata"]["uid"]
    }

    /// Only an accepted spec is carried out. With a refused one the last good selection stays active, if any.
    fn acts(&self, agent: &Value) -> Acts {
        let status = &agent["status"];
        let is_present = status["observedGeneration"] == agent["metadata"]["generation"];
        match text(condition(status, "Accepted"), "/status") {
            "True" if is_present => Acts::Yes,
            "False" if is_present && self.injector(agent).is_none() => Acts::No,
            _ => Acts::Perhaps,
        }
    }

    /// Whether the selectors of an `OtelAgent` select a pod.
    fn selects(&self, agent: &Value, pod: &Value) -> bool {
        let workloads = &agent["spec"]["workloads"];
        workloads.is_object()
            && self.selects_namespace(agent, text(pod, "/metadata/namespace"))
            && matches(&workloads["podSelector"], &pod["metadata"]["labels"])
    }

    fn selects_namespace(&self, agent: &Value, name: &str) -> bool {
        let workloads = &agent["spec"]["workloads"];
        if !has_namespace_selector(agent) {
            return workloads.is_object() && text(agent, "/metadata/namespace") == name;
        }
        let mut all = self.namespaces.iter();
        let namespace = all.find(|namespace| namespace["metadata"]["name"] == name);
        namespace.is_some_and(|namespace| {
            matches(
                &workloads["namespaceSelector"],
                &namespace["metadata"]["labels"],
            )
        })
    }
}

fn has_namespace_selector(agent: &Value) -> bool {
    agent["spec"]["workloads"]["namespaceSelector"].is_object()
}

/// Whether a selection that is not known, because the spec is not carried out, might hold a pod.
fn might_select(agent: &Value, pod: &Value) -> bool {
    has_namespace_selector(agent) || agent["metadata"]["namespace"] == pod["metadata"]["namespace"]
}

fn may_be_injected(pod: &Value) -> bool {
    !NEVER.contains(&text(pod, "/metadata/namespace"))
        && label(pod, names::LABEL_INJECT) != Some("false")
        && pod["metadata"]["annotations"][MIRROR].is_null()
}

/// Whether a label selector matches, as `metav1.LabelSelector` does. An absent one matches everything.
pub(super) fn matches(selector: &Value, labels: &Value) -> bool {
    let all = selector["matchLabels"].as_object().into_iter().flatten();
    let mut requirements = items(&selector["matchExpressions"]);
    all.into_iter().all(|(key, value)| labels[key] == *value)
        && requirements.all(|requirement| {
            let value = &labels[text(requirement, "/key")];
            let is_listed = items(&requirement["values"]).any(|listed| listed == value);
            match text(requirement, "/operator") {
                "In" => is_listed,
                "NotIn" => !is_listed,
                "Exists" => !value.is_null(),
                "DoesNotExist" => value.is_null(),
                _ => false,
            }
        })
}

/// Labels that a selector matches, where they follow from it.
fn example_labels(selector: &Value) -> Value {
    let mut labels = selector["matchLabels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for requirement in items(&selector["matchExpressions"]) {
        let value = match text(requirement, "/operator") {
            "In" => requirement["values"][0].clone(),
            "Exists" => "any".into(),
            _ => continue,
        };
        labels.entry(text(requirement, "/key")).or_insert(value);
    }
    labels.into()
}
