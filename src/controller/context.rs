//! What every reconcile shares.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Recorder;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::error::ControllerError;
use super::stores::Stores;
use super::{engine, restart};
use crate::runtime::Metrics;
use otelagent_core::build::{Engine, Environment};
use otelagent_core::names;
use otelagent_webhook::ca_upkeep::CaBundle;
use otelagent_webhook::configuration::Endpoint;

/// Passes at a time over those that are too many in their namespace, fewer than there are passes at a time.
const CROWD_AT_A_TIME: usize = 2;
/// How far apart two passes over one object are, at least: pods come and go faster than anyone reads.
const PACE: Duration = Duration::from_millis(500);
/// How long a dry-run's answer is believed while nothing it speaks of has changed.
const PROBE_TTL: Duration = Duration::from_mins(5);
/// How long the webhook is believed to be installed: what belongs to an installation that has gone goes.
const INSTALLATION_TTL: Duration = Duration::from_secs(30);

/// What every reconcile shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) environment: Environment,
    pub(crate) canary_namespace: String,
    /// What injects, or why nothing does.
    pub(crate) engine: Result<Engine, String>,
    /// Where the webhook is reached.
    pub(crate) endpoint: Endpoint,
    /// The CA certificates that entries trust.
    pub(crate) ca: CaBundle,
    /// Owner reference to the operator's `ClusterRole`, for cluster-scoped objects.
    pub(crate) installation: Option<Value>,
    /// The same of the webhook's `ClusterRole`, when it was seen last.
    webhook_installation: Mutex<Option<(Instant, Value)>>,
    pub(crate) stores: Stores,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    /// Turns of those that are too many in their namespace: however many wait, others find a pass free.
    pub(crate) crowd: Semaphore,
    memory: Mutex<HashMap<String, Memory>>,
}

/// What is remembered of one object to spare requests; forgetting it changes nothing but their number.
#[derive(Default)]
struct Memory {
    last_pass: Option<(Instant, Option<i64>)>,
    probed: Option<(Instant, String)>,
    restarts: restart::Memory,
}

impl Context {
    #[allow(clippy::too_many_arguments)] // built once, field by field
    pub(crate) fn new(
        client: Client,
        environment: Environment,
        canary_namespace: String,
        engine: Result<Engine, String>,
        endpoint: Endpoint,
        installation: Option<Value>,
        stores: Stores,
        recorder: Recorder,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            environment,
            canary_namespace,
            engine,
            endpoint,
            ca: CaBundle::default(),
            installation,
            webhook_installation: Mutex::default(),
            stores,
            recorder,
            metrics,
            crowd: Semaphore::new(CROWD_AT_A_TIME),
            memory: Mutex::default(),
        }
    }

    /// Owner reference to the webhook's `ClusterRole`; `None` while the webhook is not installed.
    pub(crate) async fn webhook_installation(&self) -> Result<Option<Value>, ControllerError> {
        let remembered = || {
            let seen = &self.webhook_installation;
            seen.lock().unwrap_or_else(PoisonError::into_inner)
        };
        let fresh = |(at, _): &(Instant, Value)| at.elapsed() < INSTALLATION_TTL;
        let known = remembered().clone().filter(fresh);
        if let Some((_, known)) = known {
            return Ok(Some(known));
        }
        let found = engine::installation(&self.client, names::WEBHOOK).await?;
        *remembered() = found.clone().map(|found| (Instant::now(), found));
        Ok(found)
    }

    /// The moment, for the pure rooms.
    pub(crate) fn now() -> Timestamp {
        Timestamp::now()
    }

    /// How long to wait before the next pass over an object, if it is too soon. A new generation of
    /// the spec never waits.
    pub(crate) fn too_soon(&self, uid: &str, generation: Option<i64>) -> Option<Duration> {
        self.with(uid, |memory| {
            let left = memory
                .last_pass
                .filter(|(_, seen)| *seen == generation)
                .and_then(|(at, _)| PACE.checked_sub(at.elapsed()))
                .filter(|left| !left.is_zero());
            if left.is_none() {
                memory.last_pass = Some((Instant::now(), generation));
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
        act: impl FnOnce(&mut restart::Memory) -> T,
    ) -> T {
        self.with(uid, |memory| act(&mut memory.restarts))
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, uids: &std::collections::HashSet<String>) {
        self.memory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|uid, _| uids.contains(uid));
    }

    fn with<T>(&self, uid: &str, act: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        act(memory.entry(uid.to_owned()).or_default())
    }
}
