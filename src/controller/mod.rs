//! Watches the cluster and carries out what `otelagent_core` decides.
//!
//! | module | does |
//! |---|---|
//! | `reconcile` | one reconcile: observe, validate, build, plan, execute, report |
//! | `observe` | reads the caches into values |
//! | `execute` | executes the steps of a plan |
//! | `live` | asks the API server itself, past the caches |
//! | `apply` | writes and deletes objects |
//! | `restart` | restarts workloads (`workloads.restart: Rolling`) |
//! | `sweep` | removes cluster-scoped objects whose `OtelAgent` is gone |
//! | `context` | what every reconcile shares |
//! | `error` | what can go wrong |

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
use otelagent_core::build::{self, Choice, Engine, Environment};
use otelagent_core::inject::kinds::{BINDING, WEBHOOK_CONFIGURATION};
use otelagent_core::{in_full, names};
use otelagent_webhook::configuration::Endpoint;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::error::ControllerError;
pub(crate) use self::error::Result;

use self::context::Context;
use crate::ca_upkeep::CaUpkeep;
use crate::cache::{self, Decoded, Trigger};
use crate::discovery;
use crate::runtime::Metrics;

/// Objects reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// How often cluster-scoped objects without an owner are looked for, besides after each deletion.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How long reconciles under way may take to end after a shutdown is asked for.
const GRACE: Duration = Duration::from_secs(10);
/// Name of the `ClusterRole` that stands for the installation: what it owns goes with it.
const INSTALLATION: &str = "otelagent-operator";

/// How the operator was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's own namespace.
    pub namespace: String,
    /// Namespaces whose `OtelAgent`s may use node modes and select other namespaces.
    pub platform_namespaces: BTreeSet<String>,
    /// Image of the bundled agent.
    pub agent_image: String,
    /// Where dry-run pods are created.
    pub canary_namespace: String,
    /// Name of this replica, for events.
    pub instance: String,
    /// How injection was set up.
    pub injection: InjectionSettings,
    /// Version of this operator; what it renders otherwise than another version is told with it.
    pub version: String,
}

/// The controller, watching but not writing yet.
pub struct Controller {
    context: Arc<Context>,
    injection: InjectionSettings,
    /// The kind whose watch cannot be waited for: what grants it is not installed.
    unreadable: Option<&'static str>,
    watches: JoinSet<ControllerError>,
    trigger: Trigger,
    queue: mpsc::UnboundedReceiver<ObjectRef<Decoded>>,
}

