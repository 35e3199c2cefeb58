//! Shell. Watches the cluster and carries out what the pure rooms decide.
//!
//! Here stands I/O and no decision: [`reconcile`](self) reads caches into values, asks `desired`,
//! `switching`, `inject` and `status` what they mean, and writes the answer.

mod apply;
mod authorities;
mod bounds;
mod context;
mod engine;
mod error;
mod fresh;
mod guarded;
mod injection;
mod kept;
mod observe;
mod reconcile;
mod report;
mod restart;
mod rivals;
mod slim;
mod stores;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;

pub use self::engine::InjectionSettings;
pub use self::error::ControllerError;

use self::context::Context;
use self::stores::{ADMISSION_KINDS, BINDING, ENTRY, Guarded, Trigger};
use crate::runtime::Metrics;
use otelagent_core::build::{self, Engine, Environment, IpFamily, ServerVersion};
use otelagent_core::in_full;
use otelagent_core::names;

/// Objects reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// How often owners of cluster-scoped objects are looked for, beside after each deletion seen.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// How long passes under way may take to end after a shutdown is asked for.
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
    /// Kinds whose watch cannot be waited for: what grants it is not installed.
    unreadable: Vec<&'static str>,
    watches: JoinSet<&'static str>,
    trigger: Trigger,
    queue: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
}

impl Controller {
    /// Looks at the server and starts the watches. Writes nothing.
    ///
    /// # Errors
    /// When the server cannot be asked for its version or its API groups.
    pub async fn start(
        client: Client,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, ControllerError> {
        let (environment, served) = look_at_server(&client, &settings).await?;
        let injection = settings.injection;
        let offers_policies = served.contains(&BINDING);
        let engine = build::engine(injection.engine, offers_policies, environment.server);
        tracing::info!(server = %environment.server, engine = ?engine, "server");
        let webhook = engine::installation(&client, names::WEBHOOK).await?;
        // Also where policies inject: what an earlier choice left must be seen to be removed.
        let is_readable =
            |kind: &&str| *kind != ENTRY || webhook.is_some() || engine == Ok(Engine::Webhook);
        let kinds: Vec<&'static str> = served.into_iter().filter(is_readable).collect();
        let unreadable = kinds
            .iter()
            .copied()
            .filter(|kind| *kind == ENTRY && webhook.is_none())
            .collect();
        let (sender, queue) = mpsc::unbounded();
        let namespaces = &settings.platform_namespaces;
        let (stores, watches, trigger) = stores::build(&client, namespaces, &kinds, sender);
        let reporter = Reporter {
            controller: otelagent_core::names::FIELD_MANAGER.into(),
            instance: Some(settings.instance),
        };
        let context = Arc::new(Context::new(
            client.clone(),
            environment,
            settings.canary_namespace,
            engine,
            injection.endpoint(&settings.namespace),
            engine::installation(&client, INSTALLATION).await?,
            stores,
            Recorder::new(client, reporter),
            metrics,
        ));
        let watches = watches.into_iter().collect();
        Ok(Self {
            context,
            injection,
            unreadable,
            watches,
            trigger,
            queue,
        })
    }

    /// Returns once every cache has been filled.
    pub async fn until_synced(&self) {
        self.context.stores.wait_until_ready(&self.unreadable).await;
    }

    /// Carries out what is wanted until `shutdown`. Call it as the leader only.
    ///
    /// # Errors
    /// When a watch ends for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ControllerError> {
        let Self {
            context,
            injection,
            unreadable,
            mut watches,
            trigger,
            queue,
        } = self;
        context.stores.wait_until_ready(&unreadable).await;
        trigger.begin();
        if context.engine == Ok(Engine::Webhook) {
            watches.spawn(authorities::keep(
                context.clone(),
                injection,
                trigger.clone(),
            ));
        }
        let passes = controller::applier(
            |agent, context| Box::pin(reconcile::reconcile(agent, context)),
            on_error,
            context.clone(),
            context.stores.agents.clone(),
            queue.map(Ok::<_, std::convert::Infallible>),
            controller::Config::default().concurrency(CONCURRENCY),
        );
        let mut passes = std::pin::pin!(passes.for_each(|_| std::future::ready(())));
        let mut shutdown = std::pin::pin!(shutdown);
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                () = &mut passes => return Ok(()),
                Some(ended) = watches.join_next() => {
                    return Err(ControllerError::WatchEnded(ended.unwrap_or("unknown")));
                }
                () = trigger.an_object_is_gone() => sweep_once(&context).await,
                _ = sweep.tick() => {
                    context.metrics.objects(context.stores.agents.len());
                    sweep_once(&context).await;
                }
                () = &mut shutdown => break,
            }
        }
        // Without watches the queue ends; passes under way end by themselves, and no new one begins.
        watches.shutdown().await;
        drop(trigger);
        if tokio::time::timeout(GRACE, passes).await.is_err() {
            tracing::warn!("a pass did not end in time; the next leader evaluates everything anew");
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
fn on_error(agent: Arc<Guarded>, error: &ControllerError, context: Arc<Context>) -> Action {
    context.metrics.failed(error.reason());
    tracing::warn!(
        namespace = agent.namespace(),
        name = agent.name_any(),
        reason = error.reason(),
        error = in_full(error),
        "pass failed, trying again"
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

/// The family of the nodes' first addresses, which is the same on all of them. Where there is no node yet
/// it is taken for IPv4.
async fn family_of_nodes(client: &Client) -> Result<IpFamily, ControllerError> {
    let one = ListParams::default().limit(1);
    let nodes = Api::<Node>::all(client.clone()).list(&one).await;
    let nodes = nodes.map_err(ControllerError::api("ask for a node"))?;
    let status = nodes.items.first().and_then(|node| node.status.as_ref());
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let mut internal = addresses.into_iter().flatten();
    let first = internal.find(|address| address.type_ == "InternalIP");
    let is_v6 = first.is_some_and(|first| first.address.contains(':'));
    Ok(if is_v6 { IpFamily::V6 } else { IpFamily::V4 })
}

/// The server's version, and which admission kinds it serves.
async fn look_at_server(
    client: &Client,
    settings: &Settings,
) -> Result<(Environment, Vec<&'static str>), ControllerError> {
    let info = client
        .apiserver_version()
        .await
        .map_err(ControllerError::api("read the server's version"))?;
    let server = ServerVersion::parse(&info.major, &info.minor)
        .ok_or_else(|| ControllerError::Version(format!("{}.{}", info.major, info.minor)))?;
    let resources = client
        .list_api_group_resources("admissionregistration.k8s.io/v1")
        .await
        .map_err(ControllerError::api(
            "list the server's admission resources",
        ))?;
    let is_served = |kind: &&str| resources.resources.iter().any(|known| known.kind == *kind);
    let kinds = ADMISSION_KINDS.into_iter().filter(is_served).collect();
    let environment = Environment {
        operator_namespace: settings.namespace.clone(),
        platform_namespaces: settings.platform_namespaces.clone(),
        agent_image: settings.agent_image.clone(),
        server,
        nodes: family_of_nodes(client).await?,
        operator_version: settings.version.clone(),
    };
    Ok((environment, kinds))
}
