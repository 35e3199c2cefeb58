//! A cluster in which everything that the operator plans succeeds: what an observation becomes in the end.
//!
//! The operator's own [`plan()`] decides each step. Here, every write is in the cluster at once, agents are ready as soon
//! as they are made, and time passes whenever the operator waits for it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use otelagent_api::{Mode, OtelAgent};
use serde_json::Value;

use crate::build::{Desired, build, template_label};
use crate::names;
use crate::reconcile::{
    Active, AdmissionObject, Engines, Intent, Observation, ObservedWorkload, Plan, Step, Subject,
    modes, plan,
};
use crate::switching::{AgentPod, AgentWorkload, NodeState, NodeStates, SwitchPlan, Targets};

/// More reconciles than any change of a spec takes.
const ROUNDS: usize = 40;

/// The node of a cluster of which no node is known. It is every agent's.
const ANY_NODE: &str = "(any node)";

/// A cluster in which nothing is left to do, and how it came to that.
pub(super) struct Settled<'a> {
    /// The cluster.
    pub(super) cluster: Imagined<'a>,
    /// What is rendered for it.
    pub(super) desired: Desired,
    /// The last plan.
    pub(super) plan: Plan,
    /// A mode whose agents were brought up to date before those of the wanted mode were made.
    pub(super) first: Option<Mode>,
}

/// What would be observed.
#[derive(Clone)]
pub(super) struct Imagined<'a> {
    pub(super) observation: Observation<'a>,
    /// The object, with the status that it would have.
    agent: OtelAgent,
}

impl<'a> Imagined<'a> {
    /// The cluster as observed, but with every agent ready.
    pub(super) fn of(observation: &Observation<'a>) -> Self {
        let mut observation = observation.clone();
        observation.unconfirmed.clear();
        if observation.nodes.is_empty() {
            let node = NodeState {
                ready: true,
                ..NodeState::default()
            };
            let nodes = [(ANY_NODE.to_owned(), Arc::new(node))];
            observation.nodes = Arc::new(nodes.into());
        }
        for found in observation.workloads.values_mut() {
            found.workload = ready(&found.object, &observation.nodes);
        }
        Self {
            agent: observation.agent.clone(),
            observation,
        }
    }

    /// The same once no pod uses another mode than this one.
    pub(super) fn without_users_of_others(mut self, mode: Mode) -> Self {
        let others = Mode::ALL.into_iter().filter(|other| *other != mode);
        let unused = others.map(|other| (other, false));
        self.observation.used.extend(unused);
        self
    }

