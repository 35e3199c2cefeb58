//! One reconcile of one `OtelAgent`: observe, validate, build, plan, execute, report.
//!
//! The report is made here, in one place, for every exit: a refused spec, an error of any call, the deadline,
//! a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource, ResourceExt};
use otelagent_api::{OtelAgent, OtelAgentStatus};
use otelagent_core::build::{Problem, ValidAgent, build, over_quota, validate};
use otelagent_core::in_full;
use otelagent_core::names;
use otelagent_core::reconcile::{
    Engines, Observation, Outcome, Subject, facts, modes, plan, plan_refused, refused,
};
use otelagent_core::status::{self, Facts, Failure, Note};
use serde_json::json;

use super::context::Context;
use super::error::ControllerError;
use super::execute::{confirm, execute};
use super::observe::{observe, older};
use super::restart;
use crate::cache::Decoded;

/// Longest reconcile; a client call has its own, shorter limit.
const DEADLINE: Duration = Duration::from_mins(1);
/// Longest report, in which an API server that did not answer before is given one more chance.
const REPORT_DEADLINE: Duration = Duration::from_secs(15);
/// Longest note of an event, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1000;

/// How far a reconcile came.
#[derive(Default)]
struct Progress {
    /// What is known; empty before it is planned.
    facts: Option<Facts>,
    /// When to reconcile again though nothing may have changed.
    requeue_after: Option<Duration>,
}

