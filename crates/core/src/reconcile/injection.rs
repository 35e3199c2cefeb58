//! The steps that change what is injected: verify on the canary, activate, confirm, retire what is left.
//!
//! A badly rendered policy would break the creation of every selected pod, whatever its failure policy. So a
//! policy acts first on dry-run pods of the canary namespace only, and becomes active when the API server's
//! answer equals the pure function's. Webhook configurations go the same way.

use std::time::Duration;

use serde_json::Value;

use super::active::Active;
use super::observation::{Observation, Subject};
use super::step::{
    Activation, Confirmation, Expectation, Intent, KEEP_OLD, Plan, Retirement, Step, Verification,
};
use crate::build::{Engine, is_as_wanted};
use crate::inject::kinds::{
    ADMISSION_KINDS, BINDING, POLICY, WARNING, WARNING_BINDING, WEBHOOK_CONFIGURATION,
};
use crate::inject::policy::{self, PolicyError, PolicyInput, Rendered};
use crate::inject::{Recipe, Selection, canary};
use crate::names;
use crate::status::InjectionState;
use crate::switching::remaining;

/// An engine that can be used now.
pub trait Render: Send + Sync {
    /// Which one.
    fn engine(&self) -> Engine;

    /// What it makes of a recipe.
    ///
    /// # Errors
    /// If the API server would refuse it for its size.
    fn render(&self, input: &PolicyInput) -> Result<Rendered, PolicyError>;
}

/// Admission policies as an engine.
pub struct PolicyEngine;

impl Render for PolicyEngine {
    fn engine(&self) -> Engine {
        Engine::Policy
    }

    fn render(&self, input: &PolicyInput) -> Result<Rendered, PolicyError> {
        policy::render(input)
    }
}

/// The engine that injects, or what keeps it from being used: a stable reason and a message.
pub type Engines<'a> = Result<&'a dyn Render, (&'static str, String)>;

/// The kind that lets an engine act on users' pods.
pub fn binding_kind(engine: Engine) -> &'static str {
    match engine {
        Engine::Policy => BINDING,
        Engine::Webhook => WEBHOOK_CONFIGURATION,
    }
}

/// The engine that is not used.
pub fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Policy => Engine::Webhook,
        Engine::Webhook => Engine::Policy,
    }
}

/// What makes `recipe` the active one; without a recipe no mode serves yet.
pub(super) fn activate(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    engines: &Engines<'_>,
    recipe: Option<&Recipe>,
    selection: &Selection,
) -> Result<Plan, PolicyError> {
    let Some(recipe) = recipe else {
        return Ok(Plan::only(InjectionState::WaitingForAgents));
    };
    let engine = match engines {
        Ok(engine) => engine,
        Err((reason, message)) => {
            return Ok(Plan::only(InjectionState::Failed {
                reason,
                message: message.clone(),
            }));
        }
    };
    let valid = subject.valid;
    let rendered = engine.render(&PolicyInput {
        exclusions: observation.exclusions.clone(),
        canary_namespace: subject.canary_namespace.into(),
        owner_reference: subject.installation.cloned(),
        ..valid.policy_input(subject.environment, recipe.clone(), selection)
    })?;
    let moves = observation.active.policy.as_ref() != Some(&rendered.name);
    let mut plan = Plan::only(InjectionState::Unknown);
    let steps = &mut plan.steps;
    if let Some(policy) = &rendered.policy {
        steps.extend(write(observation, POLICY, policy).map(Step::WritePolicy));
    }
    let engine = engine.engine();
    let kind = binding_kind(engine);
    if moves {
        steps.push(Step::Verify(Box::new(Verification {
            canary: intent(observation, kind, rendered.canary.clone()),
            probes: canary::probe_pods(recipe, &rendered.hash),
            recipe: recipe.clone(),
        })));
    }
    let activation = activation(observation, subject, kind, &rendered, recipe, moves);
    steps.extend(activation);
    steps.push(confirmation(observation, engine, &rendered, recipe));
    if !moves {
        let (retire, wait) = retirement(observation, engine, &rendered, recipe);
        steps.extend(retire);
        plan.requeue_after = wait;
    }
    Ok(plan)
}

/// Takes injection away where no workloads are selected.
pub(super) fn withdraw(observation: &Observation<'_>) -> Plan {
    let mut plan = Plan::only(InjectionState::NotWanted);
    let owned = ADMISSION_KINDS.map(|kind| observation.owned(kind));
    let objects: Vec<_> = owned.into_iter().flatten().cloned().collect();
    if !objects.is_empty() {
        plan.steps.push(Step::Withdraw(objects));
    }
    plan
}

/// The plan for a spec that was refused: the last good topology keeps running, and the API server is asked
/// whether it still injects.
pub fn plan_refused(observation: &Observation<'_>) -> Plan {
    let active = &observation.active;
    if active.policy.is_some() {
        let mut plan = Plan::only(InjectionState::Unknown);
        plan.steps.push(Step::Confirm(Confirmation {
            probe: canary::in_force_pod(&observation.label()),
            expected: Expectation::Hash(active.recipe.clone().unwrap_or_default()),
        }));
        return plan;
    }
    Plan::only(match observation.last_mode() {
        Some(_) => InjectionState::NotWanted,
        None => InjectionState::WaitingForAgents,
    })
}

