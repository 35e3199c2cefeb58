//! Restarts workloads (`workloads.restart: Rolling`): reads the owners of pods, and writes what
//! `otelagent_core::restart` decides.
//!
//! The operator does not watch workloads. It reads a few at a time, and only while there is something to
//! restart. It reports errors of this module and continues with everything else.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::context::{Context, next_page};
use super::error::{ControllerError, Result};
use otelagent_core::build::{Engine, ValidAgent};
use otelagent_core::in_full;
use otelagent_core::inject::canary;
use otelagent_core::inject::difference::Judgement;
use otelagent_core::names;
use otelagent_core::pods::{Controller, WorkloadRef};
use otelagent_core::reconcile::Active;
use otelagent_core::restart::{
    Budget, KINDS, NewPods, Round, Verdict, Workload, decide, is_marked, next_to_poll, patch,
    purpose, release,
};
use otelagent_core::status::{Facts, Failure, Restarts};

pub(super) use memory::RestartMemory;

/// How many workloads one poll reads.
const MAX_READ: usize = 50;
/// Objects of a page of a list: a tenant's may have a quarter of a megabyte of annotations each.
const PAGE: u32 = 50;
/// Most workloads that count as being restarted; `maxConcurrentRestarts` is not larger.
const MAX_MARKED: usize = 1000;
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
        let candidates = pods.to_restart();
        let new_pods = NewPods {
            now: facts.now,
            wanted: facts.wanted,
            serving: facts.serving.as_ref().map(|(mode, _)| *mode),
            agents: facts.serving_workload.as_ref(),
            are_injected: facts.injection.is_active(),
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
        if let Some(as_before) = self.memory(|memory| memory.begin_poll(&candidates)) {
            return as_before;
        }
        let refused_in = facts.namespace_limits.iter().map(|limit| {
            let why = format!("{} {}", limit.object, limit.breach);
            (limit.namespace.as_str(), why)
        });
        let blocked = new_pods.blocked(pods, &refused_in.collect());
        let attempt = self.attempt(facts, blocked, recipe);
        let restarts = match attempt.await {
            Ok(verdicts) => Restarts {
                verdicts,
                failure: None,
            },
            Err(error) => failed(&error),
        };
        self.memory(|memory| memory.failure.clone_from(&restarts.failure));
        let soon = self.memory(|memory| memory.is_about_to_be_steady());
        let soon = soon.then_some(WHILE_RUNNING);
        let again = soon.into_iter().chain(next_check(&restarts)).min();
        (restarts, again)
    }

    /// Removes the labels of running restarts. Returns a failure that is worth another attempt.
    async fn end(&self) -> Option<Restarts> {
        let attempt = async {
            for owner in self.list_marked().await? {
                let found = self.beside(&owner).get_metadata_opt(&owner.name).await;
                let found = found.map_err(ControllerError::api(format!("read {owner}")))?;
                if let Some(found) = found {
                    self.write(&owner, &release(&json!(found)), "release")
                        .await?;
                }
            }
            self.memory(|memory| memory.marked = None);
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
        facts: &Facts,
        blocked: BTreeMap<WorkloadRef, String>,
        recipe: &str,
    ) -> Result<BTreeMap<WorkloadRef, Verdict>> {
        let candidates = facts.pods.to_restart();
        let (known, last) = self.memory(|memory| (memory.known.clone(), memory.last.clone()));
        if !candidates.is_empty() && self.context.engine == Ok(Engine::Webhook) {
            let answers = self.injects_now(recipe).await?;
            if !self.memory(|memory| memory.is_steady(answers)) {
                let verdicts = until_the_webhook_answers(candidates, known, answers);
                self.memory(|memory| memory.known.clone_from(&verdicts));
                return Ok(verdicts);
            }
        }
        let marked = self.read_marked().await?;
        let workloads =
            |seen: &[ReadWorkload]| seen.iter().map(|seen| seen.workload.clone()).collect();
        let under_way: Vec<Workload> = workloads(&marked);
        let at_a_time = self.valid.at_a_time();
        let last = last.as_ref();
        let in_vain = facts.pods.in_vain(&facts.left_out);
        let mut worth = candidates.clone();
        worth.retain(|owner| !in_vain.contains_key(owner));
        let worth = next_to_poll(&worth, &known, &under_way, at_a_time, last, MAX_READ);
        let (seen, gone) = self.read_workloads(&worth).await?;
        let observed = Round {
            marked: under_way,
            seen: workloads(&seen),
            gone,
            known,
            blocked,
            in_vain,
            purpose: purpose(&self.valid.label(), recipe),
            at_a_time,
            candidates,
        };
        // If a write fails, only the server knows which workloads have the label.
        self.memory(|memory| memory.marked = None);
        let (verdicts, labelled) = self.act(observed, &marked, &seen).await?;
        self.memory(|memory| {
            memory.marked = Some(labelled);
            memory.idle = !verdicts
                .values()
                .any(|verdict| *verdict == Verdict::Running);
            memory.last = seen.last().map(|seen| seen.workload.owner.clone());
            memory.known.clone_from(&verdicts);
        });
        Ok(verdicts)
    }

    /// Whether new pods are injected at this moment. For policies an earlier dry run is enough; a webhook may
    /// be down again, and missed pods are a sign of that.
    async fn injects_now(&self, recipe: &str) -> Result<bool> {
        let probe = canary::active_probe(&self.valid.label());
        let judgement = self.context.gets_recipe(&probe, recipe).await?;
        // A pod that others refuse says nothing of the webhook.
        let answers = !matches!(judgement, Judgement::Wrong(_));
        if !answers {
            self.context.remember_probe(&self.valid.uid, None);
        }
        Ok(answers)
    }

    /// Executes the decision. If the server refuses a restart, that workload is blocked and another gets
    /// its slot. Also returns the workloads that have the label of a restart.
    async fn act(
        &self,
        mut observed: Round,
        marked: &[ReadWorkload],
        seen: &[ReadWorkload],
    ) -> Result<(BTreeMap<WorkloadRef, Verdict>, BTreeSet<WorkloadRef>)> {
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
        let mut labelled = restarted;
        for found in marked {
            let owner = &found.workload.owner;
            let is_over = decision.release.contains(owner);
            if is_over
                && self
                    .write(owner, &release(&found.object), "release")
                    .await?
                    .is_none()
            {
                continue;
            }
            labelled.insert(owner.clone());
        }
        Ok((decision.verdicts, labelled))
    }

    /// Workloads that the operator has labelled as being restarted for this object. The list of the server is
    /// needed once: the operator remembers what it has labelled since.
    async fn marked(&self) -> Result<BTreeSet<WorkloadRef>> {
        match self.memory(|memory| memory.marked.clone()) {
            Some(known) => Ok(known),
            None => self.list_marked().await,
        }
    }

    async fn read_marked(&mut self) -> Result<Vec<ReadWorkload>> {
        let marked = self.marked().await?;
        let (mut found, _) = self
            .read_workloads(&marked.iter().collect::<Vec<_>>())
            .await?;
        // Without the label, somebody else has ended the restart.
        let label = self.valid.label();
        let has_label = |found: &ReadWorkload| {
            found.object["metadata"]["labels"][names::LABEL_RESTARTING] == label
        };
        found.retain(has_label);
        Ok(found)
    }

    /// Finds them among all workloads with the label, of which others may have made any number: only those in
    /// selected namespaces count, and only where the operator set the label.
    async fn list_marked(&self) -> Result<BTreeSet<WorkloadRef>> {
        let label = self.valid.label();
        let query = ListParams::default().labels(&format!("{}={label}", names::LABEL_RESTARTING));
        let mut query = query.limit(PAGE);
        let mut found = BTreeSet::new();
        for kind in KINDS {
            let client = self.context.client.clone();
            let api: Api<DynamicObject> = Api::all_with(client, &resource(kind));
            loop {
                let page = api.list_metadata(&query).await;
                let page = page.map_err(ControllerError::api(format!("list restarted {kind}s")))?;
                let ours = page.items.iter().filter(|object| {
                    self.is_selected(object.metadata.namespace.as_deref().unwrap_or_default())
                        && is_marked(&json!(object), &label)
                });
                let owners = ours.map(|object| Workload::owner(kind, &json!(object)));
                found.extend(owners.take(MAX_MARKED.saturating_sub(found.len())));
                if !next_page(&mut query, &page.metadata) {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Whether pods of a namespace are selected.
    fn is_selected(&self, namespace: &str) -> bool {
        let labels = self.context.stores.namespaces.read().labels(namespace);
        let selection = self.valid.selection.as_ref();
        selection.is_some_and(|selection| selection.in_namespace(namespace, &labels))
    }

    /// Reads workloads from the server; also returns those that do not exist.
    async fn read_workloads(
        &mut self,
        owners: &[&WorkloadRef],
    ) -> Result<(Vec<ReadWorkload>, BTreeSet<WorkloadRef>)> {
        let (mut seen, mut gone) = (Vec::new(), BTreeSet::new());
        for owner in owners {
            let found = self.beside(owner).get_opt(&owner.name).await;
            let found = found.map_err(ControllerError::api(format!("read {owner}")))?;
            match found {
                Some(object) => seen.push(self.read(&owner.kind, &object).await?),
                None => drop(gone.insert((*owner).clone())),
            }
        }
        Ok((seen, gone))
    }

    async fn read(&mut self, kind: &str, object: &DynamicObject) -> Result<ReadWorkload> {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        if !self.budgets.contains_key(&namespace) {
            let all = self.list_budgets(&namespace).await?;
            self.budgets.insert(namespace.clone(), all);
        }
        let budgets = self.budgets.get(&namespace).map_or(&[][..], Vec::as_slice);
        let object = json!(object);
        let owner = Workload::owner(kind, &object);
        let down = self.pods_on_nodes_that_are_down(&owner);
        Ok(ReadWorkload {
            workload: Workload::read(owner, &object, budgets, down),
            object,
        })
    }

    async fn list_budgets(&self, namespace: &str) -> Result<Vec<Budget>> {
        let client = self.context.client.clone();
        let budgets = ApiResource::erase::<PodDisruptionBudget>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &budgets);
        let mut query = ListParams::default().limit(PAGE);
        let mut found = Vec::new();
        loop {
            let page = api.list(&query).await;
            let action = format!("list the PodDisruptionBudgets of {namespace}");
            let page = page.map_err(ControllerError::api(action))?;
            let values = page.items.iter().map(|item| json!(item));
            found.extend(values.filter_map(|value| Budget::read(&value)));
            if !next_page(&mut query, &page.metadata) {
                return Ok(found);
            }
        }
    }

    /// How many pods of a workload are on nodes that are not Ready.
    fn pods_on_nodes_that_are_down(&self, owner: &WorkloadRef) -> usize {
        let stores = &self.context.stores;
        let nodes = stores.nodes.read().states();
        let pods = stores.pods.read();
        let is_owned = |controller: &Controller| {
            controller.kind == owner.kind && controller.name == owner.name
        };
        let of_workload = pods
            .namespace(&owner.namespace)
            .filter(|(_, pod)| pod.controller.as_deref().is_some_and(is_owned));
        let is_down = |node: &str| nodes.get(node).is_some_and(|node| !node.ready);
        of_workload
            .filter(|(_, pod)| pod.runs_on().is_some_and(is_down))
            .count()
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

/// Whether a refusal concerns only this request: a webhook, a policy or a quota answers 400, 403 or 422,
/// while 401 and 429 are not about the object.
fn concerns_one(code: u16) -> bool {
    matches!(code, 400 | 403 | 413 | 422)
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", kind))
}
