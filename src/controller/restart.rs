//! Restarts workloads (`workloads.restart: Rolling`): reads the owners of pods, and writes what
//! `otelagent_core::restart` decides. It reports errors of this module and continues with everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::context::Context;
use super::error::{ControllerError, Result};
use otelagent_core::build::{Engine, ValidAgent};
use otelagent_core::in_full;
use otelagent_core::inject::canary;
use otelagent_core::inject::difference::Judgement;
use otelagent_core::names;
use otelagent_core::pods::WorkloadRef;
use otelagent_core::reconcile::Active;
use otelagent_core::restart::{
    NewPods, Round, Verdict, Workload, decide, next_to_poll, patch, purpose, release,
};
use otelagent_core::status::{Facts, Failure, Restarts};

use crate::restarts::{ReadWorkload, RestartMemory, Workloads};

/// How many workloads one poll reads.
const MAX_READ: usize = 50;
/// When to poll again while a workload rolls, and while one waits.
const WHILE_RUNNING: Duration = Duration::from_secs(5);
const WHILE_WAITING: Duration = Duration::from_secs(30);

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
        workloads: context.workloads(valid),
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
    workloads: Workloads<'a>,
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
            for owner in self.workloads.list_marked().await? {
                if let Some(found) = self.workloads.metadata(&owner).await? {
                    let change = release(&json!(found));
                    self.workloads.write(&owner, &change, "release").await?;
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
        let (seen, gone) = self.workloads.read(&worth).await?;
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
                match self.workloads.write(owner, &change, "restart").await? {
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
                    .workloads
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
            None => self.workloads.list_marked().await,
        }
    }

    async fn read_marked(&mut self) -> Result<Vec<ReadWorkload>> {
        let marked = self.marked().await?;
        let (mut found, _) = self
            .workloads
            .read(&marked.iter().collect::<Vec<_>>())
            .await?;
        // Without the label, somebody else has ended the restart.
        let label = self.valid.label();
        let has_label = |found: &ReadWorkload| {
            found.object["metadata"]["labels"][names::LABEL_RESTARTING] == label
        };
        found.retain(has_label);
        Ok(found)
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
