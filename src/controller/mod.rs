//! Watches the cluster and executes what `otelagent_core` decides.
//!
//! | module | does |
//! |---|---|
//! | `reconcile` | one reconcile: observe, validate, build, plan, execute, report |
//! | `observe` | reads the caches into values |
//! | `execute` | executes the steps of a plan |
//! | `live` | asks the API server directly, past the caches |
//! | `apply` | writes and deletes objects |
//! | `restart` | restarts workloads (`workloads.restart: Rolling`) |
//! | `sweep` | removes cluster-scoped objects whose `OtelAgent` is gone |
//! | `context` | what every reconcile shares |
//! | `error` | the controller's errors |

mod apply;
mod context;
mod error;
mod execute;
mod live;
mod observe;
mod reconcile;
mod restart;
mod sweep;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use otelagent_core::build::{self, Choice, Engine, Environment, IpFamily};
use otelagent_core::inject::kinds::{BINDING, WEBHOOK_CONFIGURATION};
use otelagent_core::read::Decoded;
use otelagent_core::{in_full, names};
use otelagent_webhook::ca::TRUSTED_ON;
use otelagent_webhook::configuration::Endpoint;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use self::error::ControllerError;
pub(crate) use self::error::Result;

use self::context::{Context, OwnerRole};
use crate::agent_metrics;
use crate::ca_upkeep::CaUpkeep;
use crate::cache::{self, Trigger};
use crate::delivery::Poller;
use crate::discovery;
use crate::runtime::Metrics;

/// Objects reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// Of these, objects over the quota of their namespace.
const OVER_QUOTA_AT_A_TIME: usize = 2;
/// How often the operator looks for cluster-scoped objects without an owner, besides after each deletion.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How long running reconciles may take to end after a shutdown begins.
const GRACE: Duration = Duration::from_secs(10);

/// How the operator was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's own namespace.
    pub namespace: String,
    /// Namespaces whose `OtelAgent`s may use node modes and select other namespaces.
    pub platform_namespaces: BTreeSet<String>,
    /// Image of the bundled agent.
    pub agent_image: String,
    /// The namespace of dry-run pods.
    pub canary_namespace: String,
    /// Name of the `ClusterRole` that owns cluster-scoped objects; without one they stay when the operator is
    /// uninstalled.
    pub owner_role: Option<String>,
    /// Name of this replica, for events.
    pub instance: String,
    /// The settings of injection.
    pub injection: InjectionSettings,
    /// Version of this operator, reported when it renders objects differently from another version.
    pub version: String,
}

/// The controller; it watches but does not write yet.
pub struct Controller {
    context: Arc<Context>,
    injection: InjectionSettings,
    /// The kind whose watch may never be ready, because the manifests that grant it are not installed.
    unreadable: Option<&'static str>,
    watches: JoinSet<ControllerError>,
    trigger: Trigger,
    queue: mpsc::UnboundedReceiver<ObjectRef<Decoded>>,
}

/// Who publishes events.
fn reporter(instance: String) -> Reporter {
    Reporter {
        controller: names::FIELD_MANAGER.into(),
        instance: Some(instance),
    }
}

