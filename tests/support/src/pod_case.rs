//! A case of the tables of pods: a pod, and what injection makes of it.

use otelagent_core::names;
use serde_json::{Value, json};

pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The variable of the service name.
pub const SERVICE: &str = "OTEL_SERVICE_NAME";
/// The variable of the resource attributes.
pub const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
/// The endpoint of a sidecar.
pub const SIDECAR: &str = "http://127.0.0.1:4317";
pub(crate) const MOVED: &str = "http://127.0.0.1:14317";

/// A pod around a spec.
pub fn pod(metadata: Value, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// One line of the documentation.
pub struct Case {
    /// As the line begins.
    pub name: &'static str,
    /// The pod.
    pub pod: Value,
    /// What holds in mode Sidecar.
    pub sidecar: fn(&Seen),
    /// What holds in mode NodeLocal.
    pub node: fn(&Seen),
}

/// What the server made of a pod.
pub struct Seen {
    /// The pod as it came back.
    pub pod: Value,
    /// Warnings that its creator got.
    pub warnings: Vec<String>,
    /// The endpoint of this recipe.
    pub endpoint: String,
}

impl Seen {
    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.pod["metadata"]["labels"][key].as_str()
    }

    pub(crate) fn injected(&self) {
        assert!(
            self.label(names::LABEL_AGENT).is_some(),
            "not injected: {:?}",
            self.warnings
        );
    }

    /// Left unchanged, and its creator gets the reason.
    pub(crate) fn refused(&self, why: &str) {
        assert_eq!(self.label(names::LABEL_AGENT), None);
        let warned = self.warnings.iter().any(|warned| warned.contains(why));
        assert!(warned, "{why} in {:?}", self.warnings);
    }

    /// A container of the pod.
    pub fn container(&self, name: &str) -> &Value {
        let spec = &self.pod["spec"];
        ["containers", "initContainers"]
            .iter()
            .filter_map(|list| spec[*list].as_array())
            .flatten()
            .find(|container| container["name"] == name)
            .unwrap_or_else(|| panic!("no container {name} in {spec:#}"))
    }

    /// The variables of a container with a name, in their order.
    pub fn variables(&self, container: &str, name: &str) -> Vec<&Value> {
        let env = self.container(container)["env"].as_array();
        env.into_iter()
            .flatten()
            .filter(|variable| variable["name"] == name)
            .collect()
    }

    /// The value of a variable that stands once.
    pub(crate) fn value(&self, container: &str, name: &str) -> &str {
        let [variable] = self.variables(container, name)[..] else {
            panic!("{name} in {:#}", self.container(container));
        };
        variable["value"].as_str().unwrap_or_default()
    }

    /// Fails where a container has the variable.
    pub fn without(&self, container: &str, name: &str) {
        assert_eq!(self.variables(container, name), Vec::<&Value>::new());
    }

    /// The application gets this recipe's endpoint.
    pub fn warned(&self) {
        self.injected();
        assert_eq!(self.value("app", ENDPOINT), self.endpoint);
    }

    /// Injected, and its creator gets advice.
    pub(crate) fn advised(&self, advice: &str) {
        self.warned();
        let advised = self.warnings.iter().any(|warning| warning.contains(advice));
        assert!(advised, "{advice} in {:?}", self.warnings);
    }

    pub(crate) fn unadvised(&self) {
        self.warned();
        let advised = self
            .warnings
            .iter()
            .any(|warning| warning.contains("injected this pod, but"));
        assert!(!advised, "{:?}", self.warnings);
    }

    pub(crate) fn inits(&self) -> Vec<&str> {
        let inits = self.pod["spec"]["initContainers"].as_array();
        inits
            .into_iter()
            .flatten()
            .filter_map(|container| container["name"].as_str())
            .collect()
    }

    pub(crate) fn agent_ports(&self) -> Vec<u64> {
        let ports = self.container(names::CONTAINER)["ports"].as_array();
        ports
            .into_iter()
            .flatten()
            .filter_map(|port| port["containerPort"].as_u64())
            .collect()
    }
}

pub(crate) fn app(more: Value) -> Value {
    let mut app = json!({"name": "app", "image": "shop:1.2"});
    app.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    app
}

pub(crate) fn with_spec(more: Value) -> Value {
    let mut spec = json!({"containers": [app(json!({}))]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    pod(json!({"name": "shape"}), spec)
}

/// A pod whose application's container has more.
pub fn with_app(more: Value) -> Value {
    pod(json!({"name": "shape"}), json!({"containers": [app(more)]}))
}

pub(crate) fn annotated(key: &str, value: &str) -> Value {
    pod(
        json!({"name": "shape", "annotations": {key: value}}),
        json!({"containers": [app(json!({}))]}),
    )
}

pub(crate) fn case(name: &'static str, pod: Value, sidecar: fn(&Seen), node: fn(&Seen)) -> Case {
    Case {
        name,
        pod,
        sidecar,
        node,
    }
}
