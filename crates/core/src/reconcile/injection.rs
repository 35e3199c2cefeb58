//! The steps that change injection: verify on the canary, activate, confirm, retire old objects.
//!
//! A wrong policy would break the creation of every selected pod, whatever its failure policy. So a policy
//! first acts only on dry-run pods of the canary namespace, and becomes active when the API server's result
//! equals the pure function's. The same applies to webhook configurations.

use std::collections::BTreeMap;
use std::time::Duration;

use otelagent_api::ResourceExt;
use serde_json::Value;

use super::active::Active;
use super::observation::{Observation, Subject};
use super::step::{
    Activation, AdmissionObject, Confirmation, Expectation, Intent, KEEP_ENGINE, KEEP_OLD, Plan,
    Retirement, Step, Verification,
};
use crate::build::{Engine, Environment, is_as_wanted, may_select, selection};
use crate::inject::difference::Judgement;
use crate::inject::kinds::{
    ADMISSION_KINDS, BINDING, POLICY, WARNING, WARNING_BINDING, WEBHOOK_CONFIGURATION,
};
use crate::inject::policy::{self, PolicyError, PolicyInput, Rendered};
use crate::inject::{Recipe, Selection, canary};
use crate::names;
use crate::status::InjectionState;
use crate::switching::remaining;

/// An available engine.
pub trait Render: Send + Sync {
    /// Which one.
    fn engine(&self) -> Engine;