impl Controller {
    /// Reads the server's version and kinds and starts the watches. Writes nothing.
    ///
    /// # Errors
    /// If the server does not report its version or its API groups.
    pub async fn start(client: Client, settings: Settings, metrics: Metrics) -> Result<Self> {
        let server = discovery::server(&client).await?;
        let family = discovery::family_of_nodes(&client).await?;
        let environment = Environment {
            operator_namespace: settings.namespace.clone(),
            platform_namespaces: settings.platform_namespaces.clone(),
            agent_image: settings.agent_image,
            server: server.version,
            nodes: family.unwrap_or(IpFamily::V4),
            operator_version: settings.version,
        };
        let injection = settings.injection;
        let offers_policies = server.kinds.contains(&BINDING);
        let engine = build::engine(injection.engine, offers_policies, server.version);
        tracing::info!(server = %server.version, engine = ?engine, "server");
        let webhook_owner = names::webhook_owner(&injection.webhook_name);
        let webhook = discovery::owner_role(&client, &webhook_owner).await?;
        // Also if policies inject, to find and remove the webhook configurations of an earlier choice.
        let is_readable = webhook.is_some() || engine == Ok(Engine::Webhook);
        let mut kinds = server.kinds.clone();
        kinds.retain(|kind| *kind != WEBHOOK_CONFIGURATION || is_readable);
        let unreadable = webhook.is_none().then_some(WEBHOOK_CONFIGURATION);
        let (sender, queue) = mpsc::unbounded();
        let namespaces = &settings.platform_namespaces;
        let (stores, watches, trigger) = cache::build(&client, namespaces, &kinds, sender);
        let reporter = reporter(settings.instance);
        let context = Arc::new(Context {
            client: client.clone(),
            environment,
            canary_namespace: settings.canary_namespace,
            engine,
            endpoint: injection.endpoint(&settings.namespace),
            ca_bundle: watch::Sender::new(Err("it has not been read yet".into())),
            ca_problem: watch::Sender::new(None),
            owner: settings.owner_role.map(OwnerRole::named),
            webhook_owner: OwnerRole::named(webhook_owner),
            stores,
            recorder: Recorder::new(client.clone(), reporter),
            metrics,
            polls: Arc::default(),
            over_quota: Semaphore::new(OVER_QUOTA_AT_A_TIME),
            given_ports: Mutex::default(),
            lacking_fields: Mutex::default(),
            memory: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for watch in watches {
            tasks.spawn(async { ControllerError::WatchEnded(watch.await) });
        }
        tasks.spawn(discovery::until_restart_is_due(client, server, family));
        Ok(Self {
            context,
            injection,
            unreadable,
            watches: tasks,
            trigger,
            queue,
        })
    }

    /// Returns once every cache has been filled.
    pub async fn until_synced(&self) {
        self.context.stores.wait_until_ready(self.unreadable).await;
    }

    /// Reconciles until `shutdown`. Only the leader may call it.
    ///
    /// # Errors
    /// If a watch ends for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        self.until_synced().await;
        let Self {
            context,
            injection,
            mut watches,
            trigger,
            queue,
            ..
        } = self;
        trigger.begin();
        if context.engine == Ok(Engine::Webhook) {
            watches.spawn(ca_upkeep(&context, injection, &trigger).run());
        }
        let agents = context.stores.agents.clone();
        context
            .metrics
            .show_agents(move || agent_metrics::shown(&agents));
        let mut polls = JoinSet::new();
        polls.spawn(poller(&context, &trigger).run());
        let reconciles = controller::applier(
            |agent, context| Box::pin(reconcile::reconcile(agent, context)),
            on_error,
            context.clone(),
            context.stores.agents.clone(),
            queue.map(Ok::<_, std::convert::Infallible>),
            controller::Config::default().concurrency(CONCURRENCY),
        );
        let mut reconciles = std::pin::pin!(reconciles.for_each(|_| std::future::ready(())));
        let mut shutdown = std::pin::pin!(shutdown);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                () = &mut reconciles => return Ok(()),
                Some(ended) = watches.join_next() => {
                    return Err(ended.unwrap_or(ControllerError::WatchEnded("unknown")));
                }
                () = trigger.an_object_is_gone() => sweep_once(&context).await,
                _ = sweep.tick() => {
                    context.metrics.objects(context.stores.agents.len());
                    sweep_once(&context).await;
                }
                () = &mut shutdown => break,
            }
        }
        // Without watches the queue ends: running reconciles finish, and no new one begins.
        watches.shutdown().await;
        polls.shutdown().await;
        drop(trigger);
        if tokio::time::timeout(GRACE, reconciles).await.is_err() {
            tracing::warn!(
                "a reconcile did not end in time; the next leader starts from what is observed"
            );
        }
        Ok(())
    }
}

