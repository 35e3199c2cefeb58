//! One reconcile of one `OtelAgent`: observe, validate, build, plan, execute, report.
//!
//! This module reports every exit: a refused spec, an error of any call, the deadline, a panic.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use otelagent_api::{Mode, OtelAgent, OtelAgentStatus};
use otelagent_core::build::{PORT_IN_USE, Problem, ValidAgent, build, over_quota, validate};
use otelagent_core::in_full;
use otelagent_core::names;
use otelagent_core::read::{Decoded, Unreadable};
use otelagent_core::reconcile::{
    Engines, Observation, Outcome, Subject, facts, modes, plan, plan_refused, refused,
};
use otelagent_core::status::{self, Delivery, Facts, Failure, Note, crd_fields};
use serde_json::json;

use super::context::Context;
use super::error::{ControllerError, Result};
use super::execute::execute;
use super::live::check_rights;
use super::observe::{node_port_problem, observe, older};
use super::restart;
use crate::delivery::Followed;

/// Time limit of a reconcile; a client call has its own, shorter limit.
const DEADLINE: Duration = Duration::from_mins(1);
/// Time limit of a report: one more chance for an API server that did not answer before.
const REPORT_DEADLINE: Duration = Duration::from_secs(15);
/// When an object whose ports another one has looks at them again.
const PORTS_AGAIN: Duration = Duration::from_secs(5);
/// Longest note of an event, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1000;

/// The progress of a reconcile.
#[derive(Default)]
struct Progress {
    /// The facts; empty before the plan is made.
    facts: Option<Facts>,
    /// Why it is not known which limits refuse a sidecar.
    limits_unknown: Option<String>,
    /// When to reconcile again even if nothing changes.
    requeue_after: Option<Duration>,
}

/// One reconcile with its pace, its time limit and its report.
pub(crate) async fn reconcile(agent: Arc<Decoded>, context: Arc<Context>) -> Result<Action> {
    if agent.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let agent = match &agent.agent {
        Ok(agent) => agent,
        Err(unreadable) => {
            left_alone(&agent, unreadable, &context).await?;
            return Ok(Action::await_change());
        }
    };
    let uid = agent.uid().unwrap_or_default();
    if let Some(left) = context.too_soon(&uid, agent.metadata.generation) {
        return Ok(Action::requeue(left));
    }
    let over_quota = over_quota(agent, &context.environment, older(&context.stores, agent));
    let _permit = match &over_quota {
        None => None,
        Some(_) => match context.over_quota.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                return Ok(Action::requeue(queue_time(
                    context.stores.agents.len(),
                    &uid,
                )));
            }
        },
    };
    let started = Instant::now();
    let mut progress = Progress::default();
    let attempt = Box::pin(attempt(agent, &context, over_quota, &mut progress));
    let outcome = bounded(DEADLINE, attempt).await;
    let failed = outcome.as_ref().err();
    if let Some(facts) = &mut progress.facts {
        facts.delivery = delivery(agent, facts, &context);
        facts.ca_problem.clone_from(&context.ca_problem.borrow());
        facts.limits_unknown = progress.limits_unknown.take();
    }
    let previous = agent.status.as_ref();
    let report = Box::pin(report(agent, previous, &context, progress.facts, failed));
    let reported = bounded(REPORT_DEADLINE, report).await;
    if let (Err(_), Err(error)) = (&outcome, &reported) {
        context.metrics.failed(error.reason());
        let (reason, error) = (error.reason(), in_full(error));
        tracing::warn!(
            reason,
            error,
            "the failure could not be written to the status"
        );
    }
    let is_success = outcome.is_ok() && reported.is_ok();
    context.metrics.reconciled(is_success, started.elapsed());
    outcome.and(reported)?;
    Ok(progress
        .requeue_after
        .map_or_else(Action::await_change, Action::requeue))
}

/// Reports an object that cannot be read. What it had keeps running.
async fn left_alone(object: &Decoded, unreadable: &Unreadable, context: &Context) -> Result<()> {
    let error = ControllerError::Unreadable(unreadable.why.clone());
    let (namespace, name) = (object.namespace(), object.name_any());
    context.metrics.failed(error.reason());
    tracing::warn!(namespace, name, %error, "a stored object is left alone");
    let previous = unreadable.status.as_ref();
    let report = report(object, previous, context, None, Some(&error));
    bounded(REPORT_DEADLINE, report).await
}

/// Limits the time of a future, and catches a panic so that it affects one object only.
async fn bounded(deadline: Duration, work: impl Future<Output = Result<()>>) -> Result<()> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(ControllerError::Panicked),
        Err(_) => Err(ControllerError::Timeout {
            seconds: deadline.as_secs(),
        }),
    }
}