    /// Renders its objects for a recipe.
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

/// The engine that injects, or why it cannot: a stable reason and a message.
pub type Engines<'a> = Result<&'a dyn Render, (&'static str, String)>;

/// The kind of object that activates an engine for users' pods.
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

/// The steps that make `recipe` the active one; without a recipe no mode serves yet.
pub(super) fn activate(
    observation: &Observation<'_>,
    subject: &Subject<'_>,
    engines: &Engines<'_>,
    recipe: Option<&Recipe>,
    selection: &Selection,
) -> Plan {
    let failed = |reason, message| Plan::only(InjectionState::Failed { reason, message });
    let engine = match engines {
        Ok(engine) => engine,
        Err((reason, message)) => return failed(reason, message.clone()),
    };
    let Some(recipe) = recipe else {
        return Plan::only(InjectionState::WaitingForAgents);
    };
    let valid = subject.valid;
    let rendered = engine.render(&PolicyInput {
        exclusions: observation.exclusions.clone(),
        canary_namespace: subject.canary_namespace.into(),
        owner_reference: subject.installation.cloned(),
        ..valid.policy_input(subject.environment, recipe.clone(), selection)
    });
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(error) => return failed("PolicyTooLarge", error.to_string()),
    };
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
    plan
}

/// Removes injection if no workloads are selected.
pub(super) fn withdraw(observation: &Observation<'_>) -> Plan {
    let mut plan = Plan::only(InjectionState::NotWanted);
    let owned = ADMISSION_KINDS.map(|kind| observation.owned(kind));
    let objects: Vec<_> = owned.into_iter().flatten().cloned().collect();
    if !objects.is_empty() {
        plan.steps.push(Step::Withdraw(objects));
    }
    plan
}

/// The plan for a refused spec: the last valid topology keeps running, and the operator asks the API server
/// whether injection still works. Only what its namespace may not do any more ends: injection elsewhere, once
/// it is no platform namespace.
pub fn plan_refused(observation: &Observation<'_>, environment: &Environment) -> Plan {
    let active = &observation.active;
    let namespace = observation.agent.namespace().unwrap_or_default();
    let is_revoked = |selection: &Selection| !may_select(&namespace, selection, environment);
    if active.selection.as_ref().is_some_and(is_revoked) {
        return Plan {
            injection: InjectionState::Revoked,
            ..withdraw(observation)
        };
    }
    if active.policy.is_some() {
        let mut plan = Plan::only(InjectionState::Unknown);
        plan.steps.push(Step::Confirm(Confirmation {
            probe: canary::active_probe(&observation.label()),
            expected: Expectation::Hash(active.recipe.clone().unwrap_or_default()),
        }));
        return plan;
    }
    let wanted = selection(observation.agent);
    Plan::only(match observation.last_mode() {
        Some(_) if wanted.as_ref().is_some_and(is_revoked) => InjectionState::Revoked,
        Some(_) => InjectionState::NotWanted,
        None => InjectionState::WaitingForAgents,
    })
}

/// The state of injection if a new policy did not pass its verification. An unverified policy may make every
/// selected pod inadmissible, so it is not bound either if others refuse the pods that would verify it.
pub fn after_verification(
    observation: &Observation<'_>,
    canary_namespace: &str,
    judgement: Judgement,
) -> Option<InjectionState> {
    let stays = match observation.active.policy {
        Some(_) => "the previous one stays active",
        None => "nothing is injected yet",
    };
    let (reason, message) = match judgement {
        Judgement::AsExpected => return None,
        Judgement::Wrong(why) => (
            "VerificationFailed",
            format!("a new policy failed its verification and was not bound; {stays}: {why}"),
        ),
        Judgement::Refused(why) => {
            let refused = refused(canary_namespace, &why);
            let message =
                format!("a new policy could not be verified and was not bound; {stays}: {refused}");
            ("CanaryRefused", message)
        }
    };
    Some(InjectionState::Failed { reason, message })
}

/// Who refuses the canary pods, and what to do about it. A pod's name is in what admission says; without it the API
/// server has not come so far.
fn refused(canary_namespace: &str, why: &str) -> String {
    let again = "apply manifests/default again (with Helm, upgrade the release)";
    if why.starts_with("pods is forbidden") {
        return format!(
            "the operator may not create pods of namespace {canary_namespace} by dry run; {again}: {why}"
        );
    }
    if why.starts_with("namespaces ") && why.ends_with("not found") {
        return format!("the canary namespace {canary_namespace} does not exist; {again}");
    }
    if why.ends_with("because it is being terminated") {
        return format!(
            "the canary namespace {canary_namespace} is being deleted; once it is gone, {again}: {why}"
        );
    }
    format!(
        "pods of the canary namespace are refused with or without otelagent; exempt namespace {canary_namespace} \
         from what refuses them: {why}"
    )
}

/// The state of injection after a dry run of the active binding.
pub fn after_confirmation(
    observation: &Observation<'_>,
    canary_namespace: &str,
    judgement: Judgement,
) -> InjectionState {
    match judgement {
        Judgement::AsExpected => InjectionState::Active,
        Judgement::Wrong(why) => InjectionState::Failed {
            reason: "NotActive",
            message: format!("a pod created by dry run was not injected as it should be: {why}"),
        },
        // Users' pods that others do not refuse are injected as before.
        Judgement::Refused(why) => InjectionState::Unconfirmed {
            was_active: observation.was_active(),
            message: refused(canary_namespace, &why),
        },
    }
}

/// The intent of a cluster-scoped object.
fn intent(observation: &Observation<'_>, kind: &'static str, body: Value) -> Intent {
    let name = body["metadata"]["name"].as_str().unwrap_or_default();
    let live = observation.admission_object(kind, name);
    let ours = live.filter(|live| live.is_ours);
    Intent::sealed(kind, body, ours.map(|live| &live.object))
}

/// The same, unless the object already equals the intent.
fn write(observation: &Observation<'_>, kind: &'static str, body: &Value) -> Option<Intent> {
    let intent = intent(observation, kind, body.clone());
    (!is_done(observation, &intent)).then_some(intent)
}

fn is_done(observation: &Observation<'_>, intent: &Intent) -> bool {
    let live = observation.admission_object(intent.kind, &intent.name);
    live.is_some_and(|live| live.is_ours && is_as_wanted(&live.object, &intent.body))
}

/// Moves the binding, or restores it if somebody has changed it; `None` if it needs no change.
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
    let second_ports = subject.valid.second_ports.is_some();
    if second_ports {
        annotations[names::ANNOTATION_SECOND_PORTS] = "true".into();
    }
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    let live = observation.admission_object(kind, name);
    let warnings = [WARNING, WARNING_BINDING].iter().zip(&rendered.warnings);
    let activation = Activation {
        kind,
        live: live
            .filter(|live| live.is_ours)
            .map(|live| live.object.clone()),
        binding,
        active: Active {
            mode: Some(recipe.mode),
            recipe: Some(recipe.hash()),
            selection: subject.valid.selection.clone(),
            policy: Some(rendered.name.clone()),
            bound_at: before.bound_at.filter(|_| !moves),
            reason: Some(reason),
            written_by: Some(version),
            second_ports,
        },
        warnings: warnings
            .filter_map(|(kind, body)| write(observation, kind, body))
            .collect(),
    };
    // Without a move the time of binding is known, so the whole object is.
    let (intended, _) = activation.at(observation.now);
    let is_complete = is_done(observation, &intended) && activation.warnings.is_empty();
    let is_settled = is_complete && !activation.moves();
    (!is_settled).then(|| Step::Activate(Box::new(activation)))
}

