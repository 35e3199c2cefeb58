//! One pass over one `OtelAgent`: observe, validate, plan, apply, report.
//!
//! Report runs on every outcome, so a mistake or a failure shows on the object and not only in a log.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use super::context::Context;
use super::error::ControllerError;
use super::injection::{self, Standing};
use super::observe::{self, InForce};
use super::stores::Guarded;
use super::{apply, bounds, fresh, report, restart, rivals};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{Object, Problem, ValidAgent, build, over_quota, validate};
use otelagent_core::in_full;
use otelagent_core::inject::environment::HOST_IP;
use otelagent_core::names;
use otelagent_core::status::{Facts, Failure, InjectionState, Upgrade};
use otelagent_core::switching::{Plan, Situation, WorkloadState, plan, used};

/// Longest pass; a client call has its own, shorter limit.
const DEADLINE: Duration = Duration::from_mins(1);
/// When a settled object is looked at again though nothing changed.
const RESYNC: Duration = Duration::from_mins(5);
/// When to look again at what the server does not bear out yet.
const SOON: Duration = Duration::from_secs(1);

/// One paced, bounded pass.
pub(crate) async fn reconcile(
    agent: Arc<Guarded>,
    context: Arc<Context>,
) -> Result<Action, ControllerError> {
    let agent = match &agent.0 {
        Ok(agent) => agent,
        Err(invalid) => {
            tracing::warn!(
                name = invalid.metadata.name,
                error = invalid.error,
                "a stored object cannot be read; left alone"
            );
            return Ok(Action::await_change());
        }
    };
    if agent.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let uid = agent.uid().unwrap_or_default();
    if let Some(left) = context.too_soon(&uid, agent.metadata.generation) {
        return Ok(Action::requeue(left));
    }
    let started = std::time::Instant::now();
    let outcome = bounded(Box::pin(pass(agent, &context))).await;
    context
        .metrics
        .reconciled(outcome.is_ok(), started.elapsed());
    outcome
}

/// Bounds what a pass may take, and keeps a mistake of ours to one object.
async fn bounded(
    pass: impl Future<Output = Result<Action, ControllerError>>,
) -> Result<Action, ControllerError> {
    let pass = AssertUnwindSafe(pass).catch_unwind();
    match tokio::time::timeout(DEADLINE, pass).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(ControllerError::Panicked),
        Err(_) => Err(ControllerError::Timeout {
            seconds: DEADLINE.as_secs(),
        }),
    }
}

async fn pass(agent: &OtelAgent, context: &Context) -> Result<Action, ControllerError> {
    let older = rivals::older(context, agent);
    if let Some(problem) = over_quota(agent, &context.environment, older) {
        let Ok(_turn) = context.crowd.try_acquire() else {
            let agents = context.stores.agents.len();
            return Ok(Action::requeue(in_a_crowd(agents, &agent.uid())));
        };
        let standing = injection::standing_alone(context, agent);
        return refuse(agent, vec![problem], &standing, context).await;
    }
    let standing = injection::standing(context, agent);
    match validate(agent, &context.environment) {
        Ok(valid) => carry_out(agent, &valid, &standing, context).await,
        Err(problems) => refuse(agent, problems, &standing, context).await,
    }
}

/// When to look again at one of too many of its namespace, while others of them are looked at: so that of all
/// that may wait two hundred come a second, more than get a turn and fewer than anybody feels. Each waits
/// otherwise long, or those that came at once would come again at once.
fn in_a_crowd(agents: usize, which: &impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    which.hash(&mut hasher);
    let percent = u32::try_from(hasher.finish() % 100).unwrap_or_default();
    let agents = u32::try_from(agents).unwrap_or(u32::MAX);
    let mean = Duration::from_millis(5).saturating_mul(agents).max(SOON);
    mean / 2 + mean * percent / 100
}

