//! What every reconcile shares.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use kube::api::DynamicObject;
use kube::runtime::events::Recorder;
use kube::{Api, Client};
use otelagent_core::build::{Engine, Environment};
use otelagent_core::inject::kinds::WEBHOOK_CONFIGURATION;
use otelagent_core::names;
use otelagent_core::pods::WorkloadRef;
use otelagent_core::reconcile::{Observation, PolicyEngine, Render, other};
use otelagent_core::restart::Verdict;
use otelagent_webhook::configuration::{Endpoint, WebhookEngine};
use serde_json::Value;
use tokio::sync::watch;

use super::error::Result;
use crate::cache::{Stores, admission_resource};
use crate::discovery;
use crate::runtime::Metrics;

/// Shortest time between two reconciles of one object: pods come and go faster than anyone reads.
const PACE: Duration = Duration::from_millis(500);
/// How long a dry-run's answer is believed while nothing it speaks of has changed.
const PROBE_TTL: Duration = Duration::from_mins(5);
/// How long the webhook is believed to be installed: what belongs to an installation that has gone goes.
const INSTALLATION_TTL: Duration = Duration::from_secs(30);

/// Between two polls of the workloads of one `OtelAgent`, at least.
const POLL_PACE: Duration = Duration::from_secs(2);
/// How long a webhook that may have been away must have answered before anything is restarted: one of its
/// replicas is back before the other, and a workload that is missed again is not restarted again.
const STEADY: Duration = Duration::from_secs(5);

/// What every reconcile shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) environment: Environment,
    pub(crate) canary_namespace: String,
    /// What injects, or why nothing does.
    pub(crate) engine: Result<Engine, String>,
    /// Where the webhook is reached.
    pub(crate) endpoint: Endpoint,
    /// The CA certificates that entries trust, as PEM; empty until they are known.
    pub(crate) ca_bundle: watch::Sender<String>,
    /// Owner reference to the operator's `ClusterRole`, for cluster-scoped objects.
    pub(crate) installation: Option<Value>,
    /// The same of the webhook's `ClusterRole`, when it was seen last.
    pub(super) webhook_installation: Mutex<Option<(Instant, Value)>>,
    pub(crate) stores: Stores,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    /// Of each object, by uid.
    pub(super) memory: Mutex<HashMap<String, Memory>>,
}

/// One reconcile: what all share, and what was observed of one `OtelAgent`.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) context: &'a Context,
    pub(crate) observation: &'a Observation<'a>,
}

/// What is remembered of one object to spare requests; forgetting it changes nothing but their number.
#[derive(Default)]
pub(super) struct Memory {
    last_reconcile: Option<(Instant, Option<i64>)>,
    probed: Option<(Instant, String)>,
    restarts: RestartMemory,
}

