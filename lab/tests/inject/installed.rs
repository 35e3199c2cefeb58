//! A control plane with what `manifests` install, and the controller in this process.

use std::collections::BTreeSet;

use otelagent_operator::controller::{Controller, InjectionSettings, Settings};
use otelagent_operator::runtime::{Fence, Metrics, client};
use testbed::Bed;
use tokio::task::JoinHandle;

use super::server::{CANARY, Server};

/// A control plane of its own, because the operator sweeps policies that it does not know.
pub(super) fn bed(name: &str) -> Bed {
    let name = format!("{name}-{}", std::process::id());
    let bed = Bed::builder().name(name).start().expect("a control plane");
    let kubectl = |words: &[&str]| {
        let output = bed
            .kubectl()
            .args(words)
            .current_dir(demo::repository())
            .output()
            .unwrap();
        assert!(output.status.success(), "kubectl {words:?}: {output:?}");
    };
    kubectl(&["apply", "-k", "crds"]);
    kubectl(&["apply", "-f", "manifests/default/namespaces.yaml"]);
    kubectl(&["apply", "-f", "manifests/webhook/rbac.yaml"]);
    kubectl(&["apply", "-f", "manifests/webhook/authority.yaml"]);
    let crd = "crd/otelagents.otelagent.dev";
    kubectl(&["wait", "--for=condition=Established", crd]);
    bed
}

/// A controller in this process.
pub(super) struct InstalledOperator(JoinHandle<()>);

impl InstalledOperator {
    pub(super) async fn start(bed: &Bed, injection: InjectionSettings) -> Self {
        let config = Server::config(bed.kubeconfig(), None).await;
        let client = client::connect(config, &Fence::open()).unwrap();
        let settings = Settings {
            namespace: "otelagent-system".into(),
            platform_namespaces: BTreeSet::from(["otelagent-system".to_owned()]),
            agent_image: "otelagent/agent:test".into(),
            canary_namespace: CANARY.into(),
            instance: "test".into(),
            injection,
            version: "0.0.0".into(),
        };
        let controller = Controller::start(client, settings, Metrics::new())
            .await
            .unwrap();
        Self(tokio::spawn(async move {
            let ended = controller.run(std::future::pending()).await;
            panic!("the controller ended by itself: {ended:?}");
        }))
    }

    pub(super) async fn end(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

/// Ends both.
pub(super) async fn end(operator: InstalledOperator, bed: Bed) {
    operator.end().await;
    tokio::task::spawn_blocking(|| bed.stop())
        .await
        .unwrap()
        .unwrap();
}