/// A spec that cannot be carried out: nothing is written but the status.
async fn refuse(
    agent: &OtelAgent,
    problems: Vec<Problem>,
    standing: &Standing,
    context: &Context,
) -> Result<Action, ControllerError> {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let in_force = &standing.in_force;
    let mode = in_force
        .mode
        .or_else(|| agent.status.as_ref().and_then(|status| status.mode));
    let endpoint = agent
        .status
        .as_ref()
        .and_then(|status| status.endpoint.clone())
        .unwrap_or_default();
    let stores = &context.stores;
    let selected = in_force.selection.clone();
    let injection = match (&in_force.policy, mode) {
        (Some(_), _) => injection::show_standing(context, agent, in_force).await?,
        (None, Some(_)) => InjectionState::NotWanted,
        (None, None) => InjectionState::WaitingForAgents,
    };
    let facts = Facts {
        now: Context::now(),
        generation: agent.metadata.generation,
        wanted: agent.spec.mode,
        problems,
        serving: mode.map(|mode| (mode, endpoint)),
        serving_workload: mode
            .and_then(|mode| observe::existing_workload(stores, &namespace, &name, mode)),
        wanted_workload: None,
        older_routes: Vec::new(),
        routes: standing_paths(agent),
        pods: observe::pods(
            stores,
            &context.environment,
            agent,
            in_force,
            selected.as_ref(),
            &standing.exclusions,
        ),
        injection,
        overlapping: standing.winners.clone(),
        namespace_limits: Vec::new(),
        recipe_reason: in_force.because.clone(),
        upgrade: None,
        restarts: None,
        failure: None,
    };
    report::report(agent, &facts, context).await?;
    Ok(Action::requeue(RESYNC))
}

/// A spec that can be carried out.
async fn carry_out(
    agent: &OtelAgent,
    valid: &ValidAgent,
    standing: &Standing,
    context: &Context,
) -> Result<Action, ControllerError> {
    let now = Context::now();
    let in_force = &standing.in_force;
    let pods = |in_force: &InForce| {
        observe::pods(
            &context.stores,
            &context.environment,
            agent,
            in_force,
            valid.selection.as_ref(),
            &standing.exclusions,
        )
    };
    let counted = pods(in_force);
    let observed = observed(agent, valid, in_force, counted.users.clone(), now, context);
    let mut decided = decide(agent, valid, in_force, observed, context).await?;
    let mut facts = Facts {
        now,
        generation: agent.metadata.generation,
        wanted: valid.wanted(),
        problems: Vec::new(),
        serving: None,
        serving_workload: None,
        wanted_workload: None,
        older_routes: decided.older_routes(valid.wanted()),
        routes: decided.node_modes(),
        pods: counted,
        injection: InjectionState::NotWanted,
        overlapping: standing.winners.clone(),
        namespace_limits: bounds::obstacles(&context.stores, valid, &context.environment),
        recipe_reason: None,
        upgrade: upgrade(valid, &decided, context),
        restarts: None,
        failure: None,
    };
    let mut outcome = write_objects(valid, &decided, context).await;
    let mut now_in_force = in_force.clone();
    if outcome.is_ok() {
        let ensured = injection::ensure(context, agent, valid, standing, decided.serving).await;
        match ensured {
            Ok(ensured) => {
                (facts.injection, now_in_force) = (ensured.state, ensured.in_force);
                decided.requeue_after = decided
                    .requeue_after
                    .into_iter()
                    .chain(ensured.look_again)
                    .min();
            }
            Err(error) => outcome = Err(error),
        }
    }
    if outcome.is_ok() {
        outcome = remove_objects(valid, &decided, context).await;
    }
    let serving = if valid.selection.is_some() {
        now_in_force.mode
    } else {
        decided.serving
    };
    describe(&mut facts, valid, serving, &decided, context);
    if now_in_force != *in_force {
        facts.pods = pods(&now_in_force);
    }
    if outcome.is_ok() {
        let again = restarts(agent, valid, &mut facts, &now_in_force, context).await;
        decided.requeue_after = decided.requeue_after.into_iter().chain(again).min();
    }
    facts.recipe_reason = now_in_force.because;
    if let Err(error) = &outcome {
        // What could not be removed stands.
        facts.routes.extend(standing_paths(agent));
        facts.routes.sort_unstable();
        facts.routes.dedup();
        facts.failure = Some(Failure {
            reason: error.reason(),
            message: in_full(error),
        });
    }
    report::report(agent, &facts, context).await?;
    outcome?;
    Ok(Action::requeue(next_look(&decided, &facts)))
}

