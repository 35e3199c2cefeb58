//! Shell. Watches the cluster and carries out what the pure rooms decide.
//!
//! Here stands I/O and no decision: [`reconcile`](self) reads caches into values, asks `desired`,
//! `switching`, `inject` and `status` what they mean, and writes the answer.

mod apply;
mod context;
mod error;
mod fresh;
mod injection;
mod kept;
mod observe;
mod reconcile;
mod report;
mod restart;
mod slim;
mod stores;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::PartialObjectMeta;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinSet;

pub use self::error::ControllerError;

use self::context::Context;
use self::stores::{Guarded, Trigger};
use crate::desired::{Environment, ServerVersion};
use crate::process::{Metrics, in_full};

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
    /// Version of this operator; what it renders otherwise than another version is told with it.
    pub version: String,
}

/// The controller, watching but not writing yet.
pub struct Controller {
    context: Arc<Context>,
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
        let (environment, policy_engine) = look_at_server(&client, &settings).await?;
        tracing::info!(server = %environment.server, policy_engine, "server");
        let (sender, queue) = mpsc::unbounded();
        let namespaces = settings.platform_namespaces.iter().cloned();
        let (stores, watches, trigger) = stores::build(&client, namespaces, policy_engine, sender);
        let reporter = Reporter {
            controller: crate::names::FIELD_MANAGER.into(),
            instance: Some(settings.instance),
        };
        let context = Arc::new(Context::new(
            client.clone(),
            environment,
            settings.canary_namespace,
            policy_engine,
            installation(&client).await?,
            stores,
            Recorder::new(client, reporter),
            metrics,
        ));
        let watches = watches.into_iter().collect();
        Ok(Self {
            context,
            watches,
            trigger,
            queue,
        })
    }

    /// Returns once every cache has been filled.
    pub async fn until_synced(&self) {
        self.context.stores.wait_until_ready().await;
    }

    /// Carries out what is wanted until `shutdown`. Call it as the leader only.
    ///
    /// # Errors
    /// When a watch ends for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ControllerError> {
        let Self {
            context,
            mut watches,
            trigger,
            queue,
        } = self;
        context.stores.wait_until_ready().await;
        trigger.begin();
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
        ControllerError::Policy(_) => Action::requeue(Duration::from_mins(1)),
        _ => Action::requeue(Duration::from_secs(5)),
    }
}

/// The server's version, and whether it mutates by policy.
async fn look_at_server(
    client: &Client,
    settings: &Settings,
) -> Result<(Environment, bool), ControllerError> {
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
    let policy_engine = resources
        .resources
        .iter()
        .any(|resource| resource.name == "mutatingadmissionpolicies");
    let environment = Environment {
        operator_namespace: settings.namespace.clone(),
        platform_namespaces: settings.platform_namespaces.clone(),
        agent_image: settings.agent_image.clone(),
        server,
        operator_version: settings.version.clone(),
    };
    Ok((environment, policy_engine))
}

/// Owner reference to the operator's `ClusterRole`, so that cluster-scoped objects go with the
/// installation even if the operator went first. Absent where it runs outside a cluster.
async fn installation(client: &Client) -> Result<Option<serde_json::Value>, ControllerError> {
    let api: Api<PartialObjectMeta<ClusterRole>> = Api::all(client.clone());
    let found = api
        .get_opt(INSTALLATION)
        .await
        .map_err(ControllerError::api("read the installation's ClusterRole"))?;
    Ok(found.and_then(|role| role.uid()).map(|uid| {
        serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "name": INSTALLATION,
            "uid": uid,
        })
    }))
}