/// The cause of a changed recipe: another version of the operator if the spec is unchanged.
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

/// Probes the real binding. While objects of the other engine exist, which may fail, probes only the new
/// engine.
fn confirmation(
    observation: &Observation<'_>,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
) -> Step {
    let others = observation.owned(binding_kind(other(engine))).next();
    let probe = match others {
        None => canary::active_probe(&recipe.agent),
        Some(_) => canary::engine_pod(&rendered.hash),
    };
    Step::Confirm(Confirmation {
        probe,
        expected: Expectation::Recipe(Box::new(recipe.clone())),
    })
}

/// The old objects, once every API server must have seen the binding move or know the new engine; else the time
/// until then.
fn retirement(
    observation: &Observation<'_>,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
) -> (Option<Step>, Option<Duration>) {
    let active = &observation.active;
    let others = observation.owned(binding_kind(other(engine)));
    let others: Vec<_> = others
        .map(|binding| (binding, time_to_keep(active, binding)))
        .collect();
    let bound = others
        .iter()
        .map(|(binding, keep)| (policy_of(binding), *keep));
    let bound: BTreeMap<&str, Duration> = bound.collect();
    let policies = observation.owned(POLICY);
    let policies = policies
        .filter(|policy| Some(&policy.name) != active.policy.as_ref())
        .map(|policy| (policy, *bound.get(&*policy.name).unwrap_or(&KEEP_OLD)));
    let left = |keep: Duration| match active.bound_at {
        Some(at) => remaining(at, observation.now, keep),
        None => Some(keep),
    };
    let is_due = |(_, keep): &(&AdmissionObject, Duration)| left(*keep).is_none();
    let ends_engine = others.iter().any(is_due);
    let (due, kept): (Vec<_>, Vec<_>) = others.iter().copied().chain(policies).partition(is_due);
    let wait = kept.into_iter().filter_map(|(_, keep)| left(keep)).min();
    let retirement = Retirement {
        objects: due.into_iter().map(|(object, _)| object.clone()).collect(),
        alone: ends_engine.then(|| (canary::engine_pod(&rendered.hash), Box::new(recipe.clone()))),
    };
    let step = (!retirement.objects.is_empty()).then_some(Step::Retire(retirement));
    (step, wait)
}

/// How long a binding of the other engine stays. One that gives pods something else than the active binding helps no
/// server.
fn time_to_keep(active: &Active, binding: &AdmissionObject) -> Duration {
    let annotations = binding.object["metadata"]["annotations"].clone();
    let annotations = serde_json::from_value(annotations).unwrap_or_default();
    let given = Active::read(&annotations, None);
    if given.recipe == active.recipe && given.selection == active.selection {
        KEEP_ENGINE
    } else {
        KEEP_OLD
    }
}

/// The policy that a binding binds; empty for a webhook configuration.
fn policy_of(binding: &AdmissionObject) -> &str {
    let policy = binding.object["spec"]["policyName"].as_str();
    policy.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_of_canary_pods_says_what_to_do_about_its_cause() {
        for (why, todo) in [
            (
                "pods is forbidden: User \"o\" cannot create resource \"pods\" in API group \"\" in the namespace \"c\"",
                "may not create pods",
            ),
            (
                "namespaces \"c\" not found",
                "does not exist; apply manifests/default",
            ),
            (
                "pods \"p\" is forbidden: unable to create new content in namespace c because it is being terminated",
                "is being deleted",
            ),
            (
                "pods \"p\" is forbidden: violates PodSecurity",
                "exempt namespace c",
            ),
        ] {
            let said = refused("c", why);
            assert!(said.contains(todo), "{said}");
        }
    }
}