/// The plan; where it sends pods elsewhere or takes something away, one that the server itself bears out.
async fn decide(
    agent: &OtelAgent,
    valid: &ValidAgent,
    in_force: &InForce,
    mut observed: Situation,
    context: &Context,
) -> Result<Plan, ControllerError> {
    let first = plan(&observed);
    let flips = first.serving != observed.serving;
    if !flips && first.remove.is_empty() {
        return Ok(first);
    }
    fresh::view(context, agent, valid, in_force).await?;
    for mode in &first.remove {
        let used = fresh::is_used(context, valid, *mode).await?;
        observed.users.insert(*mode, usize::from(used));
    }
    let unproved = flips && !fresh::workload_exists(context, valid, valid.wanted()).await?;
    observed.wanted_ready &= !unproved;
    let mut decided = plan(&observed);
    if unproved {
        tracing::debug!(
            name = valid.name,
            "the server does not have the agent workload as it was seen"
        );
        decided.requeue_after = Some(decided.requeue_after.map_or(SOON, |other| other.min(SOON)));
    }
    Ok(decided)
}

/// Restarts workloads where that is wanted, or ends it where it no longer is. Returns when to look again.
async fn restarts(
    agent: &OtelAgent,
    valid: &ValidAgent,
    facts: &mut Facts,
    in_force: &InForce,
    context: &Context,
) -> Option<Duration> {
    let were_wanted = || agent.status.as_ref()?.restarts.as_ref();
    if valid.at_a_time() > 0 {
        let (restarts, again) = restart::carry_out(context, valid, facts, in_force).await;
        facts.restarts = Some(restarts);
        again
    } else if were_wanted().is_some() {
        facts.restarts = restart::let_go(context, valid).await;
        facts.restarts.as_ref().map(|_| restart::WHILE_WAITING)
    } else {
        None
    }
}

fn observed(
    agent: &OtelAgent,
    valid: &ValidAgent,
    in_force: &InForce,
    users: BTreeMap<Mode, usize>,
    now: Timestamp,
    context: &Context,
) -> Situation {
    let wanted = valid.wanted();
    // Whoever owns an object may have written its status, too: what it says counts where it may be so.
    let is_platform = context.environment.is_platform(&valid.namespace);
    let may_be = |mode: &Mode| is_platform || !mode.on_nodes();
    let remembered = agent.status.as_ref().and_then(|status| status.mode);
    let serving = in_force.mode.or(remembered).filter(may_be);
    let workload = observe::workload_state(&context.stores, valid, &context.environment, wanted);
    let workloads = observe::workloads(&context.stores, &valid.namespace, &valid.name);
    let stood = standing_paths(agent).into_iter().filter(may_be);
    let known = stood.chain(serving).chain(workloads.keys().copied());
    Situation {
        now,
        wanted,
        serving,
        wanted_ready: workload.is_none_or(|workload| workload.is_ready_everywhere()),
        users: used(users, &known.collect()),
        workloads,
        outdated: observe::outdated(&context.stores, valid, &context.environment),
        hold_old: valid.hold_old,
    }
}

/// Node modes whose agents stood when the status was written last.
fn standing_paths(agent: &OtelAgent) -> Vec<Mode> {
    let status = agent.status.as_ref();
    status
        .map(|status| status.paths.clone())
        .unwrap_or_default()
}

/// Where pods are sent now, and what is so of the vehicles.
fn describe(
    facts: &mut Facts,
    valid: &ValidAgent,
    serving: Option<Mode>,
    decided: &Plan,
    context: &Context,
) {
    let state = |mode| observe::workload_state(&context.stores, valid, &context.environment, mode);
    let endpoint = |mode| {
        let mut desired = build(valid, &context.environment, [mode]);
        let endpoint = desired.modes.remove(&mode).map(|desired| desired.endpoint);
        endpoint
            .unwrap_or_default()
            .replace(&format!("$({HOST_IP})"), "<node address>")
    };
    facts.serving = serving.map(|mode| (mode, endpoint(mode)));
    facts.serving_workload = serving.and_then(state);
    facts.wanted_workload = (serving != Some(valid.wanted()))
        .then(|| match decided.first {
            Some(first) => Some(WorkloadState::pending(format!(
                "the agents of {first} are brought up to date first, so that every node has their image"
            ))),
            None => state(valid.wanted()).map(|workload| {
                if workload.is_ready_everywhere() && decided.serving != Some(valid.wanted()) {
                    WorkloadState::pending("its readiness is not confirmed yet")
                } else {
                    workload
                }
            }),
        })
        .flatten();
}

