//! What every reconcile shares.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use kube::runtime::events::Recorder;
use kube::{Api, Client};
use otelagent_core::build::{Engine, Environment, ValidAgent};
use otelagent_core::in_full;
use otelagent_core::inject::kinds::WEBHOOK_CONFIGURATION;
use otelagent_core::reconcile::contest::{Contest, Turn};
use otelagent_core::reconcile::{Intent, Observation, PolicyEngine, Render, other};
use otelagent_webhook::configuration::{Endpoint, WebhookEngine};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

use super::error::Result;
use crate::cache::{Stores, admission_resource};
use crate::delivery::Polls;
use crate::discovery;
use crate::restarts::{RestartMemory, Workloads};
use crate::runtime::Metrics;

/// Shortest time between two reconciles of one object: pods come and go faster than anyone reads.
const PACE: Duration = Duration::from_millis(500);
/// How long the answer of a dry run counts while nothing it depends on has changed.
const PROBE_TTL: Duration = Duration::from_mins(5);
/// How long the uid of an owner counts. Of a role that was made again an older uid would make the garbage
/// collector delete what the operator writes.
const OWNER_TTL: Duration = Duration::from_secs(1);

/// How long the operator leaves what other people's admission makes of an object; then it tries whether that still
/// happens.
const ADMISSION_TTL: Duration = Duration::from_hours(1);
/// The same for fields of the status that the CRD lacks.
const CRD_TTL: Duration = Duration::from_mins(5);

/// What every reconcile shares.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) environment: Environment,
    pub(crate) canary_namespace: String,
    /// The injection engine, or why there is none.
    pub(crate) engine: Result<Engine, String>,
    /// Where the API server reaches the webhook.
    pub(crate) endpoint: Endpoint,
    /// The CA certificates that webhook configurations trust, as PEM, or why none are known.
    pub(crate) ca_bundle: watch::Sender<Result<String, String>>,
    /// Why they cannot be kept up to date, if that has lasted for a while.
    pub(crate) ca_problem: watch::Sender<Option<String>>,
    /// Owner of cluster-scoped objects; without one they stay when the operator is uninstalled.
    pub(crate) owner: Option<OwnerRole>,
    /// Owner of webhook configurations, which exists where the webhook is installed.
    pub(crate) webhook_owner: OwnerRole,
    pub(crate) stores: Stores,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    /// What agents say of their delivery.
    pub(crate) polls: Arc<Polls>,
    /// Limits concurrent reconciles of over-quota objects, so that they cannot starve the rest.
    pub(super) over_quota: Semaphore,
    /// The specs that were given their ports of the nodes, by uid and generation. Reconciles run side by side, and
    /// the agents that would show it do not exist yet.
    pub(super) given_ports: Mutex<HashMap<String, Option<i64>>>,
    /// Paths of the status that the CRD lacks, because it is of an older release, and when this was found.
    pub(super) lacking_fields: Mutex<BTreeMap<String, Instant>>,
    /// By uid of the object.
    pub(super) memory: Mutex<HashMap<String, Memory>>,
}

/// One reconcile: the shared context, and what was observed of one `OtelAgent`.
#[derive(Clone, Copy)]
pub(crate) struct Reconciliation<'a> {
    pub(crate) context: &'a Context,
    pub(crate) observation: &'a Observation<'a>,
}

/// A `ClusterRole` that owns cluster-scoped objects.
pub(crate) struct OwnerRole {
    name: String,
    /// The reference to it, and when it was read.
    seen: Mutex<Option<(Instant, Value)>>,
}

impl OwnerRole {
    /// The role of this name, not read yet.
    pub(crate) fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            seen: Mutex::default(),
        }
    }

    /// The reference to it; `None` if it does not exist or may not be read.
    async fn reference(&self, client: &Client) -> Result<Option<Value>> {
        let remembered = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = remembered().clone();
        if let Some((_, known)) = known.filter(|(at, _)| at.elapsed() < OWNER_TTL) {
            return Ok(Some(known));
        }
        let found = discovery::owner_role(client, &self.name).await?;
        *remembered() = found.clone().map(|found| (Instant::now(), found));
        Ok(found)
    }
}

/// Remembered for one object to save requests; losing it only costs more of them.
#[derive(Default)]
pub(super) struct Memory {
    last_reconcile: Option<(Instant, Option<i64>)>,
    probed: Option<(Instant, String)>,
    restarts: RestartMemory,
    /// By kind and name of the object.
    contests: BTreeMap<(&'static str, String), Contest>,
    /// What the admission of others made of an object, as [`Intent::undoes`] names it, by kind and name.
    admitted: BTreeMap<(&'static str, String), (Instant, String)>,
}

impl Context {
    /// A reconcile with this observation.
    pub(crate) fn reconciliation<'a>(
        &'a self,
        observation: &'a Observation<'a>,
    ) -> Reconciliation<'a> {
        Reconciliation {
            context: self,
            observation,
        }
    }

