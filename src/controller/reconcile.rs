//! One reconcile of one `OtelAgent`: observe, validate, build, plan, execute, report.
//!
//! The report is made here, in one place, for every exit: a refused spec, an error of any call, the deadline,
//! a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
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
use super::error::{ControllerError, Result};
use super::execute::execute;
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
pub(crate) async fn reconcile(agent: Arc<Decoded>, context: Arc<Context>) -> Result<Action> {
    let agent = match &agent.agent {
        Ok(agent) => agent,
        Err(error) => {
            let name = &agent.metadata.name;
            tracing::warn!(name, error, "a stored object cannot be read; left alone");
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

/// The spec, if it is valid here; else every problem.
fn check(agent: &OtelAgent, context: &Context) -> Result<ValidAgent, Vec<Problem>> {
    let older = older(&context.stores, agent);
    match over_quota(agent, &context.environment, older) {
        Some(problem) => Err(vec![problem]),
        None => validate(agent, &context.environment),
    }
}

async fn attempt(agent: &OtelAgent, context: &Context, progress: &mut Progress) -> Result<()> {
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
) -> Result<()> {
    let plan = plan_refused(observation);
    let mut outcome = Outcome::before(observation, &plan);
    progress.facts = Some(refused(observation, problems.clone(), &outcome));
    execute(context.pass(observation), &plan, &mut outcome).await?;
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
) -> Result<()> {
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
    let corrections = context.pass(observation).confirm(&planned).await?;
    if !corrections.is_empty() {
        for correction in corrections {
            observation.correct(correction);
        }
        planned = plan(observation, &subject, &desired, &engines)?;
        outcome = Outcome::before(observation, &planned);
    }
    let executed = execute(context.pass(observation), &planned, &mut outcome).await;
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
    agent: &OtelAgent,
    context: &Context,
    facts: Option<Facts>,
    error: Option<&ControllerError>,
) -> Result<()> {
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
            status::unfinished(&failure, generation, Timestamp::now(), previous)
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
) -> Result<()> {
    let namespace = agent.namespace().unwrap_or_default();
    let api: Api<OtelAgent> = Api::namespaced(context.client.clone(), &namespace);
    let intent = json!({
        "apiVersion": OtelAgent::api_version(&()),
        "kind": OtelAgent::kind(&()),
        "metadata": {"name": agent.name_any(), "uid": agent.uid()},
        "status": status,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let (name, intent) = (agent.name_any(), Patch::Apply(intent));
    let written = api.patch_status(&name, &parameters, &intent).await;
    written.map_err(ControllerError::api("write the status"))?;
    context.metrics.wrote("OtelAgent", "status");
    Ok(())
}

/// An event that cannot be written must not keep the object from being reconciled.
async fn publish(agent: &OtelAgent, mut note: Note, context: &Context) {
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
    let about = agent.object_ref(&());
    if let Err(error) = context.recorder.publish(&event, &about).await {
        tracing::warn!(error = %error, "event not written");
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
