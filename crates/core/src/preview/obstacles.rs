//! What prevents a change, and what to look at before it.

use std::collections::BTreeSet;
use std::fmt;

use otelagent_api::ResourceExt;

use super::imagined::Settled;
use super::input::PreviewInput;
use crate::advise::{ClusterFact, Effect, Judged, ModeReason, Needs, RULES};
use crate::build::{NodePorts, PortUser, Problem, ValidAgent, port_problem};
use crate::reconcile::outcome::{namespace_limits, selects_nothing};
use crate::reconcile::plan::workload_state;
use crate::reconcile::{AdmissionObject, Observation, Step};
use crate::status::{InjectionState, NamespaceLimit};
use crate::switching::WorkloadState;

/// What prevents a change, or what to look at. [`fmt::Display`] says what it is and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The API server refuses the object: it says this.
    RefusedByServer(String),
    /// The operator refuses the spec.
    Refused(Problem),
    /// The cluster does not offer what the mode needs.
    Prevented(ModeReason),
    /// Somebody else has an object with a name that the operator needs.
    NameTaken {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Nothing can be injected: a stable word and a message.
    NotInjected(&'static str, String),
    /// The mode would never serve, for these reasons.
    NeverServes(String),
    /// Agents that are there already are not ready, and the change waits for them.
    AgentsNotReady(String),
    /// The cluster is not the best for the mode.
    Unfavourable(ModeReason),
    /// A namespace would refuse pods because of the sidecar.
    Limit(NamespaceLimit),
    /// Older `OtelAgent`s select the same pods and take precedence.
    Preceded(Vec<String>),
    /// No namespace is selected: what to do.
    SelectsNothing(String),
}

impl Obstacle {
    /// Whether the change must not, or cannot, be made before it is removed.
    pub fn is_blocker(&self) -> bool {
        match self {
            Self::RefusedByServer(_)
            | Self::Refused(_)
            | Self::Prevented(_)
            | Self::NameTaken { .. }
            | Self::NotInjected(..)
            | Self::NeverServes(_) => true,
            Self::AgentsNotReady(_)
            | Self::Unfavourable(_)
            | Self::Limit(_)
            | Self::Preceded(_)
            | Self::SelectsNothing(_) => false,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedByServer(why) => write!(f, "the API server refuses it: {why}"),
            Self::Refused(problem) => f.write_str(&problem.message),
            Self::Prevented(reason) | Self::Unfavourable(reason) => match reason.remedy() {
                Some(remedy) => write!(f, "{reason}; {remedy}"),
                None => reason.fmt(f),
            },
            Self::NameTaken { kind, name } => write!(
                f,
                "{kind} {name} is not the operator's, which never changes it; rename or remove it"
            ),
            Self::NotInjected(_, why) => f.write_str(why),
            Self::NeverServes(why) => write!(f, "the mode would never serve: {why}"),
            Self::AgentsNotReady(why) => {
                write!(
                    f,
                    "agents of the mode are not ready, and new pods wait for them: {why}"
                )
            }
            Self::Limit(limit) => write!(
                f,
                "namespace {} would refuse new pods with the sidecar: {} {}; change it, or agent.resources",
                limit.namespace, limit.object, limit.breach
            ),
            Self::Preceded(others) => write!(
                f,
                "{} select some of the same pods and take precedence, since they are older; select other pods",
                others.join(", ")
            ),
            Self::SelectsNothing(todo) => f.write_str(todo),
        }
    }
}

/// What refuses the changed object before anything is planned.
pub(super) fn refusals(input: &PreviewInput<'_>, problems: Vec<Problem>) -> Vec<Obstacle> {
    let refused = input
        .refusal
        .map(|why| Obstacle::RefusedByServer(why.to_owned()));
    let ports = problems
        .is_empty()
        .then(|| taken_by_others(input))
        .flatten();
    let problems = problems.into_iter().chain(ports).map(Obstacle::Refused);
    refused.into_iter().chain(problems).collect()
}

/// Ports of the nodes that another `OtelAgent` has.
fn taken_by_others(input: &PreviewInput<'_>) -> Option<Problem> {
    let agent = input.observation.agent;
    let wanted = NodePorts::wanted(&agent.spec)?;
    let created = agent.metadata.creation_timestamp.as_ref();
    let running = input
        .observation
        .workloads
        .iter()
        .filter_map(|(mode, found)| {
            let object = serde_json::from_value(found.object.clone()).ok()?;
            NodePorts::running(*mode, &object)
        });
    let me = PortUser {
        // One that does not exist yet is younger than all.
        created: created.map_or_else(|| "~".to_owned(), |created| created.0.to_string()),
        namespace: agent.namespace().unwrap_or_default(),
        name: agent.name_any(),
        running: running.collect(),
        wanted: Some(wanted),
    };
    port_problem(&me, agent.spec.ports, input.port_users)
}

/// What the rules say of the wanted mode in this cluster, and which facts they lack.
pub(super) fn of_cluster(
    input: &PreviewInput<'_>,
    needs: &Needs,
) -> (Vec<Obstacle>, BTreeSet<ClusterFact>) {
    let judged = Judged {
        option: input.wanted(),
        needs,
        facts: &input.known_facts(),
        sidecars: None,
    };
    let (mut obstacles, mut unknown) = (Vec::new(), BTreeSet::new());
    for rule in RULES.iter().filter(|rule| rule.reason.remedy().is_some()) {
        match rule.effect(&judged) {
            Some(Effect::Prevents) => obstacles.push(Obstacle::Prevented(rule.reason)),
            Some(Effect::Against) => obstacles.push(Obstacle::Unfavourable(rule.reason)),
            Some(Effect::Nothing | Effect::For | Effect::CallsFor) => {}
            None => unknown.extend(rule.fact),
        }
    }
    (obstacles, unknown)
}

/// What the operator would meet on its way.
pub(super) fn on_the_way(
    input: &PreviewInput<'_>,
    valid: &ValidAgent,
    first: &[Step],
    made: &Settled<'_>,
) -> Vec<Obstacle> {
    let observation = input.observation;
    let wanted = valid.wanted();
    let mut obstacles: Vec<Obstacle> = taken_names(observation, first).collect();
    if let InjectionState::Failed { reason, message } = &made.plan.injection {
        obstacles.push(Obstacle::NotInjected(reason, message.clone()));
    }
    let waits_for = |state: WorkloadState| {
        (!state.is_ready_everywhere()).then(|| state.waiting_for().join("; "))
    };
    let end = &made.cluster.observation;
    let never = workload_state(end, valid, &made.desired, wanted).and_then(waits_for);
    let now = observation.workloads.get(&wanted).and_then(|found| {
        let (nodes, template) = (&observation.nodes, &found.workload.template);
        waits_for(found.workload.state(nodes, template, valid.max_unready))
    });
    obstacles.extend(match (never, now) {
        (Some(why), _) => Some(Obstacle::NeverServes(why)),
        (None, now) => now.map(Obstacle::AgentsNotReady),
    });
    let limits = namespace_limits(observation, &input.subject(valid), &made.desired);
    obstacles.extend(limits.into_iter().map(Obstacle::Limit));
    if !observation.preceding.is_empty() {
        obstacles.push(Obstacle::Preceded(observation.preceding.clone()));
    }
    obstacles.extend(selects_nothing(observation, valid).map(Obstacle::SelectsNothing));
    obstacles
}

/// Objects of others whose names the first steps need.
fn taken_names(observation: &Observation<'_>, steps: &[Step]) -> impl Iterator<Item = Obstacle> {
    let written = steps.iter().filter_map(|step| match step {
        Step::Apply(intent) | Step::WritePolicy(intent) => Some(intent),
        _ => None,
    });
    let foreign = written.filter(|intent| !intent.is_ours);
    let foreign = foreign.filter(|intent| is_there(observation, intent.kind, &intent.name));
    foreign.map(|intent| Obstacle::NameTaken {
        kind: intent.kind.to_owned(),
        name: intent.name.clone(),
    })
}

fn is_there(observation: &Observation<'_>, kind: &str, name: &str) -> bool {
    let named = |object: &serde_json::Value| object["metadata"]["name"] == *name;
    match kind {
        "DaemonSet" => observation
            .workloads
            .values()
            .any(|found| named(&found.object)),
        "Service" => observation.service.as_ref().is_some_and(named),
        _ => {
            let admission: Option<&AdmissionObject> = observation.admission_object(kind, name);
            admission.is_some()
        }
    }
}
