//! Restarting workloads (`workloads.restart: Rolling`): reads the owners that pods name, asks the pure
//! room, writes what it decides.
//!
//! Nothing is watched for it: workloads are read only while there is something to restart, a few at a
//! time. What goes wrong here is told and never keeps the rest of a pass from being carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::Value;

use super::context::Context;
use super::error::ControllerError;
use super::injection;
use super::observe::InForce;
use otelagent_core::build::{Engine, ValidAgent};
use otelagent_core::in_full;
use otelagent_core::names;
use otelagent_core::pods::WorkloadRef;
use otelagent_core::restart::{
    Budget, KINDS, NewPods, Round, Verdict, Workload, decide, next_to_poll, patch, purpose, release,
};
use otelagent_core::status::{Facts, Failure, InjectionState, Restarts};

/// Workloads that are looked at in one pass.
const LOOK_AT: usize = 50;
/// Between two looks at the workloads of one `OtelAgent`, at least.
const PACE: Duration = Duration::from_secs(2);
/// How long a webhook that may have been away must have answered before anything is restarted: one of its
/// replicas is back before the other, and a workload that is missed again is not restarted again.
const STEADY: Duration = Duration::from_secs(5);
/// When to look again while something rolls, and while something waits.
const WHILE_RUNNING: Duration = Duration::from_secs(5);
pub(crate) const WHILE_WAITING: Duration = Duration::from_secs(30);

/// What is remembered between looks to spare requests; forgetting it changes nothing but their number.
#[derive(Default)]
pub(crate) struct Memory {
    looked_at: Option<std::time::Instant>,
    /// Since when the webhook has answered at every look, as long as there were candidates.
    answers_since: Option<std::time::Instant>,
    /// Whether it is known that no restart is under way.
    idle: bool,
    /// The candidate looked at last, so that all get their turn.
    last: Option<WorkloadRef>,
    known: BTreeMap<WorkloadRef, Verdict>,
}

/// A workload with its object, which a change of it is based on.
struct Seen {
    workload: Workload,
    object: Value,
}

/// Restarts what may be restarted now, and says what is so of the rest and when to look again.
pub(crate) async fn carry_out(
    context: &Context,
    valid: &ValidAgent,
    facts: &Facts,
    in_force: &InForce,
) -> (Restarts, Option<Duration>) {
    let pods = &facts.pods;
    let owners = [&pods.stale, &pods.missed, &pods.uncovered];
    let candidates: BTreeSet<WorkloadRef> = owners
        .iter()
        .flat_map(|owners| owners.keys().cloned())
        .collect();
    let new_pods = NewPods {
        now: facts.now,
        wanted: facts.wanted,
        serving: facts.serving.as_ref().map(|(mode, _)| *mode),
        agents: facts.serving_workload.as_ref(),
        are_injected: facts.injection == InjectionState::Active,
        bound_at: in_force.bound_at,
    };
    let recipe = match (new_pods.block_all(), &in_force.recipe) {
        (None, Some(recipe)) => recipe,
        (held, _) => {
            let why = held.unwrap_or("nothing is served yet");
            let waits = |owner| (owner, Verdict::Waits(why.to_owned()));
            let restarts = Restarts {
                verdicts: candidates.into_iter().map(waits).collect(),
                failure: None,
            };
            // Nothing was read, so it costs nothing to look soon.
            let waiting = !restarts.verdicts.is_empty();
            return (restarts, waiting.then_some(WHILE_RUNNING));
        }
    };
    let restarts = match attempt(context, valid, candidates, new_pods.blocked(pods), recipe).await {
        Ok(verdicts) => Restarts {
            verdicts,
            failure: None,
        },
        Err(error) => failed(&error),
    };
    let soon = context.with_restarts(&valid.uid, |memory| memory.is_about_to_be_steady());
    let soon = soon.then_some(WHILE_RUNNING);
    let again = soon.into_iter().chain(next_look(&restarts)).min();
    (restarts, again)
}

