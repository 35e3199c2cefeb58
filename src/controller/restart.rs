//! Restarts workloads (`workloads.restart: Rolling`): reads the owners of pods, and writes what
//! `otelagent_core::restart` decides.
//!
//! The operator does not watch workloads. It reads a few at a time, and only while there is something to
//! restart. It reports errors of this module and continues with everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::context::{Context, RestartMemory};
use super::error::{ControllerError, Result};
use otelagent_core::build::{Engine, ValidAgent};
use otelagent_core::in_full;
use otelagent_core::inject::canary;
use otelagent_core::names;
use otelagent_core::pods::WorkloadRef;
use otelagent_core::reconcile::Active;
use otelagent_core::restart::{
    Budget, KINDS, NewPods, Round, Verdict, Workload, decide, next_to_poll, patch, purpose, release,
};
use otelagent_core::status::{Facts, Failure, InjectionState, Restarts};

/// How many workloads one poll reads.
const MAX_READ: usize = 50;
/// When to poll again while a workload rolls, and while one waits.
const WHILE_RUNNING: Duration = Duration::from_secs(5);
const WHILE_WAITING: Duration = Duration::from_secs(30);

/// A workload with the object from which it was read.
struct ReadWorkload {
    workload: Workload,
    object: Value,
}

/// Restarts workloads if the spec asks for it, or cleans up if it no longer does. Returns what to report, and
/// when to reconcile again.
pub(crate) async fn reconcile(
    context: &Context,
    valid: &ValidAgent,
    facts: &Facts,
    active: &Active,
    were_reported: bool,
) -> (Option<Restarts>, Option<Duration>) {
    let mut restarter = Restarter {
        context,
        valid,
        budgets: BTreeMap::new(),
    };
    if valid.at_a_time() > 0 {
        let (restarts, again) = restarter.run(facts, active).await;
        (Some(restarts), again)
    } else if were_reported {
        let restarts = restarter.end().await;
        let again = restarts.as_ref().map(|_| WHILE_WAITING);
        (restarts, again)
    } else {
        (None, None)
    }
}

/// Restarts workloads for one `OtelAgent`.
struct Restarter<'a> {
    context: &'a Context,
    valid: &'a ValidAgent,
    /// By namespace, for those that were read.
    budgets: BTreeMap<String, Vec<Budget>>,
}