    /// Reconciles until nothing is left to do, and nothing to wait for but pods.
    pub(super) fn settle(mut self, subject: &Subject<'_>, engines: &Engines<'_>) -> Settled<'a> {
        let (mut first, mut rounds) = (None, 0);
        loop {
            rounds += 1;
            let (desired, plan) = self.plan(subject, engines);
            plan.steps.iter().for_each(|step| self.carry_out(step));
            let is_news = self.report(&plan);
            first = first.or(plan.switch.as_ref().and_then(|switch| switch.first));
            let is_idle = !is_news && plan.steps.iter().all(writes_nothing);
            if rounds == ROUNDS || is_idle && plan.requeue_after.is_none() {
                return Settled {
                    cluster: self,
                    desired,
                    plan,
                    first,
                };
            }
            if let Some(wait) = plan.requeue_after.filter(|_| is_idle) {
                let now = self.observation.now;
                self.observation.now = now.checked_add(wait).unwrap_or(now);
            }
        }
    }

    /// What one reconcile renders and plans.
    pub(super) fn plan(&self, subject: &Subject<'_>, engines: &Engines<'_>) -> (Desired, Plan) {
        let observation = Observation {
            agent: &self.agent,
            ..self.observation.clone()
        };
        let modes = modes(&observation, subject);
        let desired = build(subject.valid, subject.environment, modes);
        let plan = plan(&observation, subject, &desired, engines);
        (desired, plan)
    }

    /// Writes the status as far as the next plan reads it, and says whether it is another one.
    fn report(&mut self, plan: &Plan) -> bool {
        let before = self.agent.status.clone();
        let status = self.agent.status.get_or_insert_default();
        let switch = plan.switch.as_ref();
        status.mode = switch.and_then(|switch| switch.serving);
        status.paths = switch.map(SwitchPlan::node_modes).unwrap_or_default();
        self.agent.status != before
    }

    fn carry_out(&mut self, step: &Step) {
        let observation = &mut self.observation;
        match step {
            Step::Apply(intent) => self.apply(intent),
            Step::WritePolicy(intent) => self.store(intent),
            Step::Verify(verification) => self.store(&verification.canary),
            Step::Activate(activation) => {
                let (intent, active) = activation.at(observation.now);
                observation.active = active;
                self.store(&intent);
                activation
                    .warnings
                    .iter()
                    .for_each(|warning| self.store(warning));
            }
            Step::Retire(retirement) => self.delete(&retirement.objects),
            Step::Withdraw(objects) => {
                observation.active = Active::default();
                self.delete(objects);
            }
            Step::Remove(removal) => {
                observation.workloads.remove(&removal.mode);
                if removal.objects.iter().any(|(kind, _)| *kind == "Service") {
                    observation.service = None;
                }
            }
            Step::CutOver(_) | Step::Confirm(_) => {}
        }
    }

    /// Writes an object of the `OtelAgent`'s own namespace.
    fn apply(&mut self, intent: &Intent) {
        let observation = &mut self.observation;
        let object = intent.body.clone();
        let mode = object["metadata"]["labels"][names::LABEL_WORKLOAD].as_str();
        let mode = mode.and_then(Mode::parse);
        match (intent.kind, mode) {
            ("DaemonSet", Some(mode)) => {
                let annotations = &object["metadata"]["annotations"];
                let since = annotations[names::ANNOTATION_UNUSED_SINCE].as_str();
                let workload = ObservedWorkload {
                    workload: ready(&object, &observation.nodes),
                    unused_since: since.and_then(|since| since.parse().ok()),
                    written_by: None,
                    object,
                };
                observation.workloads.insert(mode, workload);
            }
            _ => observation.service = Some(object),
        }
    }

    /// Writes a cluster-scoped object.
    fn store(&mut self, intent: &Intent) {
        let admission = &mut self.observation.admission;
        admission.retain(|object| object.kind != intent.kind || object.name != intent.name);
        admission.push(AdmissionObject {
            kind: intent.kind,
            name: intent.name.clone(),
            uid: None,
            is_ours: true,
            object: intent.body.clone(),
        });
    }

    fn delete(&mut self, objects: &[AdmissionObject]) {
        let is_deleted = |object: &AdmissionObject| {
            let mut deleted = objects.iter();
            deleted.any(|other| other.kind == object.kind && other.name == object.name)
        };
        let admission = &mut self.observation.admission;
        admission.retain(|object| !is_deleted(object));
    }
}

fn writes_nothing(step: &Step) -> bool {
    matches!(step, Step::CutOver(_) | Step::Confirm(_))
}

/// A `DaemonSet` with a ready agent on each node that it targets.
fn ready(object: &Value, nodes: &NodeStates) -> AgentWorkload {
    let object: DaemonSet = serde_json::from_value(object.clone()).unwrap_or_default();
    let template = template_label(&object).unwrap_or_default();
    let pod = |node: &str| AgentPod {
        name: format!("agent of {node}"),
        node: Some(node.to_owned()),
        ready: true,
        waits_for: None,
        template: Some(template.to_owned()),
    };
    let targets = if nodes.contains_key(ANY_NODE) {
        Targets::default()
    } else {
        Targets::of(&object)
    };
    let targeted = nodes
        .iter()
        .filter(|(name, node)| targets.leaves_out(name, node).is_none());
    let pods: Vec<AgentPod> = targeted.map(|(name, _)| pod(name)).collect();
    AgentWorkload {
        observed: true,
        desired: i32::try_from(pods.len()).unwrap_or(i32::MAX),
        template: template.to_owned(),
        pods,
        targets,
        ..AgentWorkload::default()
    }
}