impl Context {
    /// One reconcile of what was observed.
    pub(crate) fn pass<'a>(&'a self, observation: &'a Observation<'a>) -> Pass<'a> {
        Pass {
            context: self,
            observation,
        }
    }

    /// Objects of one admission kind.
    pub(crate) fn admission(&self, kind: &str) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &admission_resource(kind))
    }

    /// Owner reference to the webhook's `ClusterRole`; `None` while the webhook is not installed.
    pub(crate) async fn webhook_installation(&self) -> Result<Option<Value>> {
        let seen = &self.webhook_installation;
        let remembered = || seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered().clone();
        if let Some((_, known)) = known.filter(|(at, _)| at.elapsed() < INSTALLATION_TTL) {
            return Ok(Some(known));
        }
        let found = discovery::installation(&self.client, names::WEBHOOK).await?;
        *remembered() = found.clone().map(|found| (Instant::now(), found));
        Ok(found)
    }

    /// The engine that is used first, then the other one, whose objects may still be active.
    pub(crate) fn engines(&self) -> [Engine; 2] {
        let preferred = self.engine.clone().unwrap_or(Engine::Policy);
        [preferred, other(preferred)]
    }

    /// The engine that injects, or what keeps it from being used: a stable reason and a message.
    ///
    /// # Errors
    /// If the API server cannot be asked whether the webhook is installed.
    pub(crate) async fn renderer(&self) -> Result<Result<Box<dyn Render>, (&'static str, String)>> {
        match &self.engine {
            Err(message) => return Ok(Err(("ServerTooOld", message.clone()))),
            Ok(Engine::Policy) => return Ok(Ok(Box::new(PolicyEngine))),
            Ok(Engine::Webhook) => {}
        }
        let seen = self.stores.admission.get(WEBHOOK_CONFIGURATION);
        let is_seen = seen.is_some_and(|store| store.wait_until_ready().now_or_never().is_some());
        let owner = self.webhook_installation().await?;
        if !is_seen || owner.is_none() {
            let message = format!(
                "injection on this API server ({}) needs the webhook, which is not installed; apply manifests/webhook",
                self.environment.server
            );
            return Ok(Err(("WebhookNotInstalled", message)));
        }
        let ca_bundle = self.ca_bundle.borrow().clone();
        if ca_bundle.is_empty() {
            let message = "the webhook has no certificate authority yet".into();
            return Ok(Err(("WebhookNotReady", message)));
        }
        let endpoint = self.endpoint.clone();
        Ok(Ok(Box::new(WebhookEngine {
            endpoint,
            ca_bundle,
            owner,
        })))
    }

    /// How long to wait before the next pass over an object, if it is too soon. A new generation of
    /// the spec never waits.
    pub(crate) fn too_soon(&self, uid: &str, generation: Option<i64>) -> Option<Duration> {
        self.with(uid, |memory| {
            let left = memory
                .last_reconcile
                .filter(|(_, seen)| *seen == generation)
                .and_then(|(at, _)| PACE.checked_sub(at.elapsed()))
                .filter(|left| !left.is_zero());
            if left.is_none() {
                memory.last_reconcile = Some((Instant::now(), generation));
            }
            left
        })
    }

    /// Whether injection in force was shown lately for exactly this state of binding and policy.
    pub(crate) fn was_probed(&self, uid: &str, state: &str) -> bool {
        self.with(uid, |memory| {
            memory
                .probed
                .as_ref()
                .is_some_and(|(at, probed)| probed == state && at.elapsed() < PROBE_TTL)
        })
    }

    /// Remembers that injection in force was shown for this state, or that it no longer is.
    pub(crate) fn remember_probe(&self, uid: &str, state: Option<String>) {
        self.with(uid, |memory| {
            memory.probed = state.map(|state| (Instant::now(), state));
        });
    }

    /// What is remembered of the restarts for an object.
    pub(crate) fn with_restarts<T>(
        &self,
        uid: &str,
        act: impl FnOnce(&mut RestartMemory) -> T,
    ) -> T {
        self.with(uid, |memory| act(&mut memory.restarts))
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, uids: &HashSet<String>) {
        self.remembered().retain(|uid, _| uids.contains(uid));
    }

    fn with<T>(&self, uid: &str, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(self.remembered().entry(uid.to_owned()).or_default())
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is remembered between looks to spare requests; forgetting it changes nothing but their number.
#[derive(Default)]
pub(crate) struct RestartMemory {
    polled_at: Option<Instant>,
    /// Since when the webhook has answered at every look, as long as there were candidates.
    answers_since: Option<Instant>,
    /// Whether it is known that no restart is under way.
    pub(crate) idle: bool,
    /// The candidate looked at last, so that all get their turn.
    pub(crate) last: Option<WorkloadRef>,
    pub(crate) known: BTreeMap<WorkloadRef, Verdict>,
}

impl RestartMemory {
    /// Whether it is time for a poll, and what is known; a poll that is due counts as taken.
    pub(crate) fn take(
        &mut self,
        has_candidates: bool,
    ) -> (bool, BTreeMap<WorkloadRef, Verdict>, Option<WorkloadRef>) {
        let too_soon = self.polled_at.is_some_and(|at| at.elapsed() < POLL_PACE);
        if !too_soon {
            self.polled_at = Some(Instant::now());
        }
        if !has_candidates {
            self.answers_since = None;
        }
        let is_due = !too_soon && (has_candidates || !self.idle);
        (is_due, self.known.clone(), self.last.clone())
    }

    /// Whether the webhook has answered for long enough, now that it does or does not.
    pub(crate) fn is_steady(&mut self, answers: bool) -> bool {
        let now = Instant::now();
        self.answers_since = answers.then(|| self.answers_since.unwrap_or(now));
        self.answers_since
            .is_some_and(|since| now - since >= STEADY)
    }

    pub(crate) fn is_about_to_be_steady(&self) -> bool {
        self.answers_since
            .is_some_and(|since| since.elapsed() < STEADY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory of a webhook that began to answer so long ago.
    fn answering_for(time: Duration) -> RestartMemory {
        let mut memory = RestartMemory::default();
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