/// Takes the marks of restarts under way off: workloads are left alone from now on. What could not be done
/// and is worth another try is returned.
pub(crate) async fn let_go(context: &Context, valid: &ValidAgent) -> Option<Restarts> {
    let attempt = async {
        // Whom budgets guard is of no interest here, so none is read.
        for (kind, object) in list_marked(context, valid).await? {
            let seen = seen(kind, &object, &[]);
            let change = release(&seen.object);
            write(context, &seen.workload.owner, &change, "release").await?;
        }
        Ok::<_, ControllerError>(())
    };
    let error = attempt.await.err()?;
    // Without the right to, there is nothing to be done, and nothing is held up by a mark.
    (error.reason() != "Forbidden").then(|| failed(&error))
}

fn failed(error: &ControllerError) -> Restarts {
    Restarts {
        verdicts: BTreeMap::new(),
        failure: Some(Failure {
            reason: error.reason(),
            message: in_full(error),
        }),
    }
}

/// When to look again.
fn next_look(restarts: &Restarts) -> Option<Duration> {
    let any = |test: fn(&Verdict) -> bool| restarts.verdicts.values().any(test);
    if any(|verdict| *verdict == Verdict::Running) {
        Some(WHILE_RUNNING)
    } else if restarts.failure.is_some() || any(|verdict| matches!(verdict, Verdict::Waits(_))) {
        Some(WHILE_WAITING)
    } else {
        None
    }
}

async fn attempt(
    context: &Context,
    valid: &ValidAgent,
    candidates: BTreeSet<WorkloadRef>,
    blocked: BTreeMap<WorkloadRef, String>,
    recipe: &str,
) -> Result<BTreeMap<WorkloadRef, Verdict>, ControllerError> {
    let (is_due, known, last) =
        context.with_restarts(&valid.uid, |memory| memory.take(!candidates.is_empty()));
    if !is_due {
        let still = |owner: &WorkloadRef, verdict: &Verdict| {
            candidates.contains(owner) || *verdict == Verdict::Running
        };
        return Ok(known
            .into_iter()
            .filter(|(owner, verdict)| still(owner, verdict))
            .collect());
    }
    if !candidates.is_empty() && context.engine == Ok(Engine::Webhook) {
        let answers = injects_now(context, valid, recipe).await?;
        if !answers {
            context.remember_probe(&valid.uid, None);
        }
        if !context.with_restarts(&valid.uid, |memory| memory.is_steady(answers)) {
            let verdicts = until_the_webhook_answers(candidates, known, answers);
            context.with_restarts(&valid.uid, |memory| memory.known.clone_from(&verdicts));
            return Ok(verdicts);
        }
    }
    let mut budgets = BTreeMap::new();
    let mut marked = Vec::new();
    for (kind, object) in list_marked(context, valid).await? {
        marked.push(read(context, kind, &object, &mut budgets).await?);
    }
    let workloads = |seen: &[Seen]| -> Vec<Workload> {
        seen.iter().map(|seen| seen.workload.clone()).collect()
    };
    let under_way = workloads(&marked);
    let at_a_time = valid.at_a_time();
    let worth = next_to_poll(
        &candidates,
        &known,
        &under_way,
        at_a_time,
        last.as_ref(),
        LOOK_AT,
    );
    let seen = look_at(context, &worth, &mut budgets).await?;
    let observed = Round {
        marked: under_way,
        seen: workloads(&seen),
        known,
        blocked,
        purpose: purpose(&valid.label(), recipe),
        at_a_time,
        candidates,
    };
    let verdicts = act(context, valid, observed, &marked, &seen).await?;
    let running = |verdict: &Verdict| *verdict == Verdict::Running;
    context.with_restarts(&valid.uid, |memory| {
        memory.idle = !verdicts.values().any(running);
        memory.last = seen.last().map(|seen| seen.workload.owner.clone());
        memory.known.clone_from(&verdicts);
    });
    Ok(verdicts)
}

/// Whether new pods are any better at this very moment. What was shown lately holds of policies; a webhook
/// may be away again, and what is missed is a sign of that.
async fn injects_now(
    context: &Context,
    valid: &ValidAgent,
    recipe: &str,
) -> Result<bool, ControllerError> {
    let given = injection::given_now(context, &valid.label()).await?;
    Ok(given == recipe)
}