impl Controller {
    /// Looks at the server and starts the watches. Writes nothing.
    ///
    /// # Errors
    /// When the server cannot be asked for its version or its API groups.
    pub async fn start(client: Client, settings: Settings, metrics: Metrics) -> Result<Self> {
        let server = discovery::server(&client).await?;
        let environment = Environment {
            operator_namespace: settings.namespace.clone(),
            platform_namespaces: settings.platform_namespaces.clone(),
            agent_image: settings.agent_image,
            server: server.version,
            nodes: discovery::family_of_nodes(&client).await?,
            operator_version: settings.version,
        };
        let injection = settings.injection;
        let offers_policies = server.kinds.contains(&BINDING);
        let engine = build::engine(injection.engine, offers_policies, server.version);
        tracing::info!(server = %server.version, engine = ?engine, "server");
        let webhook = discovery::installation(&client, names::WEBHOOK).await?;
        // Also where policies inject: what an earlier choice left must be seen to be removed.
        let is_readable = webhook.is_some() || engine == Ok(Engine::Webhook);
        let mut kinds = server.kinds.clone();
        kinds.retain(|kind| *kind != WEBHOOK_CONFIGURATION || is_readable);
        let unreadable = webhook.is_none().then_some(WEBHOOK_CONFIGURATION);
        let (sender, queue) = mpsc::unbounded();
        let namespaces = &settings.platform_namespaces;
        let (stores, watches, trigger) = cache::build(&client, namespaces, &kinds, sender);
        let reporter = Reporter {
            controller: names::FIELD_MANAGER.into(),
            instance: Some(settings.instance),
        };
        let context = Arc::new(Context {
            client: client.clone(),
            environment,
            canary_namespace: settings.canary_namespace,
            engine,
            endpoint: injection.endpoint(&settings.namespace),
            ca_bundle: watch::Sender::default(),
            installation: discovery::installation(&client, INSTALLATION).await?,
            webhook_installation: Mutex::default(),
            stores,
            recorder: Recorder::new(client.clone(), reporter),
            metrics,
            memory: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for watch in watches {
            tasks.spawn(async { ControllerError::WatchEnded(watch.await) });
        }
        tasks.spawn(async move {
            discovery::until_changed(&client, &server, discovery::ASK_EVERY).await
        });
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

    /// Carries out what is wanted until `shutdown`. Call it as the leader only.
    ///
    /// # Errors
    /// When a watch ends for good.
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
            let namespace = &context.environment.operator_namespace;
            let upkeep = CaUpkeep {
                secrets: Api::namespaced(context.client.clone(), namespace),
                file: injection.authority_file,
                lifetime: injection.authority_life,
                bundle: context.ca_bundle.clone(),
                trigger: trigger.clone(),
                metrics: context.metrics.clone(),
            };
            watches.spawn(upkeep.run());
        }
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
        // Without watches the queue ends; reconciles under way end by themselves, and no new one begins.
        watches.shutdown().await;
        drop(trigger);
        if tokio::time::timeout(GRACE, reconciles).await.is_err() {
            tracing::warn!(
                "a reconcile did not end in time; the next leader starts from what is observed"
            );
        }
        Ok(())
    }
}

async fn sweep_once(context: &Context) {
    if let Err(error) = sweep::sweep(context).await {
        context.metrics.failed(error.reason());
        tracing::warn!(reason = error.reason(), error = %error, "sweep failed, trying again");
    }
}

#[allow(clippy::needless_pass_by_value)] // the signature is the runtime's
fn on_error(agent: Arc<Decoded>, error: &ControllerError, context: Arc<Context>) -> Action {
    context.metrics.failed(error.reason());
    tracing::warn!(
        namespace = agent.namespace(),
        name = agent.name_any(),
        reason = error.reason(),
        error = in_full(error),
        "reconcile failed, trying again"
    );
    // A policy that does not fit needs another spec; a taken name may be that of an object on its way out;
    // a watch that lags is told soon.
    match error {
        ControllerError::StaleView(_) => Action::requeue(Duration::from_secs(1)),
        ControllerError::Policy(_) | ControllerError::Panicked => {
            Action::requeue(Duration::from_mins(1))
        }
        _ => Action::requeue(Duration::from_secs(5)),
    }
}

/// How injection was set up.
#[derive(Clone, Debug)]
pub struct InjectionSettings {
    /// Which engine is asked for.
    pub engine: Choice,
    /// Where the webhook is reached, if not by its Service: `https://` with host and port.
    pub webhook_url: Option<String>,
    /// A file with the certificate authorities of the webhook's certificates, if they are not our own.
    pub authority_file: Option<std::path::PathBuf>,
    /// How long one certificate authority of our own lives.
    pub authority_life: Duration,
}

impl Default for InjectionSettings {
    fn default() -> Self {
        Self {
            engine: Choice::Auto,
            webhook_url: None,
            authority_file: None,
            authority_life: Duration::from_hours(365 * 24),
        }
    }
}

impl InjectionSettings {
    /// Where entries send the API server.
    fn endpoint(&self, namespace: &str) -> Endpoint {
        match &self.webhook_url {
            Some(url) => Endpoint::Url(url.clone()),
            None => Endpoint::Service {
                namespace: namespace.to_owned(),
                name: names::WEBHOOK.into(),
            },
        }
    }
}