/// One paced, bounded reconcile, and its report.
pub(crate) async fn reconcile(
    agent: Arc<Decoded>,
    context: Arc<Context>,
) -> Result<Action, ControllerError> {
    let agent = match &agent.0 {
        Ok(agent) => agent,
        Err(unreadable) => {
            tracing::warn!(
                name = unreadable.metadata.name,
                error = unreadable.error,
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
    let started = Instant::now();
    let mut progress = Progress::default();
    let attempt = Box::pin(attempt(agent, &context, &mut progress));
    let outcome = bounded(DEADLINE, attempt).await;
    let report = Box::pin(report(
        agent,
        &context,
        progress.facts,
        outcome.as_ref().err(),
    ));
    let reported = bounded(REPORT_DEADLINE, report).await;
    let is_success = outcome.is_ok() && reported.is_ok();
    context.metrics.reconciled(is_success, started.elapsed());
    outcome.and(reported)?;
    Ok(progress
        .requeue_after
        .map_or_else(Action::await_change, Action::requeue))
}

/// Bounds what a future may take, and keeps a mistake of ours to one object.
async fn bounded(
    deadline: Duration,
    work: impl Future<Output = Result<(), ControllerError>>,
) -> Result<(), ControllerError> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(ControllerError::Panicked),
        Err(_) => Err(ControllerError::Timeout {
            seconds: deadline.as_secs(),
        }),
    }
}

/// The spec, if it is valid here; else every problem.
fn check(agent: &OtelAgent, context: &Context) -> Result<ValidAgent, Vec<Problem>> {
    let older = older(&context.stores, agent);
    match over_quota(agent, &context.environment, older) {
        Some(problem) => Err(vec![problem]),
        None => validate(agent, &context.environment),
    }
}

async fn attempt(
    agent: &OtelAgent,
    context: &Context,
    progress: &mut Progress,
) -> Result<(), ControllerError> {
    let checked = check(agent, context);
    let mut observation = observe(context, agent, checked.as_ref().ok());
    match checked {
        Err(problems) => keep_last_good(context, &observation, problems, progress).await,
        Ok(valid) => converge(context, &mut observation, &valid, progress).await,
    }
}

/// A spec that was refused: nothing is written but the status.
async fn keep_last_good(
    context: &Context,
    observation: &Observation<'_>,
    problems: Vec<Problem>,
    progress: &mut Progress,
) -> Result<(), ControllerError> {
    let plan = plan_refused(observation);
    let mut outcome = Outcome::before(observation, &plan);
    progress.facts = Some(refused(observation, problems.clone(), &outcome));
    execute(context, observation, &plan, &mut outcome).await?;
    progress.facts = Some(refused(observation, problems, &outcome));
    progress.requeue_after = Some(outcome.next());
    Ok(())
}

/// A valid spec: everything is brought to what it says.
async fn converge(
    context: &Context,
    observation: &mut Observation<'_>,
    valid: &ValidAgent,
    progress: &mut Progress,
) -> Result<(), ControllerError> {
    let subject = Subject {
        valid,
        environment: &context.environment,
        canary_namespace: &context.canary_namespace,
        installation: context.installation.as_ref(),
    };
    let desired = build(valid, subject.environment, modes(observation, &subject));
    let engine = context.renderer().await?;
    let engines: Engines<'_> = engine.as_deref().map_err(Clone::clone);
    let mut planned = plan(observation, &subject, &desired, &engines)?;
    let mut outcome = Outcome::before(observation, &planned);
    progress.facts = Some(facts(observation, &subject, &desired, &planned, &outcome));
    let corrections = confirm(context, observation, &planned).await?;
    if !corrections.is_empty() {
        for correction in corrections {
            observation.correct(correction);
        }
        planned = plan(observation, &subject, &desired, &engines)?;
        outcome = Outcome::before(observation, &planned);
    }
    let executed = execute(context, observation, &planned, &mut outcome).await;
    let known = progress
        .facts
        .insert(facts(observation, &subject, &desired, &planned, &outcome));
    executed?;
    let were_reported = || observation.agent.status.as_ref()?.restarts.as_ref();
    let (restarts, again) = restart::reconcile(
        context,
        valid,
        known,
        &outcome.active,
        were_reported().is_some(),
    )
    .await;
    known.restarts = restarts;
    outcome.requeue_within(again);
    progress.requeue_after = Some(outcome.next());
    Ok(())
}

/// Writes the status if it says something new, then events for its transitions.
async fn report(
    agent: &OtelAgent,
    context: &Context,
    facts: Option<Facts>,
    error: Option<&ControllerError>,
) -> Result<(), ControllerError> {
    let previous = agent.status.as_ref();
    let failure = error.map(|error| Failure {
        reason: error.reason(),
        message: in_full(error),
    });
    let mut notes: Vec<Note> = facts.iter().filter_map(status::upgrade).collect();
    let status = match (facts, failure) {
        (Some(facts), None) => status::report(&facts, previous),
        (Some(facts), Some(failure)) => status::report(&facts.failed(failure, previous), previous),
        (None, Some(failure)) => {
            let generation = agent.metadata.generation;
            status::unfinished(&failure, generation, Context::now(), previous)
        }
        (None, None) => return Ok(()),
    };
    if previous != Some(&status) {
        write_status(agent, &status, context).await?;
        notes.extend(status::transitions(previous, &status));
    }
    for note in notes {
        publish(agent, note, context).await;
    }
    Ok(())
}

async fn write_status(
    agent: &OtelAgent,
    status: &OtelAgentStatus,
    context: &Context,
) -> Result<(), ControllerError> {
    let namespace = agent.namespace().unwrap_or_default();
    let api: Api<OtelAgent> = Api::namespaced(context.client.clone(), &namespace);
    let intent = json!({
        "apiVersion": OtelAgent::api_version(&()),
        "kind": OtelAgent::kind(&()),
        "metadata": {"name": agent.name_any(), "uid": agent.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    api.patch_status(&agent.name_any(), &parameters, &Patch::Apply(intent))
        .await
        .map_err(ControllerError::api("write the status"))?;
    context.metrics.wrote("OtelAgent", "status");
    Ok(())
}

/// An event that cannot be written must not keep the object from being reconciled.
async fn publish(agent: &OtelAgent, note: Note, context: &Context) {
    let event = Event {
        type_: if note.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: note.reason,
        note: Some(shorten(&note.message, MAX_NOTE)),
        action: "Reconcile".into(),
        secondary: None,
    };
    let about = agent.object_ref(&());
    if let Err(error) = context.recorder.publish(&event, &about).await {
        tracing::warn!(error = %error, "event not written");
    }
}

/// At most `limit` bytes, cut between characters.
fn shorten(text: &str, limit: usize) -> String {
    text.char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= limit)
        .map(|(_, c)| c)
        .collect()
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