/// When an over-quota object tries again while others are reconciled: of all that may wait, two hundred come each
/// second. Times differ, since objects that came at once would come again at once.
fn queue_time(agents: usize, uid: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    let percent = u32::try_from(hasher.finish() % 100).unwrap_or_default();
    let agents = u32::try_from(agents).unwrap_or(u32::MAX);
    let mean = Duration::from_millis(5).saturating_mul(agents);
    let mean = mean.max(Duration::from_secs(1));
    mean / 2 + mean * percent / 100
}

async fn attempt(
    agent: &OtelAgent,
    context: &Context,
    over_quota: Option<Problem>,
    progress: &mut Progress,
) -> Result<()> {
    progress.limits_unknown = check_rights(context, &agent.namespace().unwrap_or_default()).await?;
    let checked = match over_quota {
        Some(problem) => Err(vec![problem]),
        None => validate(agent, &context.environment).and_then(|valid| {
            match node_port_problem(context, agent) {
                Some(problem) => Err(vec![problem]),
                None => Ok(valid),
            }
        }),
    };
    let mut observation = observe(context, agent, checked.as_ref().ok());
    match checked {
        Err(problems) => keep_last_good(context, &observation, problems, progress).await,
        Ok(valid) => converge(context, &mut observation, &valid, progress).await,
    }
}

/// What agents say of their delivery. From now on those are asked that new pods use, and those of older routes that
/// pods still use.
fn delivery(agent: &OtelAgent, facts: &Facts, context: &Context) -> Delivery {
    let uid = agent.uid().unwrap_or_default();
    let own = agent.spec.agent.as_ref();
    if let Some(image) = own.and_then(|own| own.image.clone()) {
        context.polls.forget(&uid);
        return Delivery::OtherImage(image);
    }
    let serving = facts.serving.iter().map(|(mode, _)| *mode);
    let modes: BTreeSet<Mode> = serving.chain(facts.pods.users.keys().copied()).collect();
    if modes.is_empty() {
        context.polls.forget(&uid);
        return Delivery::Pending;
    }
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let followed = Followed {
        label: names::agent_label(&namespace, &name),
        object: ObjectRef::new(&name).within(&namespace),
        modes,
        port: agent.spec.ports.health,
    };
    context.polls.follow(&uid, followed)
}

/// Handles a refused spec: writes only the status.
async fn keep_last_good(
    context: &Context,
    observation: &Observation<'_>,
    problems: Vec<Problem>,
    progress: &mut Progress,
) -> Result<()> {
    let plan = plan_refused(observation, &context.environment);
    let mut outcome = Outcome::before(observation, &plan);
    progress.facts = Some(refused(observation, problems.clone(), &outcome));
    execute(context.reconciliation(observation), &plan, &mut outcome).await?;
    if problems.iter().any(|problem| problem.reason == PORT_IN_USE) {
        outcome.requeue_within(Some(PORTS_AGAIN));
    }
    progress.facts = Some(refused(observation, problems, &outcome));
    progress.requeue_after = Some(outcome.next());
    Ok(())
}

/// Handles a valid spec: brings the cluster to what it says.
async fn converge(
    context: &Context,
    observation: &mut Observation<'_>,
    valid: &ValidAgent,
    progress: &mut Progress,
) -> Result<()> {
    let owner = context.owner_reference().await;
    let subject = Subject {
        valid,
        environment: &context.environment,
        canary_namespace: &context.canary_namespace,
        installation: owner.as_ref().ok().and_then(Option::as_ref),
    };
    let desired = build(valid, subject.environment, modes(observation, &subject));
    let engine = match owner.clone() {
        Ok(_) => context.renderer().await,
        Err(why) => Ok(Err(why)),
    };
    let engine = engine.unwrap_or_else(|error| Err((error.reason(), in_full(&error))));
    let engines: Engines<'_> = engine.as_deref().map_err(Clone::clone);
    let mut planned = plan(observation, &subject, &desired, &engines);
    let mut outcome = Outcome::before(observation, &planned);
    let corrections = context
        .reconciliation(observation)
        .confirm(&planned)
        .await?;
    if !corrections.is_empty() {
        for correction in corrections {
            observation.correct(correction);
        }
        planned = plan(observation, &subject, &desired, &engines);
        outcome = Outcome::before(observation, &planned);
    }
    // Only what the API server confirmed is reported, even if a step fails.
    progress.facts = Some(facts(observation, &subject, &desired, &planned, &outcome));
    let executed = execute(context.reconciliation(observation), &planned, &mut outcome).await;
    let known = facts(observation, &subject, &desired, &planned, &outcome);
    let known = progress.facts.insert(known);
    executed?;
    let status = observation.agent.status.as_ref();
    let were_reported = status.is_some_and(|status| status.restarts.is_some());
    let restarting = restart::reconcile(context, valid, known, &outcome.active, were_reported);
    let (restarts, again) = restarting.await;
    known.restarts = restarts;
    outcome.requeue_within(again);
    progress.requeue_after = Some(outcome.next());
    Ok(())
}