impl Restarter<'_> {
    /// Restarts the workloads that may be restarted now.
    async fn run(&mut self, facts: &Facts, active: &Active) -> (Restarts, Option<Duration>) {
        let pods = &facts.pods;
        let owners = [&pods.stale, &pods.missed, &pods.uncovered];
        let candidates = owners.iter().flat_map(|owners| owners.keys().cloned());
        let candidates: BTreeSet<WorkloadRef> = candidates.collect();
        let new_pods = NewPods {
            now: facts.now,
            wanted: facts.wanted,
            serving: facts.serving.as_ref().map(|(mode, _)| *mode),
            agents: facts.serving_workload.as_ref(),
            are_injected: facts.injection == InjectionState::Active,
            bound_at: active.bound_at,
        };
        let recipe = match (new_pods.block_all(), &active.recipe) {
            (None, Some(recipe)) => recipe,
            (held, _) => {
                let why = held.unwrap_or("nothing is served yet");
                let waits = |owner| (owner, Verdict::Waits(why.to_owned()));
                let restarts = Restarts {
                    verdicts: candidates.into_iter().map(waits).collect(),
                    failure: None,
                };
                // Nothing was read, so an early poll costs nothing.
                let waiting = !restarts.verdicts.is_empty();
                return (restarts, waiting.then_some(WHILE_RUNNING));
            }
        };
        let attempt = self.attempt(candidates, new_pods.blocked(pods), recipe);
        let restarts = match attempt.await {
            Ok(verdicts) => Restarts {
                verdicts,
                failure: None,
            },
            Err(error) => failed(&error),
        };
        let soon = self.memory(|memory| memory.is_about_to_be_steady());
        let soon = soon.then_some(WHILE_RUNNING);
        let again = soon.into_iter().chain(next_check(&restarts)).min();
        (restarts, again)
    }

    /// Removes the labels of running restarts. Returns a failure that is worth another attempt.
    async fn end(&self) -> Option<Restarts> {
        let attempt = async {
            // Budgets do not matter here, so none is read.
            for (kind, object) in self.list_marked().await? {
                let seen = seen(kind, &object, &[]);
                let change = release(&seen.object);
                let owner = &seen.workload.owner;
                self.write(owner, &change, "release").await?;
            }
            Ok::<_, ControllerError>(())
        };
        let error = attempt.await.err()?;
        // Without the right there is nothing to do, and the label has no effect of its own.
        (error.reason() != "Forbidden").then(|| failed(&error))
    }

    fn memory<T>(&self, act: impl FnOnce(&mut RestartMemory) -> T) -> T {
        self.context.with_restarts(&self.valid.uid, act)
    }

    async fn attempt(
        &mut self,
        candidates: BTreeSet<WorkloadRef>,
        blocked: BTreeMap<WorkloadRef, String>,
        recipe: &str,
    ) -> Result<BTreeMap<WorkloadRef, Verdict>> {
        let (is_due, mut known, last) = self.memory(|memory| memory.take(!candidates.is_empty()));
        let running = |verdict: &Verdict| *verdict == Verdict::Running;
        if !is_due {
            known.retain(|owner, verdict| candidates.contains(owner) || running(verdict));
            return Ok(known);
        }
        if !candidates.is_empty() && self.context.engine == Ok(Engine::Webhook) {
            let answers = self.injects_now(recipe).await?;
            if !self.memory(|memory| memory.is_steady(answers)) {
                let verdicts = until_the_webhook_answers(candidates, known, answers);
                self.memory(|memory| memory.known.clone_from(&verdicts));
                return Ok(verdicts);
            }
        }
        let mut marked = Vec::new();
        for (kind, object) in self.list_marked().await? {
            marked.push(self.read(kind, &object).await?);
        }
        let workloads =
            |seen: &[ReadWorkload]| seen.iter().map(|seen| seen.workload.clone()).collect();
        let under_way: Vec<Workload> = workloads(&marked);
        let at_a_time = self.valid.at_a_time();
        let last = last.as_ref();
        let worth = next_to_poll(&candidates, &known, &under_way, at_a_time, last, MAX_READ);
        let seen = self.read_workloads(&worth).await?;
        let observed = Round {
            marked: under_way,
            seen: workloads(&seen),
            known,
            blocked,
            purpose: purpose(&self.valid.label(), recipe),
            at_a_time,
            candidates,
        };
        let verdicts = self.act(observed, &marked, &seen).await?;
        self.memory(|memory| {
            memory.idle = !verdicts.values().any(running);
            memory.last = seen.last().map(|seen| seen.workload.owner.clone());
            memory.known.clone_from(&verdicts);
        });
        Ok(verdicts)
    }

    /// Whether new pods are injected at this moment. For policies an earlier dry run is enough; a webhook may
    /// be down again, and missed pods are a sign of that.
    async fn injects_now(&self, recipe: &str) -> Result<bool> {
        let probe = canary::active_probe(&self.valid.label());
        let answers = self.context.given_now(&probe).await? == recipe;
        if !answers {
            self.context.remember_probe(&self.valid.uid, None);
        }
        Ok(answers)
    }

    /// Executes the decision. If the server refuses a restart, that workload is blocked and another gets
    /// its slot.
    async fn act(
        &self,
        mut observed: Round,
        marked: &[ReadWorkload],
        seen: &[ReadWorkload],
    ) -> Result<BTreeMap<WorkloadRef, Verdict>> {
        let now = Timestamp::now().to_string();
        let mut restarted = BTreeSet::new();
        let decision = loop {
            let decision = decide(&observed);
            let mut refused = BTreeMap::new();
            for owner in &decision.restart {
                let found = seen.iter().find(|seen| seen.workload.owner == *owner);
                let Some(found) = found.filter(|_| !restarted.contains(owner)) else {
                    continue;
                };
                let change = patch(&found.object, &self.valid.label(), &observed.purpose, &now);
                match self.write(owner, &change, "restart").await? {
                    None => drop(restarted.insert(owner.clone())),
                    Some(why) => drop(refused.insert(owner.clone(), why)),
                }
            }
            if refused.is_empty() {
                break decision;
            }
            observed.blocked.extend(refused);
        };
        for owner in &decision.release {
            if let Some(found) = marked.iter().find(|seen| seen.workload.owner == *owner) {
                self.write(owner, &release(&found.object), "release")
                    .await?;
            }
        }
        Ok(decision.verdicts)
    }

    /// Workloads with the label of a restart for this object, with their kinds.
    async fn list_marked(&self) -> Result<Vec<(&'static str, DynamicObject)>> {
        let mark = format!("{}={}", names::LABEL_RESTARTING, self.valid.label());
        let query = ListParams::default().labels(&mark);
        let mut found = Vec::new();
        for kind in KINDS {
            let client = self.context.client.clone();
            let api: Api<DynamicObject> = Api::all_with(client, &resource(kind));
            let list = api.list(&query).await;
            let list = list.map_err(ControllerError::api(format!("list restarted {kind}s")))?;
            found.extend(list.items.into_iter().map(|object| (kind, object)));
        }
        Ok(found)
    }

    /// Reads workloads from the server, without those that are gone.
    async fn read_workloads(&mut self, owners: &[&WorkloadRef]) -> Result<Vec<ReadWorkload>> {
        let mut seen = Vec::new();
        for owner in owners {
            let found = self.beside(owner).get_opt(&owner.name).await;
            let found = found.map_err(ControllerError::api(format!("read {owner}")))?;
            if let Some(object) = found {
                seen.push(self.read(&owner.kind, &object).await?);
            }
        }
        Ok(seen)
    }

    async fn read(&mut self, kind: &str, object: &DynamicObject) -> Result<ReadWorkload> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        if !self.budgets.contains_key(&namespace) {
            let client = self.context.client.clone();
            let budgets = ApiResource::erase::<PodDisruptionBudget>(&());
            let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &budgets);
            let action = format!("list the PodDisruptionBudgets of {namespace}");
            let list = api.list(&ListParams::default()).await;
            let list = list.map_err(ControllerError::api(action))?;
            let values = list.items.iter().map(|item| json!(item));
            let all = values.filter_map(|value| Budget::read(&value)).collect();
            self.budgets.insert(namespace.clone(), all);
        }
        let budgets = self.budgets.get(&namespace).map_or(&[][..], Vec::as_slice);
        Ok(seen(kind, object, budgets))
    }

    /// Patches a workload. Returns why the server refused it, if the refusal concerns this workload alone.
    /// Any other failure is an error, because it concerns all workloads.
    async fn write(
        &self,
        owner: &WorkloadRef,
        change: &Value,
        what: &'static str,
    ) -> Result<Option<String>> {
        let parameters = PatchParams {
            field_manager: Some(names::RESTART_MANAGER.into()),
            ..PatchParams::default()
        };
        let change = Patch::Merge(change);
        let api = self.beside(owner);
        match api.patch(&owner.name, &parameters, &change).await {
            Ok(_) => {
                self.context.metrics.wrote("Workload", what);
                tracing::info!(%owner, what, "workload");
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                Ok(Some("it has just changed".into()))
            }
            Err(kube::Error::Api(status)) if concerns_one(status.code) => {
                let why = format!("the server refuses to {what} it: {}", status.message);
                tracing::warn!(%owner, what, message = status.message, "workload refused");
                Ok(Some(why))
            }
            Err(error) => Err(ControllerError::api(format!("{what} {owner}"))(error)),
        }
    }

    /// The API for workloads of the same kind and namespace.
    fn beside(&self, owner: &WorkloadRef) -> Api<DynamicObject> {
        let client = self.context.client.clone();
        Api::namespaced_with(client, &owner.namespace, &resource(&owner.kind))
    }
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

/// When to poll again.
fn next_check(restarts: &Restarts) -> Option<Duration> {
    let any = |test: fn(&Verdict) -> bool| restarts.verdicts.values().any(test);
    if any(|verdict| *verdict == Verdict::Running) {
        return Some(WHILE_RUNNING);
    }
    let waits = restarts.failure.is_some() || any(|verdict| matches!(verdict, Verdict::Waits(_)));
    waits.then_some(WHILE_WAITING)
}

/// Running restarts continue; all other candidates wait.
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

fn seen(kind: &str, object: &DynamicObject, budgets: &[Budget]) -> ReadWorkload {
    let object = json!(object);
    ReadWorkload {
        workload: Workload::read(kind, &object, budgets),
        object,
    }
}

/// Whether a refusal concerns only this request: a webhook, a policy or a quota answers 400, 403 or 422,
/// while 401 and 429 are not about the object.
fn concerns_one(code: u16) -> bool {
    matches!(code, 400 | 403 | 413 | 422)
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind))
}
