//! What injection is active, from admission objects and from pods created now.

use otelagent_core::names;
use serde_json::Value;

use super::read::{items, label, text};
use super::view::ClusterView;

impl ClusterView {
    /// The object that makes the API server inject for an `OtelAgent`: a binding or a webhook configuration.
    pub(super) fn injector(&self, agent: &Value) -> Option<&Value> {
        let name = names::cluster_object(
            text(agent, "/metadata/namespace"),
            text(agent, "/metadata/name"),
            None,
        );
        self.bindings
            .iter()
            .chain(&self.webhooks)
            .find(|object| object["metadata"]["name"] == name)
    }

    /// Why injection for the checked `OtelAgent` is certainly not active.
    pub(super) fn no_injection(&self) -> Option<&'static str> {
        let Some(injector) = self.injector(&self.agent) else {
            return Some("there is neither a binding nor a webhook configuration");
        };
        let policy = &injector["spec"]["policyName"];
        let mut policies = self.policies.iter();
        if !policy.is_null() && !policies.any(|found| found["metadata"]["name"] == *policy) {
            return Some("the bound policy does not exist");
        }
        let is_missing = |pod: &Value| !self.is_injected(pod);
        self.new_pods
            .iter()
            .any(is_missing)
            .then_some("a pod created now is not injected")
    }

    /// Whether a pod bears the label that injection for the checked `OtelAgent` gives.
    pub(super) fn is_injected(&self, pod: &Value) -> bool {
        label(pod, names::LABEL_AGENT) == Some(&self.label())
    }

    /// The configuration that a pod created now is given.
    pub(super) fn configuration(&self) -> Option<&str> {
        let mut given = self.new_pods.iter().filter(|pod| self.is_injected(pod));
        let of_pod = given.find_map(|pod| label(pod, names::LABEL_CONFIG));
        of_pod.or_else(|| {
            let injector = self.injector(&self.agent)?;
            injector["metadata"]["annotations"][names::ANNOTATION_RECIPE].as_str()
        })
    }
}

/// The endpoint that injection gave the containers of a pod.
pub(super) fn endpoint(pod: &Value) -> Option<&str> {
    let containers = items(&pod["spec"]["containers"]);
    containers
        .flat_map(|container| items(&container["env"]))
        .find(|variable| variable["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT")
        .and_then(|variable| variable["value"].as_str())
}
