//! The operator and the webhook, as processes with the accounts and the command lines that the chart renders, under the
//! names of any release.

use std::fs::OpenOptions;
use std::net::{IpAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use otelagent_core::names;
use serde_json::{Value, json};

use super::bed::{HelmBed, Release, until};
use super::program::{chart, each};

/// A release, its options, and the beginning of its names.
const RELEASES: [(Release, &str, &str); 2] = [
    (
        Release {
            name: "edge",
            namespace: "observability",
        },
        "--set=nameOverride=telemetry,canaryNamespace.name=dry-runs,serviceAccount.name=robot",
        "edge-telemetry",
    ),
    (
        Release {
            name: "otelagent",
            namespace: "platform",
        },
        "--set=fullnameOverride=acme,platformNamespaces={platform,fleet}",
        "acme",
    ),
];

#[test]
fn operator_injects_by_policies_and_by_the_webhook_under_any_names() {
    for helm in each("other names of the chart") {
        let world = HelmBed::start("helm-names", helm);
        for namespace in ["shop", "fleet"] {
            world.must(&["create", "namespace", namespace]);
        }
        for (release, options, fullname) in RELEASES {
            for engine in ["policy", "webhook"] {
                works(&world, release, fullname, &[options, engine]);
            }
        }
        world.end();
    }
}

fn works(world: &HelmBed, release: Release, fullname: &str, [options, engine]: &[&str; 2]) {
    let engine = format!("--set=webhook.enabled=true,injectionEngine={engine}");
    // The CRD stays from release to release.
    world.install(release, &chart(), &[options, &engine, "--take-ownership"]);
    let crd = "crd/otelagents.otelagent.dev";
    world.must(&["wait", "--for=condition=Established", crd]);
    let host = world.bed.host_ip();
    let port = free_port(host);
    let address = format!("--address={host}:{port}");
    let operator = format!("{fullname}-operator");
    let webhook = format!("{fullname}-webhook");
    let processes = [
        Process::of(world, release, &operator, &[]),
        Process::of(world, release, &webhook, &[&address]),
    ];
    slice(world, release, &webhook, port);

    world.apply(&side());
    world.apply(&node(release.namespace));
    until("injection is active", || {
        let agent = world.find("shop", "otelagent/side").unwrap_or_default();
        let conditions = agent["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let injected = conditions.find(|condition| condition["type"] == "Injected");
        let injected = injected.cloned().unwrap_or_default();
        (injected["reason"] == "Active")
            .then_some(())
            .ok_or(injected.to_string())
    });
    assert_eq!(mode_of_new_pod(world), "Sidecar");
    until("agents on nodes", || {
        let found = world.find(release.namespace, "daemonset/node-node-local");
        found.map(drop).ok_or("no DaemonSet".to_owned())
    });
    only_dry_runs(world, release, &operator);
    ends(world, release, processes);
}

/// What the API server would make of a pod.
fn mode_of_new_pod(world: &HelmBed) -> String {
    let file = world.helm.directory().join("pod.json");
    std::fs::write(&file, pod("shop").to_string()).unwrap();
    let words = ["create", "--dry-run=server", "--output=json", "-f"];
    let printed = world.must(&[&words[..], &[&file.to_string_lossy()]].concat());
    let pod: Value = serde_json::from_str(&printed).unwrap();
    let mode = &pod["metadata"]["labels"][names::LABEL_MODE];
    mode.as_str().unwrap_or_default().to_owned()
}

/// The guard knows the account and the canary namespace by the names that the chart gave them.
fn only_dry_runs(world: &HelmBed, release: Release, operator: &str) {
    let deployment = world.find(release.namespace, &format!("deployment/{operator}"));
    let spec = deployment.unwrap()["spec"]["template"]["spec"].take();
    let account = spec["serviceAccountName"].as_str().unwrap();
    let args = spec["containers"][0]["args"].to_string();
    let canary = if args.contains("--canary-namespace=dry-runs") {
        "dry-runs"
    } else {
        "otelagent-canary"
    };
    let file = world.helm.directory().join("real.json");
    std::fs::write(&file, pod(canary).to_string()).unwrap();
    let user = format!("--as=system:serviceaccount:{}:{account}", release.namespace);
    let file = file.to_string_lossy();
    let create = ["create", "-f", &file, "--validate=false", &user];
    until("the guard", || {
        let refused = world.kubectl(&create);
        let why = refused.expect_err("a pod was created");
        why.contains("only as dry run").then_some(()).ok_or(why)
    });
    world.must(&[&create[..], &["--dry-run=server"]].concat());
}

/// What the operator wrote for the whole cluster goes with the release.
fn ends(world: &HelmBed, release: Release, processes: [Process; 2]) {
    drop(processes);
    world.helm(release, &["uninstall", release.name]);
    let kinds = "mutatingadmissionpolicies,mutatingadmissionpolicybindings,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings,mutatingwebhookconfigurations,clusterroles,clusterrolebindings";
    until("nothing is left of the release", || {
        let left = world.must(&["get", kinds, "--output=name"]);
        let beginnings = ["otelagent", "acme", "edge-telemetry"];
        let is_ours = |line: &&str| {
            let name = line.split('/').next_back().unwrap_or_default();
            beginnings
                .iter()
                .any(|beginning| name.starts_with(beginning))
        };
        let left: Vec<&str> = left.lines().filter(is_ours).collect();
        left.is_empty().then_some(()).ok_or(format!("{left:?}"))
    });
    for (namespace, name) in [("shop", "side"), (release.namespace, "node")] {
        world.must(&["delete", "otelagent", name, "--namespace", namespace]);
    }
    until("the canary namespace is gone", || {
        let words = ["get", "namespace", "otelagent-canary", "dry-runs"];
        let left = world.must(&[&words[..], &["--ignore-not-found"]].concat());
        left.trim().is_empty().then_some(()).ok_or(left)
    });
}

fn side() -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": "side", "namespace": "shop"},
        "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"}, "workloads": {}},
    })
}

