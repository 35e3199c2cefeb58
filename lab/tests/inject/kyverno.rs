//! Kyverno as other people's admission, by its real admission controller: it rewrites images, demands limits and labels.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use demo::wait::{Seen, until};
use otelagent_core::build::Choice;
use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};
use testbed::Bed;
use testbed::parts::{self, Part};

use super::installed::{self, InstalledOperator, apply_side, bed, until_condition};
use super::server::{self, CANARY, PATIENCE, Server};
use crate::test_scale::is_full;

const NAMESPACE: &str = "kyverno";
const METRICS: &str = "kyverno-metrics";
const POLICIES: &str = "/apis/kyverno.io/v1/clusterpolicies";

/// With `make test-full`: Kyverno takes minutes to build.
#[tokio::test(flavor = "multi_thread")]
async fn kyverno_before_and_after_installation_leaves_injection_active() {
    if !is_full() || !server::is_possible("Kyverno") {
        return;
    }
    let (bed, kyverno) = tokio::task::spawn_blocking(|| {
        let bed = bed("kyverno");
        let kyverno = Kyverno::start(&bed);
        (bed, kyverno)
    })
    .await
    .unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    server.namespace("shop", json!({})).await;

    // The operator is there first.
    let operator = InstalledOperator::start(&bed, policy_engine()).await;
    apply_side(&server, json!({"flushInterval": "500ms"})).await;
    until_condition(&server, "injected", "Injected", is_active).await;
    apply(&server, &mirror()).await;
    apply(&server, &limits()).await;
    until_policies_act(&server).await;
    pod_is_injected_and_rewritten(&server).await;

    // Kyverno is there first.
    operator.end().await;
    let operator = InstalledOperator::start(&bed, policy_engine()).await;
    apply_side(&server, json!({"flushInterval": "600ms"})).await;
    server
        .until("the new configuration", async || {
            let pod = server.dry_run("shop", &application(true)).await;
            // OTEL_BSP_SCHEDULE_DELAY, in milliseconds.
            let flush = pod.body.to_string().contains("\"600\"");
            flush.then_some(()).ok_or(format!("{pod:?}"))
        })
        .await;
    for type_ in ["Injected", "Ready"] {
        until_condition(&server, "beside Kyverno", type_, |condition| {
            condition["status"] == "True"
        })
        .await;
    }
    pod_is_injected_and_rewritten(&server).await;

    // What refuses the canary's pods is named, and what serves goes on.
    apply(&server, &owners(&["shop"])).await;
    server
        .until("Kyverno refuses the canary's pods", async || {
            let refused = server.dry_run(CANARY, &application(true)).await;
            (refused.status >= 400)
                .then_some(())
                .ok_or(format!("{refused:?}"))
        })
        .await;
    apply_side(&server, json!({"flushInterval": "700ms"})).await;
    until_condition(&server, "refused", "Injected", |condition| {
        let message = condition["message"].as_str().unwrap_or_default();
        let parts = ["the previous one stays active", "owners say no", CANARY];
        condition["reason"] == "CanaryRefused" && parts.iter().all(|part| message.contains(part))
    })
    .await;
    pod_is_injected_and_rewritten(&server).await;
    apply(&server, &owners(&["shop", CANARY])).await;
    until_condition(&server, "exempt", "Injected", is_active).await;

    drop(kyverno);
    installed::end(operator, bed).await;
}

fn policy_engine() -> InjectionSettings {
    InjectionSettings {
        engine: Choice::Policy,
        ..InjectionSettings::default()
    }
}

fn is_active(condition: &Value) -> bool {
    condition["status"] == "True" && condition["reason"] == "Active"
}

/// A pod of an application, with limits or without.
fn application(is_limited: bool) -> Value {
    let limits = json!({"cpu": "1m", "memory": "1Mi"});
    let limits = if is_limited { limits } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"},
        "spec": {"containers": [{"name": "app", "image": "ghcr.io/shop/app:1", "resources": {"limits": limits},
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}}]}})
}

fn policy(name: &str, rule: Value) -> Value {
    json!({"apiVersion": "kyverno.io/v1", "kind": "ClusterPolicy", "metadata": {"name": name},
        "spec": {"background": false, "rules": [rule]}})
}

fn pods() -> Value {
    json!({"any": [{"resources": {"kinds": ["Pod"], "operations": ["CREATE"]}}]})
}

/// All images come from a mirror.
fn mirror() -> Value {
    let each = |list: &str| {
        json!({
            "list": format!("request.object.spec.{list} || `[]`"),
            "patchStrategicMerge": {"spec": {list: [
                {"(name)": "{{ element.name }}", "image": "mirror.local/{{ element.image }}"},
            ]}},
            "preconditions": {"all": [
                {"key": "{{ element.image }}", "operator": "NotEquals", "value": "mirror.local/*"},
            ]},
        })
    };
    let foreach = [each("containers"), each("initContainers")];
    let mut rule = json!({"name": "mirror", "match": pods()});
    rule["mutate"] = json!({"foreach": foreach});
    policy("mirror", rule)
}

/// Every container has limits.
fn limits() -> Value {
    let limited = json!({"resources": {"limits": {"cpu": "?*", "memory": "?*"}}});
    let pattern = json!({"spec": {"=(initContainers)": [limited], "containers": [limited]}});
    let mut rule = json!({"name": "limits", "match": pods()});
    rule["validate"] =
        json!({"failureAction": "Enforce", "message": "limits are missing", "pattern": pattern});
    policy("limits", rule)
}