/// Modes whose agents are about to be replaced only because this operator is another version.
fn upgrade(valid: &ValidAgent, decided: &Plan, context: &Context) -> Option<Upgrade> {
    let environment = &context.environment;
    let replaced = |mode: &Mode| {
        let before = observe::replaced_version(&context.stores, valid, environment, *mode)?;
        Some((before, *mode))
    };
    let found: Vec<(String, Mode)> = decided.keep.keys().filter_map(replaced).collect();
    let (before, _) = found.first()?.clone();
    Some(Upgrade {
        before,
        version: environment.operator_version.clone(),
        modes: found.into_iter().map(|(_, mode)| mode).collect(),
    })
}

async fn write_objects(
    valid: &ValidAgent,
    decided: &Plan,
    context: &Context,
) -> Result<(), ControllerError> {
    let desired = build(valid, &context.environment, decided.keep.keys().copied());
    for (mode, desired) in desired.modes {
        let unused_since = decided.keep.get(&mode).copied().flatten();
        for object in desired.objects {
            let mut annotations = Vec::new();
            if matches!(object, Object::DaemonSet(_)) {
                let version = context.environment.operator_version.clone();
                annotations.push((names::ANNOTATION_OPERATOR, version));
                let moment = unused_since.map(|moment| moment.to_string());
                annotations.extend(moment.map(|at| (names::ANNOTATION_UNUSED_SINCE, at)));
            }
            let live = live(valid, &object, mode, context);
            if apply::object(&context.client, valid, &object, &annotations, live.as_ref()).await? {
                context.metrics.wrote(object.kind(), "apply");
            }
        }
    }
    Ok(())
}

/// The object of that name as the caches know it, whosever it is.
fn live(
    valid: &ValidAgent,
    object: &Object,
    mode: Mode,
    context: &Context,
) -> Option<serde_json::Value> {
    match object {
        Object::DaemonSet(_) => {
            let found = context
                .stores
                .daemon_set(&valid.namespace, &valid.name, mode)?;
            serde_json::to_value(found.as_ref()).ok()
        }
        Object::Service(_) => {
            let reference = ObjectRef::<Service>::new(object.name()).within(&valid.namespace);
            let found = context
                .stores
                .services
                .iter()
                .find_map(|store| store.get(&reference))?;
            serde_json::to_value(found.as_ref()).ok()
        }
    }
}

async fn remove_objects(
    valid: &ValidAgent,
    decided: &Plan,
    context: &Context,
) -> Result<(), ControllerError> {
    for mode in &decided.remove {
        // The proof of a policy may have taken its time meanwhile.
        if fresh::is_used(context, valid, *mode).await? {
            continue;
        }
        // The path first, then what it leads to.
        let desired = build(valid, &context.environment, [*mode]);
        let objects = desired
            .modes
            .values()
            .flat_map(|desired| desired.objects.iter());
        for object in objects.rev() {
            let Some(live) = live(valid, object, *mode, context) else {
                continue;
            };
            if apply::is_ours(&context.client, valid, object, &live).await? {
                apply::delete_object(&context.client, valid, object, &live).await?;
                context.metrics.wrote(object.kind(), "delete");
            }
        }
    }
    Ok(())
}

/// When to look again though nothing may have changed: what waits on time alone needs it.
fn next_look(decided: &Plan, facts: &Facts) -> Duration {
    let unproved = matches!(facts.injection, InjectionState::Failed { .. });
    let retry = if unproved {
        Duration::from_secs(30)
    } else {
        RESYNC
    };
    decided
        .requeue_after
        .map_or(retry, |sooner| sooner.min(retry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_one_objects_and_the_next_pass_is_made() {
        let panics = bounded(async { panic!("on purpose") }).await;
        assert!(panics.is_err_and(|error| error.reason() == "Panicked"));
        assert!(bounded(async { Ok(Action::await_change()) }).await.is_ok());
    }
}
