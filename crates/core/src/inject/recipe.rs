//! The recipe: what injection adds for one `OtelAgent`, as data.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::environment::{EnvRule, RESOURCE_ATTRIBUTES, SERVICE_NAME};
use super::json::text;
use super::namespace_limits::{self, Amounts};
use crate::names;
use otelagent_api::Mode;

/// What injection adds to the pods of one `OtelAgent` in one mode.
///
/// Values are JSON rendered from typed objects: a value that the API server cannot decode would break the
/// creation of every selected pod, whatever the failure policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipe {
    /// The `OtelAgent`, as made by [`names::agent_label`]; label `otelagent.dev/agent`.
    pub agent: String,
    /// The mode of the pods; label `otelagent.dev/mode`.
    pub mode: Mode,
    /// Annotations added, such as the sidecar's configuration.
    pub annotations: BTreeMap<String, String>,
    /// Annotations that list things, separated by commas, to which one is added.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joined_annotations: BTreeMap<String, String>,
    /// The agent as a native sidecar (`core/v1 Container` with `restartPolicy: Always`), in mode Sidecar.
    pub sidecar: Option<Value>,
    /// Whether only pods that search the cluster's domain can resolve the sidecar's upstream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub upstream_is_service: bool,
    /// What keeps a pod from starting before the agent of its node; in node modes, if wanted. [`Recipe::hash`] does not
    /// cover it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_gate: Option<StartGate>,
    /// Volumes (`core/v1 Volume`) that the sidecar mounts.
    pub volumes: Vec<Value>,
    /// The sidecar's limit of ephemeral storage where another container has one: the kubelet adds up the limits of
    /// all containers, and evicts the pod whose volumes exceed the sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_limit: Option<String>,
    /// Variables (`core/v1 EnvVar`) to which others refer; they come before all others, in this order.
    pub first: Vec<Value>,
    /// Variables appended unless a container sets one of the names that block them.
    pub env: Vec<EnvRule>,
    /// Whether to add variables that a container's `envFrom` may set already; `env` then wins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overrides_env_from: bool,
    /// An empty list that [`Recipe::hash`] has covered since 0.1.0 and that a webhook of 0.1.0 expects to
    /// read: without it an upgrade would make every injected pod stale.
    #[serde(rename = "attributes")]
    pub(crate) reserved: [(); 0],
    /// The agent at other ports, for pods that use the usual ones themselves; only with a sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// An init container that ends when the agent takes telemetry, or after a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartGate {
    /// `core/v1 Container`.
    pub container: Value,
    /// What it mounts (`core/v1 Volume`) in place of the pod's token.
    pub volume: Value,
}

/// The differences of a [`Recipe`] whose sidecar listens on other ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Replace the recipe's; the same keys.
    pub annotations: BTreeMap<String, String>,
    /// Replaces the recipe's; the same name and image.
    pub sidecar: Value,
    /// Replace the recipe's; the same names, blocked by the same names.
    pub env: Vec<EnvRule>,
}

impl Recipe {
    /// What every recipe of a mode has, where the rest is not known: enough for most reasons not to inject.
    pub fn of_mode(mode: Mode) -> Self {
        let sidecar = (mode == Mode::Sidecar).then(|| json!({"name": names::CONTAINER}));
        Self {
            agent: String::new(),
            mode,
            annotations: BTreeMap::new(),
            sidecar,
            upstream_is_service: false,
            start_gate: None,
            volumes: Vec::new(),
            joined_annotations: BTreeMap::new(),
            storage_limit: None,
            first: Vec::new(),
            env: Vec::new(),
            overrides_env_from: false,
            reserved: [],
            moved: None,
        }
    }

    /// A hash of everything that reaches the application, ten hexadecimal characters: label `otelagent.dev/config`. A
    /// running pod has passed its gate or never had one, so a gate that is new or gone does not make it stale.
    pub fn hash(&self) -> String {
        let ungated = self.start_gate.is_some().then(|| Self {
            start_gate: None,
            ..self.clone()
        });
        let hashed = ungated.as_ref().unwrap_or(self);
        names::hash(&serde_json::to_string(hashed).unwrap_or_default(), 10)
    }

    /// The resources of the injected container; none without one.
    pub fn amounts(&self) -> Amounts {
        let storage = self.storage_limit.as_deref();
        self.container()
            .map(|container| namespace_limits::amounts(container, storage))
            .unwrap_or_default()
    }

    /// The injected container, if there is one: the sidecar or the start gate.
    pub(super) fn container(&self) -> Option<&Value> {
        let gate = self.start_gate.as_ref().map(|gate| &gate.container);
        self.sidecar.as_ref().or(gate)
    }

    /// Its name.
    pub(super) fn container_name(&self) -> Option<&str> {
        self.container().map(|container| text(container, "name"))
    }

    /// Names of the variables that a user may also set through `envFrom`.
    pub(super) fn added_names(&self) -> BTreeSet<&str> {
        let blocking = self.env.iter().flat_map(|rule| &rule.unless);
        let own = [SERVICE_NAME, RESOURCE_ATTRIBUTES];
        blocking.map(String::as_str).chain(own).collect()
    }

    /// Names of all variables that injection may add.
    pub fn variable_names(&self) -> BTreeSet<&str> {
        let first = self.first.iter().map(|variable| text(variable, "name"));
        let rules = self.env.iter().map(|rule| rule.name.as_str());
        let own = [SERVICE_NAME, RESOURCE_ATTRIBUTES];
        first.chain(rules).chain(own).collect()
    }

    /// The labels of an injected pod.
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (names::LABEL_AGENT.into(), self.agent.clone()),
            (names::LABEL_MODE.into(), self.mode.to_string()),
            (names::LABEL_CONFIG.into(), self.hash()),
        ])
    }
}
