//! A control plane with what `manifests` install, and the controller in this process.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use kube::Config;
use otelagent_operator::controller::{Controller, InjectionSettings, Settings};
use otelagent_operator::runtime::{Fence, Metrics, client};
use serde_json::{Value, json};
use testbed::Bed;
use tokio::task::JoinHandle;

use super::server::{CANARY, Server, is_possible};

/// The longest time to wait for any result; a contest is over only after some minutes.
const PATIENCE: Duration = Duration::from_mins(6);
pub(super) const AGENTS: &str = "/apis/otelagent.dev/v1alpha1/namespaces/shop/otelagents";

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
    kubectl(&["apply", "-f", "manifests/webhook/owner.yaml"]);
    kubectl(&["apply", "-f", "manifests/webhook/rbac.yaml"]);
    kubectl(&["apply", "-f", "manifests/webhook/authority.yaml"]);
    let crd = "crd/otelagents.otelagent.dev";
    kubectl(&["wait", "--for=condition=Established", crd]);
    bed
}

/// A bed of a test's own with the namespace `shop`; `None` where the test cannot run.
pub(super) async fn begin(test: &str, name: &'static str) -> Option<(Bed, Server)> {
    if !is_possible(test) {
        return None;
    }
    let bed = tokio::task::spawn_blocking(|| bed(name)).await.unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    server.namespace("shop", json!({})).await;
    Some((bed, server))
}

/// A controller in this process.
pub(super) struct InstalledOperator(JoinHandle<()>);

impl InstalledOperator {
    pub(super) async fn start(bed: &Bed, injection: InjectionSettings) -> Self {
        Self::start_as(bed, injection, None, None).await
    }

    /// As another user, and with an owner of what it writes for the whole cluster.
    pub(super) async fn start_as(
        bed: &Bed,
        injection: InjectionSettings,
        user: Option<&str>,
        owner_role: Option<&str>,
    ) -> Self {
        let config = Server::config(bed.kubeconfig(), user).await;
        Self::of(config, injection, owner_role).await
    }

    /// At another API server than the bed's first.
    pub(super) async fn start_at(kubeconfig: &Path, injection: InjectionSettings) -> Self {
        let config = Server::config(kubeconfig, None).await;
        Self::of(config, injection, None).await
    }

    async fn of(config: Config, injection: InjectionSettings, owner_role: Option<&str>) -> Self {
        let client = client::connect(config, &Fence::open()).unwrap();
        let settings = Settings {
            namespace: "otelagent-system".into(),
            platform_namespaces: BTreeSet::from(["otelagent-system".to_owned()]),
            agent_image: "otelagent/agent:test".into(),
            canary_namespace: CANARY.into(),
            owner_role: owner_role.map(Into::into),
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

/// Applies the `OtelAgent` `side` to namespace `shop`: a sidecar for these workloads.
pub(super) async fn apply_side(server: &Server, workloads: Value) {
    let side = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": "side"},
        "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"}, "workloads": workloads}});
    let applied = server.apply_at(AGENTS, "side", &side).await;
    assert!(applied.is_ok(), "{applied:?}");
}

/// Waits until a condition of `side` is as asked for.
pub(super) async fn until_condition(
    server: &Server,
    what: &str,
    type_: &str,
    is_so: impl Fn(&Value) -> bool,
) {
    let begun = Instant::now();
    loop {
        let found = condition(server, type_).await;
        if is_so(&found) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: {found:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A condition of the `OtelAgent` `side` in namespace `shop`; null where it has none.
pub(super) async fn condition(server: &Server, type_: &str) -> Value {
    let agent = server.get(&format!("{AGENTS}/side")).await;
    let conditions = agent.body["status"]["conditions"].as_array().cloned();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == type_);
    found.unwrap_or_default()
}