/// Writes the status if it says something new, then events for its transitions.
async fn report(
    object: &impl Resource<DynamicType = ()>,
    previous: Option<&OtelAgentStatus>,
    context: &Context,
    facts: Option<Facts>,
    error: Option<&ControllerError>,
) -> Result<()> {
    let failure = error.map(|error| Failure {
        reason: error.reason(),
        message: in_full(error),
    });
    // Agents are applied once, so their event does not wait for the status.
    if let Some(note) = facts.as_ref().and_then(status::upgrade) {
        publish(object, note, context).await;
    }
    let status = match (facts, failure) {
        (Some(facts), None) => status::report(&facts, previous),
        (Some(facts), Some(failure)) => status::report(&facts.failed(failure, previous), previous),
        (None, Some(failure)) => {
            let generation = object.meta().generation;
            status::unfinished(&failure, generation, Timestamp::now(), previous)
        }
        (None, None) => return Ok(()),
    };
    let Some(written) = write_fitted(object, previous, status, context).await? else {
        return Ok(());
    };
    for note in status::transitions(previous, &written) {
        publish(object, note, context).await;
    }
    Ok(())
}

/// Writes as much of a status as the CRD holds, if that is news. Returns what was written.
async fn write_fitted(
    object: &impl Resource<DynamicType = ()>,
    previous: Option<&OtelAgentStatus>,
    status: OtelAgentStatus,
    context: &Context,
) -> Result<Option<OtelAgentStatus>> {
    let mut lacking = context.lacking_fields();
    loop {
        let fitted = crd_fields::fitted(status.clone(), &lacking);
        if previous == Some(&fitted) {
            return Ok(None);
        }
        let Err(error) = write_status(object, &fitted, &lacking, context).await else {
            return Ok(Some(fitted));
        };
        let undeclared = crd_fields::undeclared(error.refusal().unwrap_or_default());
        let known = lacking.len();
        lacking.extend(undeclared.iter().cloned());
        if lacking.len() == known {
            return Err(error);
        }
        context.note_lacking(undeclared);
    }
}

async fn write_status(
    object: &impl Resource<DynamicType = ()>,
    status: &OtelAgentStatus,
    lacking: &BTreeSet<String>,
    context: &Context,
) -> Result<()> {
    let namespace = object.namespace().unwrap_or_default();
    // The answer has the whole object, which need not be readable.
    let api: Api<Decoded> = Api::namespaced(context.client.clone(), &namespace);
    let intent = json!({
        "apiVersion": OtelAgent::api_version(&()),
        "kind": OtelAgent::kind(&()),
        "metadata": {"name": object.name_any(), "uid": object.uid()},
        "status": crd_fields::without(status, lacking),
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let (name, intent) = (object.name_any(), Patch::Apply(intent));
    let written = api.patch_status(&name, &parameters, &intent).await;
    written.map_err(ControllerError::api("write the status"))?;
    context.metrics.wrote("OtelAgent", "status");
    Ok(())
}

/// A failure to write an event must not fail the reconcile.
async fn publish(object: &impl Resource<DynamicType = ()>, mut note: Note, context: &Context) {
    let end = note.message.floor_char_boundary(MAX_NOTE);
    note.message.truncate(end);
    let event = Event {
        type_: if note.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: note.reason,
        note: Some(note.message),
        action: "Reconcile".into(),
        secondary: None,
    };
    let about = object.object_ref(&());
    if let Err(error) = context.recorder.publish(&event, &about).await {
        let (namespace, name) = (object.namespace(), object.name_any());
        tracing::warn!(namespace, name, error = %error, "event not written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_in_one_object_does_not_stop_the_others() {
        let panics = async { panic!("on purpose") };
        let outcome = bounded(DEADLINE, panics).await;
        assert!(outcome.is_err_and(|error| error.reason() == "Panicked"));
        assert!(bounded(DEADLINE, async { Ok(()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn reconcile_without_an_end_is_given_up_at_its_deadline() {
        let outcome = bounded(DEADLINE, std::future::pending()).await;
        assert!(outcome.is_err_and(|error| error.reason() == "Timeout"));
    }
}