/// What rolls goes on, and nothing else begins.
fn until_the_webhook_answers(
    candidates: BTreeSet<WorkloadRef>,
    known: BTreeMap<WorkloadRef, Verdict>,
    answers: bool,
) -> BTreeMap<WorkloadRef, Verdict> {
    let why = if answers {
        "the webhook has only just begun to answer"
    } else {
        "the webhook does not answer"
    };
    let waits = |owner| (owner, Verdict::Waits(why.into()));
    let mut verdicts: BTreeMap<WorkloadRef, Verdict> = candidates.into_iter().map(waits).collect();
    let running = known.into_iter();
    verdicts.extend(running.filter(|(_, verdict)| *verdict == Verdict::Running));
    verdicts
}

impl Memory {
    /// Whether it is time for a look, and what is known; a look that is due counts as taken.
    fn take(
        &mut self,
        has_candidates: bool,
    ) -> (bool, BTreeMap<WorkloadRef, Verdict>, Option<WorkloadRef>) {
        let too_soon = self.looked_at.is_some_and(|at| at.elapsed() < PACE);
        if !too_soon {
            self.looked_at = Some(std::time::Instant::now());
        }
        if !has_candidates {
            self.answers_since = None;
        }
        let is_due = !too_soon && (has_candidates || !self.idle);
        (is_due, self.known.clone(), self.last.clone())
    }

    /// Whether the webhook has answered for long enough, now that it does or does not.
    fn is_steady(&mut self, answers: bool) -> bool {
        let now = std::time::Instant::now();
        self.answers_since = answers.then(|| self.answers_since.unwrap_or(now));
        self.answers_since
            .is_some_and(|since| now - since >= STEADY)
    }

    fn is_about_to_be_steady(&self) -> bool {
        self.answers_since
            .is_some_and(|since| since.elapsed() < STEADY)
    }
}

/// Carries out what is decided. A workload whose restart is refused is held back, and its place goes to
/// another.
async fn act(
    context: &Context,
    valid: &ValidAgent,
    mut observed: Round,
    marked: &[Seen],
    seen: &[Seen],
) -> Result<BTreeMap<WorkloadRef, Verdict>, ControllerError> {
    let now = Context::now().to_string();
    let mut restarted = BTreeSet::new();
    let decision = loop {
        let decision = decide(&observed);
        let mut refused = BTreeMap::new();
        for owner in &decision.restart {
            let found = seen.iter().find(|seen| seen.workload.owner == *owner);
            let Some(found) = found.filter(|_| !restarted.contains(owner)) else {
                continue;
            };
            let change = patch(&found.object, &valid.label(), &observed.purpose, &now);
            match write(context, owner, &change, "restart").await? {
                Written::Yes => {
                    restarted.insert(owner.clone());
                }
                Written::No(why) => {
                    refused.insert(owner.clone(), why);
                }
            }
        }
        if refused.is_empty() {
            break decision;
        }
        observed.blocked.extend(refused);
    };
    for owner in &decision.release {
        if let Some(found) = marked.iter().find(|seen| seen.workload.owner == *owner) {
            write(context, owner, &release(&found.object), "release").await?;
        }
    }
    Ok(decision.verdicts)
}

type Budgets = BTreeMap<String, Vec<Budget>>;

/// Workloads that bear the mark of a restart for this object, with their kinds.
async fn list_marked(
    context: &Context,
    valid: &ValidAgent,
) -> Result<Vec<(&'static str, DynamicObject)>, ControllerError> {
    let query =
        ListParams::default().labels(&format!("{}={}", names::LABEL_RESTARTING, valid.label()));
    let mut found = Vec::new();
    for (kind, _) in KINDS {
        let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource(kind));
        let list = api
            .list(&query)
            .await
            .map_err(ControllerError::api(format!("list restarted {kind}s")))?;
        found.extend(list.items.into_iter().map(|object| (kind, object)));
    }
    Ok(found)
}

/// Workloads as they are now; those that are gone are left out.
async fn look_at(
    context: &Context,
    owners: &[&WorkloadRef],
    budgets: &mut Budgets,
) -> Result<Vec<Seen>, ControllerError> {
    let mut seen = Vec::new();
    for owner in owners {
        let api: Api<DynamicObject> = Api::namespaced_with(
            context.client.clone(),
            &owner.namespace,
            &resource(&owner.kind),
        );
        let found = api
            .get_opt(&owner.name)
            .await
            .map_err(ControllerError::api(format!("read {owner}")))?;
        if let Some(object) = found {
            seen.push(read(context, &owner.kind, &object, budgets).await?);
        }
    }
    Ok(seen)
}