    /// Objects of one admission kind.
    pub(crate) fn admission(&self, kind: &str) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &admission_resource(kind))
    }

    /// Reference to the owner of cluster-scoped objects, or why none can be written: a stable reason and a message.
    pub(crate) async fn owner_reference(&self) -> Result<Option<Value>, (&'static str, String)> {
        let Some(owner) = &self.owner else {
            return Ok(None);
        };
        match owner.reference(&self.client).await {
            Ok(Some(reference)) => Ok(Some(reference)),
            // What an uninstallation is about to remove must not be written again.
            Ok(None) => Err((
                "OwnerMissing",
                format!(
                    "ClusterRole {}, which owns the admission policies, does not exist or may not be read; apply \
                     manifests/default again (with Helm, upgrade the release), or name the role by --owner-role",
                    owner.name
                ),
            )),
            Err(error) => Err((error.reason(), in_full(&error))),
        }
    }

    /// Whether the objects of an admission kind have been seen, which needs the right to read them.
    pub(super) fn is_watched(&self, kind: &str) -> bool {
        let seen = self.stores.admission.get(kind);
        seen.is_some_and(|store| store.wait_until_ready().now_or_never().is_some())
    }

    /// The CA certificates that a webhook configuration trusts, as PEM.
    pub(crate) fn trusted_ca(&self) -> Option<String> {
        let configurations = self.stores.admission.get(WEBHOOK_CONFIGURATION)?.state();
        let mut bundles = configurations.iter().filter_map(|configuration| {
            let bundle = configuration
                .data
                .pointer("/webhooks/0/clientConfig/caBundle")?;
            let bytes: ByteString = serde_json::from_value(bundle.clone()).ok()?;
            String::from_utf8(bytes.0).ok()
        });
        bundles.next()
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
        let is_seen = self.is_watched(WEBHOOK_CONFIGURATION);
        let owner = self.webhook_owner.reference(&self.client).await?;
        if !is_seen || owner.is_none() {
            let message = format!(
                "injection on this API server ({}) needs the webhook, which is not installed; apply manifests/webhook \
                 (with Helm, set webhook.enabled)",
                self.environment.server
            );
            return Ok(Err(("WebhookNotInstalled", message)));
        }
        let ca_bundle = match self.ca_bundle.borrow().clone() {
            Ok(ca_bundle) => ca_bundle,
            Err(why) => {
                let message = format!("the webhook has no CA yet: {why}");
                return Ok(Err(("WebhookNotReady", message)));
            }
        };
        let endpoint = self.endpoint.clone();
        Ok(Ok(Box::new(WebhookEngine {
            endpoint,
            ca_bundle,
            owner,
        })))
    }

    /// How long to wait before the next reconcile of an object, if it is too soon. A new generation of the
    /// spec never waits.
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

    /// Whether a recent dry run has confirmed injection for exactly this state of binding and policy.
    pub(crate) fn was_probed(&self, uid: &str, state: &str) -> bool {
        self.with(uid, |memory| {
            memory
                .probed
                .as_ref()
                .is_some_and(|(at, probed)| probed == state && at.elapsed() < PROBE_TTL)
        })
    }

    /// Remembers that a dry run has confirmed injection for this state, or forgets it.
    pub(crate) fn remember_probe(&self, uid: &str, state: Option<String>) {
        self.with(uid, |memory| {
            memory.probed = state.map(|state| (Instant::now(), state));
        });
    }

    /// Whether a change of somebody else may be undone now.
    pub(super) fn turn(&self, uid: &str, intent: &Intent, change: &str) -> Turn {
        let now = Timestamp::now();
        self.with(uid, |memory| {
            memory.contests.retain(|_, contest| !contest.is_over(now));
            let key = (intent.kind, intent.name.clone());
            memory.contests.entry(key).or_default().turn(change, now)
        })
    }

    /// Whether an object is to be changed from exactly what the admission of others made of it.
    pub(super) fn is_left_to_admission(&self, uid: &str, intent: &Intent) -> bool {
        let key = (intent.kind, intent.name.clone());
        self.with(uid, |memory| {
            let made = memory.admitted.get(&key);
            made.is_some_and(|(at, made)| {
                at.elapsed() < ADMISSION_TTL && intent.undoes.as_ref() == Some(made)
            })
        })
    }

    /// Remembers what the admission of others made of an object that was written, if anything.
    pub(super) fn leave_to_admission(&self, uid: &str, intent: &Intent, made: Option<String>) {
        let key = (intent.kind, intent.name.clone());
        self.with(uid, |memory| match made {
            Some(made) => {
                // Undoing it was no contest with anybody.
                memory.contests.remove(&key);
                memory.admitted.insert(key, (Instant::now(), made));
            }
            None => {
                memory.admitted.remove(&key);
            }
        });
    }

    /// Fields of the status that the CRD was found to lack, not long ago.
    pub(super) fn lacking_fields(&self) -> BTreeSet<String> {
        let known = self.lacking_fields.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        let recent = known.iter().filter(|(_, at)| at.elapsed() < CRD_TTL);
        recent.map(|(field, _)| field.clone()).collect()
    }

    /// Notes that the CRD lacks fields of the status.
    pub(super) fn note_lacking(&self, fields: Vec<String>) {
        let mut known = self
            .lacking_fields
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.extend(fields.into_iter().map(|field| (field, Instant::now())));
    }

    /// A contested object, and when it may be written again.
    pub(super) fn contested(&self, uid: &str) -> Option<(&'static str, String, Duration)> {
        let now = Timestamp::now();
        self.with(uid, |memory| {
            let mut contests = memory.contests.iter();
            let ((kind, name), contest) = contests.find(|(_, one)| one.is_contested(now))?;
            Some((*kind, name.clone(), contest.left(now).unwrap_or_default()))
        })
    }

    /// Access to the workloads of an object.
    pub(super) fn workloads<'a>(&'a self, valid: &'a ValidAgent) -> Workloads<'a> {
        Workloads::of(&self.client, &self.stores, &self.metrics, valid)
    }

    /// Accesses what is remembered of the restarts for an object.
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
        let given = &self.given_ports;
        let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|uid, _| uids.contains(uid));
        self.polls.retain(uids);
    }

    fn with<T>(&self, uid: &str, act: impl FnOnce(&mut Memory) -> T) -> T {
        act(self.remembered().entry(uid.to_owned()).or_default())
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