/// The intent of a cluster-scoped object.
fn intent(observation: &Observation<'_>, kind: &'static str, body: Value) -> Intent {
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    let live = observation.admission_object(kind, name);
    Intent::sealed(kind, body, live.is_some_and(|live| live.is_ours))
}

/// The same, unless the object already is as wanted.
fn write(observation: &Observation<'_>, kind: &'static str, body: &Value) -> Option<Intent> {
    let intent = intent(observation, kind, body.clone());
    (!is_done(observation, &intent)).then_some(intent)
}

fn is_done(observation: &Observation<'_>, intent: &Intent) -> bool {
    let live = observation.admission_object(intent.kind, &intent.name);
    live.is_some_and(|live| live.is_ours && is_as_wanted(&live.object, &intent.body))
}

/// Moves the binding, or puts it right where somebody changed it; `None` where nothing differs.
fn activation(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    kind: &'static str,
    rendered: &Rendered,
    recipe: &Recipe,
    moves: bool,
) -> Option<Step> {
    let before = &observation.active;
    let reason = before.reason.clone().filter(|_| !moves);
    let reason = reason.unwrap_or_else(|| reason_of_change(observation, subject));
    let version = subject.environment.operator_version.clone();
    let mut binding = rendered.binding.clone();
    let annotations = &mut binding["metadata"]["annotations"];
    annotations[names::ANNOTATION_REASON] = reason.clone().into();
    annotations[names::ANNOTATION_OPERATOR] = version.clone().into();
    annotations[names::ANNOTATION_RECIPE] = recipe.hash().into();
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    let live = observation.admission_object(kind, name);
    let warnings = [WARNING, WARNING_BINDING].iter().zip(&rendered.warnings);
    let activation = Activation {
        kind,
        is_ours: live.is_some_and(|live| live.is_ours),
        binding,
        active: Active {
            mode: Some(recipe.mode),
            recipe: Some(recipe.hash()),
            selection: subject.valid.selection.clone(),
            policy: Some(rendered.name.clone()),
            bound_at: before.bound_at.filter(|_| !moves),
            reason: Some(reason),
            written_by: Some(version),
        },
        warnings: warnings
            .filter_map(|(kind, body)| write(observation, kind, body))
            .collect(),
    };
    // Without a move the moment is known, and so is the whole object.
    let (intended, _) = activation.at(observation.now);
    let is_complete = is_done(observation, &intended) && activation.warnings.is_empty();
    let is_settled = is_complete && !activation.moves();
    (!is_settled).then(|| Step::Activate(Box::new(activation)))
}

/// What a change of the recipe is due to: where the spec is as it was, another version of the operator.
fn reason_of_change(observation: &Observation<'_>, subject: &Subject<'_>) -> String {
    let generation = observation.agent.metadata.generation;
    let status = observation.agent.status.as_ref();
    let was_seen = status.is_some_and(|status| status.observed_generation == generation);
    let version = &subject.environment.operator_version;
    match observation.active.written_by.as_deref() {
        Some(before) if was_seen && before != version => {
            format!("the upgrade of the operator from {before} to {version}")
        }
        _ => format!("generation {} of its spec", generation.unwrap_or_default()),
    }
}

/// Asks through the real binding. While the other engine's objects exist, which may have failed, only the
/// new one is asked.
fn confirmation(
    observation: &Observation<'_>,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
) -> Step {
    let others = observation.owned(binding_kind(other(engine))).next();
    let probe = match others {
        None => canary::in_force_pod(&recipe.agent),
        Some(_) => canary::engine_pod(&rendered.hash),
    };
    Step::Confirm(Confirmation {
        probe,
        expected: Expectation::Recipe(Box::new(recipe.clone())),
    })
}

/// What the binding has left, once every API server must have seen it move; else how long until then.
fn retirement(
    observation: &Observation<'_>,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
) -> (Option<Step>, Option<Duration>) {
    let active = &observation.active;
    let bindings = observation.owned(binding_kind(other(engine))).cloned();
    let mut objects: Vec<_> = bindings.collect();
    let alone = (!objects.is_empty())
        .then(|| (canary::engine_pod(&rendered.hash), Box::new(recipe.clone())));
    let policies = observation.owned(POLICY);
    let unbound = policies.filter(|policy| Some(&policy.name) != active.policy.as_ref());
    objects.extend(unbound.cloned());
    if objects.is_empty() {
        return (None, None);
    }
    let wait = active.bound_at.map_or(Some(KEEP_OLD), |at| {
        remaining(at, observation.now, KEEP_OLD)
    });
    let retire = wait
        .is_none()
        .then_some(Step::Retire(Retirement { objects, alone }));
    (retire, wait)
}