fn ca_upkeep(context: &Context, injection: InjectionSettings, trigger: &Trigger) -> CaUpkeep {
    let namespace = &context.environment.operator_namespace;
    CaUpkeep {
        secrets: Api::namespaced(context.client.clone(), namespace),
        secret: names::ca_secret(&injection.webhook_name),
        file: injection.ca_file,
        trusted_on: injection.ca_trusted_on,
        trusted: context.trusted_ca(),
        lifetime: injection.ca_lifetime,
        bundle: context.ca_bundle.clone(),
        problem: context.ca_problem.clone(),
        trigger: trigger.clone(),
        metrics: context.metrics.clone(),
    }
}

fn poller(context: &Context, trigger: &Trigger) -> Poller {
    let pods = context.stores.pods.clone();
    let environment = context.environment.clone();
    let metrics = context.metrics.clone();
    Poller::new(
        context.polls.clone(),
        pods,
        environment,
        trigger.clone(),
        metrics,
    )
}

async fn sweep_once(context: &Context) {
    let (pods, agents) = observe::orphans(context);
    let before = context.metrics.orphaned_pods(pods);
    if pods > 0 && usize::try_from(before) != Ok(pods) {
        tracing::warn!(
            pods,
            ?agents,
            "pods use OtelAgents that do not exist; restart their workloads"
        );
    }
    for error in sweep::sweep(context).await {
        context.metrics.failed(error.reason());
        let (reason, error) = (error.reason(), in_full(&error));
        tracing::warn!(reason, error, "sweep failed, trying again");
    }
}

#[allow(clippy::needless_pass_by_value)] // kube's runtime requires this signature
fn on_error(agent: Arc<Decoded>, error: &ControllerError, context: Arc<Context>) -> Action {
    context.metrics.failed(error.reason());
    tracing::warn!(
        namespace = agent.namespace(),
        name = agent.name_any(),
        reason = error.reason(),
        error = in_full(error),
        "reconcile failed, trying again"
    );
    // A lagging watch usually catches up soon; a panic is a defect, which trying again at once does not mend. Rights
    // take an administrator, and their return wakes the object.
    match error {
        ControllerError::StaleView(_) => Action::requeue(Duration::from_secs(1)),
        ControllerError::Panicked | ControllerError::PlatformRightsMissing { .. } => {
            Action::requeue(Duration::from_mins(1))
        }
        ControllerError::RightsMissing { .. } => Action::requeue(Duration::from_secs(10)),
        ControllerError::Contested { left, .. } => {
            Action::requeue((*left).max(Duration::from_secs(10)))
        }
        _ => Action::requeue(Duration::from_secs(5)),
    }
}

/// The settings of injection.
#[derive(Clone, Debug)]
pub struct InjectionSettings {
    /// The requested engine.
    pub engine: Choice,
    /// Name of the webhook's Service, of which the names of its owner and of its CA's Secret are made.
    pub webhook_name: String,
    /// The webhook's URL, if it is not reached by its Service: `https://` with host and port.
    pub webhook_url: Option<String>,
    /// A file with the CA certificates of the webhook, if the operator does not make the CA.
    pub ca_file: Option<std::path::PathBuf>,
    /// How long the previous CA certificates of that file stay trusted after a change.
    pub ca_trusted_on: Duration,
    /// How long a CA that the operator makes lives.
    pub ca_lifetime: Duration,
}

impl Default for InjectionSettings {
    fn default() -> Self {
        Self {
            engine: Choice::Auto,
            webhook_name: names::WEBHOOK.into(),
            webhook_url: None,
            ca_file: None,
            ca_trusted_on: TRUSTED_ON,
            ca_lifetime: Duration::from_hours(365 * 24),
        }
    }
}

impl InjectionSettings {
    /// Where webhook configurations send the API server.
    fn endpoint(&self, namespace: &str) -> Endpoint {
        match &self.webhook_url {
            Some(url) => Endpoint::Url(url.clone()),
            None => Endpoint::Service {
                namespace: namespace.to_owned(),
                name: self.webhook_name.clone(),
            },
        }
    }
}
