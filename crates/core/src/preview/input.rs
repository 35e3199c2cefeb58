//! What a preview is made from.

use otelagent_api::{OtelAgentSpec, ResourceExt};
use serde_json::Value;

use crate::advise::ClusterFacts;
use crate::build::{Environment, PortUser, ValidAgent};
use crate::mode_option::ModeOption;
use crate::reconcile::{Engines, Observation, Subject};

/// A changed spec, and the cluster.
#[derive(Clone, Copy)]
pub struct PreviewInput<'a> {
    /// What the operator would observe just after the change: `agent` is the changed object, with the status that it has,
    /// and the pods are counted by its selection.
    pub observation: &'a Observation<'a>,
    /// The spec before the change; `None` of an object that does not exist yet.
    pub before: Option<&'a OtelAgentSpec>,
    /// The installation.
    pub environment: &'a Environment,
    /// The canary namespace.
    pub canary_namespace: &'a str,
    /// Owner reference of cluster-scoped objects.
    pub installation: Option<&'a Value>,
    /// The engine that injects, or why none can.
    pub engines: &'a Engines<'a>,
    /// What else is known of the cluster.
    pub facts: &'a ClusterFacts,
    /// The other `OtelAgent`s that take ports of nodes, or ask for some.
    pub port_users: &'a [PortUser],
    /// What the API server says to the changed object in a dry run, if it refuses it. It checks rules of the schema
    /// that are not repeated here, as of ports that cannot change.
    pub refusal: Option<&'a str>,
}

impl<'a> PreviewInput<'a> {
    pub(super) fn subject(&self, valid: &'a ValidAgent) -> Subject<'a> {
        Subject {
            valid,
            environment: self.environment,
            canary_namespace: self.canary_namespace,
            installation: self.installation,
        }
    }

    /// The topology that the changed spec asks for.
    pub(super) fn wanted(&self) -> ModeOption {
        ModeOption::of(&self.observation.agent.spec)
    }

    /// What is known of the cluster, with what the operator knows.
    pub(super) fn known_facts(&self) -> ClusterFacts {
        let agent = self.observation.agent;
        let namespace = agent.namespace().unwrap_or_default();
        ClusterFacts {
            server: Some(self.environment.server),
            platform_namespace: Some(self.environment.is_platform(&namespace)),
            host_metadata: Some(agent.spec.host_metadata == Some(true)),
            // Pods that cannot be injected are named one by one.
            on_host_network: self.facts.on_host_network.or(Some(false)),
            ..self.facts.clone()
        }
    }
}