async fn read(
    context: &Context,
    kind: &str,
    object: &DynamicObject,
    budgets: &mut Budgets,
) -> Result<Seen, ControllerError> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    if !budgets.contains_key(&namespace) {
        let api: Api<DynamicObject> = Api::namespaced_with(
            context.client.clone(),
            &namespace,
            &ApiResource::erase::<PodDisruptionBudget>(&()),
        );
        let list = api
            .list(&ListParams::default())
            .await
            .map_err(ControllerError::api(format!(
                "list the PodDisruptionBudgets of {namespace}"
            )))?;
        let values = list
            .items
            .iter()
            .filter_map(|item| serde_json::to_value(item).ok());
        let all = values.filter_map(|value| Budget::read(&value)).collect();
        budgets.insert(namespace.clone(), all);
    }
    let budgets = budgets.get(&namespace).map_or(&[][..], Vec::as_slice);
    Ok(seen(kind, object, budgets))
}

fn seen(kind: &str, object: &DynamicObject, budgets: &[Budget]) -> Seen {
    let object = serde_json::to_value(object).unwrap_or_default();
    Seen {
        workload: Workload::read(kind, &object, budgets),
        object,
    }
}

/// Whether a change of a workload was taken, or why not.
enum Written {
    Yes,
    No(String),
}

/// Writes a change of a workload. That the server does not take it for what it is concerns this workload
/// alone; that it is not well, or does not let us, concerns all.
async fn write(
    context: &Context,
    owner: &WorkloadRef,
    change: &Value,
    what: &'static str,
) -> Result<Written, ControllerError> {
    let api: Api<DynamicObject> = Api::namespaced_with(
        context.client.clone(),
        &owner.namespace,
        &resource(&owner.kind),
    );
    let parameters = PatchParams {
        field_manager: Some(names::RESTART_MANAGER.into()),
        ..PatchParams::default()
    };
    match api
        .patch(&owner.name, &parameters, &Patch::Merge(change))
        .await
    {
        Ok(_) => {
            context.metrics.wrote("Workload", what);
            tracing::info!(%owner, what, "workload");
            Ok(Written::Yes)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
            Ok(Written::No("it has just changed".into()))
        }
        Err(kube::Error::Api(status)) if concerns_one(status.code) => {
            let why = format!("the server refuses to {what} it: {}", status.message);
            tracing::warn!(%owner, what, message = status.message, "workload refused");
            Ok(Written::No(why))
        }
        Err(error) => Err(ControllerError::api(format!("{what} {owner}"))(error)),
    }
}

/// Whether a refusal is of this request and not of all: a webhook, a policy or a quota says 400, 403 or
/// 422, while 401 and 429 say nothing of the object.
fn concerns_one(code: u16) -> bool {
    matches!(code, 400 | 403 | 413 | 422)
}

fn resource(kind: &str) -> ApiResource {
    let plural = KINDS.iter().find(|(known, _)| *known == kind);
    ApiResource {
        group: "apps".into(),
        version: "v1".into(),
        api_version: "apps/v1".into(),
        kind: kind.into(),
        plural: plural.map_or_else(String::new, |(_, plural)| (*plural).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory of a webhook that began to answer so long ago.
    fn answering_for(time: Duration) -> Memory {
        let mut memory = Memory::default();
        assert!(!memory.is_steady(true), "it has only just begun");
        memory.answers_since = memory.answers_since.and_then(|at| at.checked_sub(time));
        memory
    }

    #[test]
    fn a_webhook_that_has_just_come_back_is_given_a_moment() {
        assert!(!answering_for(STEADY / 2).is_steady(true));
        assert!(answering_for(STEADY / 2).is_about_to_be_steady());
        assert!(answering_for(STEADY).is_steady(true));
        assert!(!answering_for(STEADY).is_about_to_be_steady());
    }

    #[test]
    fn a_webhook_that_was_away_again_or_that_nobody_asked_begins_anew() {
        let mut away = answering_for(STEADY);
        assert!(!away.is_steady(false));
        assert!(!away.is_steady(true));
        let mut unasked = answering_for(STEADY);
        unasked.take(false);
        assert!(!unasked.is_steady(true));
    }
}
