//! One controller after the other: each starts with nothing but a client, and ends when that dies.

use std::collections::BTreeSet;
use std::time::Duration;

use otelagent_operator::controller::{Controller, Settings};
use otelagent_operator::runtime::{Fence, Metrics, client};
use tokio::task::JoinHandle;

use super::cluster::Cluster;
use super::faults::{self, Faults, Life};

/// Never pulled: nothing runs on these nodes.
pub(super) const AGENT_IMAGE: &str = "otelagent/agent:test";

/// A controller that is restarted whenever it has died.
pub(super) struct Operator {
    supervisor: Option<JoinHandle<()>>,
}

impl Operator {
    /// Starts the first.
    pub(super) fn start(cluster: &'static Cluster, namespace: &str, faults: &Faults) -> Self {
        Self::start_with(cluster, namespace, faults, settings(namespace))
    }

    /// The same with settings of its own.
    pub(super) fn start_with(
        cluster: &'static Cluster,
        namespace: &str,
        faults: &Faults,
        settings: Settings,
    ) -> Self {
        let (namespace, faults) = (namespace.to_owned(), faults.clone());
        let supervisor = tokio::spawn(async move {
            loop {
                live(cluster, &namespace, &faults, settings.clone()).await;
                // A dead process is started again, not at once.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Self {
            supervisor: Some(supervisor),
        }
    }

    /// Ends the present one, without another.
    pub(super) async fn stop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.abort();
            let _ = supervisor.await;
        }
    }
}

/// One life, from the first request to death.
async fn live(cluster: &Cluster, namespace: &str, faults: &Faults, settings: Settings) {
    let life = Life::new();
    let inner = client::connect(cluster.as_operator().await, &Fence::open()).unwrap();
    let client = faults::client(inner, faults.clone(), life.clone(), namespace);
    // Dropped at the first select that death wins: with it go its tasks, caches and memory.
    let lives = async {
        let controller = Controller::start(client, settings, Metrics::new()).await?;
        controller.run(std::future::pending()).await
    };
    tokio::select! {
        () = life.ended() => {}
        ended = lives => panic!("the controller ended by itself: {ended:?}"),
    }
}

/// How an operator is started whose only platform namespace is that of a run.
pub(super) fn settings(namespace: &str) -> Settings {
    Settings {
        namespace: "otelagent-system".into(),
        platform_namespaces: BTreeSet::from([namespace.to_owned()]),
        agent_image: AGENT_IMAGE.into(),
        canary_namespace: "otelagent-canary".into(),
        owner_role: Some("otelagent-owner".into()),
        instance: "test".into(),
        injection: otelagent_operator::controller::InjectionSettings::default(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
