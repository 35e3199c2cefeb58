//! Argo Rollouts, by their real controller: one name over releases.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use testbed::parts::{self, Part};

use super::{
    PLATFORM, create, deployment, for_label, until_counted, until_right, until_said, world,
};
use crate::test_scale::is_full;
use crate::threats::bed::{Caller, ThreatBed, is_possible, until};

const NAMESPACE: &str = "a-shop";
const PATIENCE: Duration = Duration::from_mins(5);

/// With `make test-full`: the controller takes minutes to build.
#[tokio::test(flavor = "multi_thread")]
async fn rollout_keeps_its_name_over_releases_and_is_named_as_owner() {
    if !is_full() || !is_possible("Argo Rollouts") {
        return;
    }
    let world = world().await;
    let _controller = tokio::task::spawn_blocking(|| Controller::start(world))
        .await
        .unwrap();
    let admin = world.admin().await;
    admin.namespace(NAMESPACE, json!({"argo": "yes"})).await;
    create(&admin, PLATFORM, "argo", &for_label("NodeLocal", "argo")).await;
    admin.until_injecting(PLATFORM, "argo").await;
    let mut rollout = deployment("shop", 2, &json!({}));
    rollout["apiVersion"] = "argoproj.io/v1alpha1".into();
    rollout["kind"] = "Rollout".into();
    rollout["spec"]["strategy"] = json!({"canary": {}});
    let rollouts = format!("/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/rollouts");
    admin.must(Method::POST, &rollouts, &rollout).await;
    let first = until_released(&admin, None).await;

    let release = json!({"spec": {"template": {"metadata": {"annotations": {"release": "2"}}}}});
    let path = format!("{rollouts}/shop");
    admin.must(Method::PATCH, &path, &release).await;
    let second = until_released(&admin, Some(&first)).await;
    assert_ne!(first, second);
    until_counted(&admin, (PLATFORM, "argo"), &[("current", 2)]).await;

    let change = json!({"workloads": {"flushInterval": "3s", "restart": "Rolling"}});
    assert!(admin.change(PLATFORM, "argo", &change).await.is_ok());
    let stale = [("stale", 2), ("current", 0)];
    let (_, message) = until_said(&admin, (PLATFORM, "argo"), "OlderConfiguration", &stale).await;
    assert!(message.contains("Rollout a-shop/shop: 2"), "{message}");
    until_right(world, PLATFORM, "argo").await;
}

/// Waits until two pods of one release run, another than the one before, which say the Rollout's name; the release.
async fn until_released(admin: &Caller, before: Option<&str>) -> String {
    until("two pods of a release", async || {
        let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
        let pods = admin.list(&pods).await;
        let release = |pod: &Value| {
            let hash = &pod["metadata"]["labels"]["rollouts-pod-template-hash"];
            hash.as_str().unwrap_or_default().to_owned()
        };
        let mut releases: Vec<String> = pods.iter().map(release).collect();
        let seen = format!("{releases:?}");
        releases.dedup();
        let [one] = releases.as_slice() else {
            return Err(seen);
        };
        if pods.len() != 2 || before == Some(one) {
            return Err(seen);
        }
        for pod in &pods {
            let env = pod["spec"]["containers"][0]["env"].as_array();
            let mut env = env.into_iter().flatten();
            let name = env.find(|variable| variable["name"] == "OTEL_SERVICE_NAME");
            assert_eq!(name.map(|name| &name["value"]), Some(&json!("shop")));
        }
        Ok(one.clone())
    })
    .await
}

/// Argo's controller, until it is dropped.
struct Controller(Child);

impl Controller {
    fn start(world: &ThreatBed) -> Self {
        let program = parts::ensure(Part::ArgoRollouts).expect("Argo's controller");
        let sources = parts::sources(Part::ArgoRollouts).expect("Argo's manifests");
        let crds = sources.join("manifests/crds").display().to_string();
        world.kubectl(&["apply", "--server-side", "-k", &crds]);
        // An object without any condition yet is an error to kubectl.
        let wait = [
            "wait",
            "--for=condition=Established",
            "crd/rollouts.argoproj.io",
        ];
        let is_there = || {
            let output = world.bed.kubectl().args(wait).output();
            output.is_ok_and(|output| output.status.success())
        };
        let begun = Instant::now();
        while !is_there() {
            assert!(begun.elapsed() < PATIENCE, "Argo's kinds are not there");
        }
        let port = || {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            free.local_addr().unwrap().port()
        };
        let child = Command::new(program)
            .arg(format!("--kubeconfig={}", world.bed.kubeconfig().display()))
            .arg("--leader-elect=false")
            .arg(format!("--metricsport={}", port()))
            .arg(format!("--healthzPort={}", port()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("Argo's controller runs"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