/// Every pod says whose it is, but for those of some namespaces.
fn owners(exempt: &[&str]) -> Value {
    let mut rule = json!({"name": "owners", "match": pods()});
    rule["exclude"] = json!({"any": [{"resources": {"namespaces": exempt}}]});
    rule["validate"] = json!({"failureAction": "Enforce", "message": "owners say no",
        "pattern": {"metadata": {"labels": {"owner": "?*"}}}});
    policy("owners", rule)
}

async fn apply(server: &Server, policy: &Value) {
    let name = policy["metadata"]["name"].as_str().unwrap();
    server
        .until("Kyverno takes the policy", async || {
            let answer = server.apply_at(POLICIES, name, policy).await;
            answer
                .is_ok()
                .then_some(())
                .ok_or_else(|| format!("{}", answer.body["message"]))
        })
        .await;
}

async fn until_policies_act(server: &Server) {
    server
        .until("Kyverno acts on pods", async || {
            let refused = server.dry_run("shop", &application(false)).await;
            let taken = server.dry_run("shop", &application(true)).await;
            let image = &taken.body["spec"]["containers"][0]["image"];
            let acts = refused.status >= 400 && *image == "mirror.local/ghcr.io/shop/app:1";
            acts.then_some(()).ok_or(format!("{refused:?} {taken:?}"))
        })
        .await;
}

async fn pod_is_injected_and_rewritten(server: &Server) {
    let answer = server.dry_run("shop", &application(true)).await;
    assert!(answer.is_ok(), "{}", answer.body["message"]);
    assert_eq!(answer.label(names::LABEL_AGENT), Some("shop.side"));
    let spec = &answer.body["spec"];
    let agent = &spec["initContainers"][0];
    assert_eq!(agent["name"], names::CONTAINER);
    for container in [agent, &spec["containers"][0]] {
        let image = container["image"].as_str().unwrap();
        assert!(image.starts_with("mirror.local/"), "{container:#}");
    }
}

/// Kyverno's admission controller as a process beside the API server, until it is dropped.
struct Kyverno(Child);

impl Kyverno {
    fn start(bed: &Bed) -> Self {
        let program = parts::ensure(Part::Kyverno).expect("Kyverno");
        let sources = parts::sources(Part::Kyverno).expect("Kyverno's manifests");
        let kubectl = |words: &[&str]| {
            let output = bed.kubectl().args(words).output().unwrap();
            assert!(output.status.success(), "kubectl {words:?}: {output:?}");
        };
        let crds = sources.join("config/crds");
        let crds = crds.display().to_string();
        let apply = ["apply", "--server-side", "--recursive", "--filename"];
        kubectl(&[&apply[..], &[&crds]].concat());
        kubectl(&["create", "namespace", NAMESPACE]);
        let elsewhere = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn",
            "values": ["kube-system", NAMESPACE]}]});
        let webhooks = format!("--from-literal=webhooks={{\"namespaceSelector\":{elsewhere}}}");
        let namespace = format!("--namespace={NAMESPACE}");
        kubectl(&["create", "configmap", "kyverno", &webhooks, &namespace]);
        kubectl(&["create", "configmap", METRICS, &namespace]);
        let address = free_port(bed.host_ip());
        let log_path = bed.log_dir().join("kyverno.log");
        let log = File::create(&log_path).expect("a log");
        let child = Command::new(program)
            .arg(format!("--kubeconfig={}", bed.kubeconfig().display()))
            .arg(format!("--serverIP={address}"))
            .arg(format!("--webhookServerHost={}", address.ip()))
            .arg(format!("--webhookServerPort={}", address.port()))
            .args(["--caSecretName=kyverno-ca", "--tlsSecretName=kyverno-tls"])
            .args([
                "--disableMetrics",
                "--admissionReports=false",
                "--controllerRuntimeMetricsAddress=0",
                "--autoMemLimitEnabled=false",
            ])
            .envs([
                ("KYVERNO_NAMESPACE", NAMESPACE),
                ("KYVERNO_SERVICEACCOUNT_NAME", "kyverno"),
                ("KYVERNO_DEPLOYMENT", "kyverno"),
                ("KYVERNO_POD_NAME", "kyverno"),
                ("INIT_CONFIG", "kyverno"),
                ("METRICS_CONFIG", METRICS),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let mut kyverno = Self(child.expect("Kyverno runs"));
        kyverno.until_it_listens(address, &log_path);
        kyverno
    }

    fn until_it_listens(&mut self, address: SocketAddr, log: &Path) {
        until("Kyverno listening", PATIENCE, || {
            let ended = self.0.try_wait().expect("the state of Kyverno");
            let log = std::fs::read_to_string(log).expect("a log");
            let lines: Vec<&str> = log.lines().rev().take(5).collect();
            assert!(ended.is_none(), "Kyverno: {ended:?} {lines:#?}");
            let listens = TcpStream::connect(address).is_ok();
            Ok(Seen::check(listens, format!("{lines:#?}")))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    }
}

impl Drop for Kyverno {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port of an address at which nobody listens now.
fn free_port(address: IpAddr) -> SocketAddr {
    let free = TcpListener::bind((address, 0)).unwrap();
    free.local_addr().unwrap()
}