/// Agents on nodes, of a platform namespace.
fn node(namespace: &str) -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": "node", "namespace": namespace},
        "spec": {"mode": "NodeLocal", "export": {"endpoint": "http://c.o.svc:4317"}},
    })
}

fn pod(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app", "namespace": namespace}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "automountServiceAccountToken": false,
        "containers": [{"name": "app", "image": "app:1", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }})
}

/// The API server reaches the process where it would reach the webhook's pods.
fn slice(world: &HelmBed, release: Release, service: &str, port: u16) {
    world.apply(&json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "process", "namespace": release.namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [world.bed.host_ip()], "conditions": {"ready": true}}],
    }));
}

fn free_port(host: IpAddr) -> u16 {
    let free = TcpListener::bind((host, 0)).unwrap();
    free.local_addr().unwrap().port()
}

/// The program of a Deployment, until it is dropped.
struct Process(Child);

impl Process {
    fn of(world: &HelmBed, release: Release, deployment: &str, more: &[&str]) -> Self {
        let found = world.find(release.namespace, &format!("deployment/{deployment}"));
        let spec = found.expect("a Deployment")["spec"]["template"]["spec"].take();
        let container = &spec["containers"][0];
        let words = container["args"].as_array().unwrap().iter();
        let words: Vec<&str> = words.filter_map(Value::as_str).collect();
        let account = spec["serviceAccountName"].as_str().unwrap();
        let log = world.bed.log_dir().join(format!("{deployment}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log);
        let log = log.expect("a log");
        let program = demo::images::program("otelagent-operator").expect("the operator's binary");
        let mut command = Command::new(program);
        command
            .args(words)
            .args(more)
            .args([
                "--metrics-address=127.0.0.1:0",
                "--health-address=127.0.0.1:0",
            ])
            .env(
                "KUBECONFIG",
                world.kubeconfig_of(release.namespace, account),
            )
            .env("POD_NAMESPACE", release.namespace)
            .env("POD_NAME", deployment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        for variable in container["env"].as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) =
                (variable["name"].as_str(), variable["value"].as_str())
            {
                command.env(name, value);
            }
        }
        Self(command.spawn().expect("the program runs"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
