//! `kubectl otelagent` against a real API server, with a real operator and simulated nodes: what it says agrees with what
//! the operator reports, and with what the API server injects.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::pods::{create, deploy, for_label, until_counted, until_right, world};
use crate::threats::bed::{Caller, PLATFORM, ThreatBed, is_possible};

/// Variables by which a client would look for a proxy, which does not know beds.
const PROXIES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"];

/// Runs the program; its exit code, and its answer as a document.
async fn run(world: &ThreatBed, words: &[&str]) -> (i32, Value) {
    let kubeconfig = world.bed.kubeconfig().to_owned();
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let output = tokio::task::spawn_blocking(move || {
        let program: PathBuf = demo::images::program("kubectl-otelagent").unwrap();
        let mut command = Command::new(program);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["-o", "json"])
            .args(words);
        for proxy in PROXIES {
            command.env_remove(proxy);
        }
        command.output().unwrap()
    });
    let output = output.await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.unwrap_or_else(|why| panic!("{why}: {error}"));
    (output.status.code().unwrap(), answer)
}

/// An `OtelAgent` that serves the pods of one Deployment.
async fn serving(admin: &Caller, namespace: &str, name: &str) {
    admin.namespace(namespace, json!({name: "yes"})).await;
    create(admin, PLATFORM, name, &for_label("NodeLocal", name)).await;
    admin.until_injecting(PLATFORM, name).await;
    deploy(admin, namespace, "cart", &json!({})).await;
    until_counted(admin, (PLATFORM, name), &[("current", 2), ("missed", 0)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_counts_as_the_operator_does_and_names_the_workloads() {
    if !is_possible("kubectl otelagent status") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    serving(&admin, "cli-status", "cli-status").await;
    until_right(world, PLATFORM, "cli-status").await;
    let (_, answer) = run(world, &["status", "cli-status", "-n", PLATFORM]).await;
    assert_eq!(answer["kind"], "Status");
    let item = &answer["items"][0];
    assert_eq!(item["pods"]["current"], 2, "{item}");
    let namespaces = item["namespaces"].as_array().unwrap();
    let of = namespaces
        .iter()
        .find(|one| one["name"] == "cli-status")
        .unwrap();
    let cart = &of["workloads"][0];
    assert_eq!(
        (&cart["kind"], &cart["name"]),
        (&json!("Deployment"), &json!("cart"))
    );
    assert_eq!((&cart["current"], &cart["stale"]), (&json!(2), &json!(0)));
    assert_eq!(item["agentWorkloads"][0]["mode"], "NodeLocal");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_that_the_api_server_injected_is_explained_without_a_difference() {
    if !is_possible("kubectl otelagent explain") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    serving(&admin, "cli-explain", "cli-explain").await;
    let pods = admin.list("/api/v1/namespaces/cli-explain/pods").await;
    let name = pods[0]["metadata"]["name"].as_str().unwrap();
    let pod = format!("cli-explain/{name}");
    let (code, answer) = run(world, &["explain", "pod", &pod]).await;
    let item = &answer["items"][0];
    assert_eq!((code, &item["differences"]), (0, &json!([])), "{answer}");
    assert_eq!(item["injected"]["agent"], "otelagent-system.cli-explain");

    let changed = json!({"workloads": {"flushInterval": "1s"}});
    assert!(
        admin
            .change(PLATFORM, "cli-explain", &changed)
            .await
            .is_ok()
    );
    until_counted(&admin, (PLATFORM, "cli-explain"), &[("stale", 2)]).await;
    let (code, answer) = run(world, &["explain", "pod", &pod]).await;
    let differences = answer["items"][0]["differences"].to_string();
    assert_eq!(code, 1);
    assert!(
        differences.contains("OTEL_BSP_SCHEDULE_DELAY"),
        "{differences}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn manifest_as_it_was_applied_has_no_difference_and_a_changed_one_has() {
    if !is_possible("kubectl otelagent diff") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    serving(&admin, "cli-diff", "cli-diff").await;
    let manifest = std::env::temp_dir().join(format!("cli-diff-{}.yaml", std::process::id()));
    let file = manifest.to_str().unwrap().to_owned();
    let write = |spec: &Value| {
        let object = json!({
            "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
            "metadata": {"name": "cli-diff", "namespace": PLATFORM}, "spec": spec,
        });
        std::fs::write(&manifest, object.to_string()).unwrap();
    };
    let mut spec = for_label("NodeLocal", "cli-diff");
    write(&spec);
    // The agent's image is that of the bed's operator, which is no Deployment that could be read.
    let kinds = |answer: &Value| -> Vec<String> {
        let items = answer["items"].as_array().unwrap().iter();
        items
            .map(|item| item["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, answer) = run(world, &["diff", "-f", &file]).await;
    assert!(
        kinds(&answer).iter().all(|kind| kind == "DaemonSet"),
        "{answer}"
    );
    spec["workloads"]["flushInterval"] = "2s".into();
    write(&spec);
    let (code, answer) = run(world, &["diff", "-f", &file]).await;
    assert_eq!(code, 1);
    assert!(
        kinds(&answer).contains(&"MutatingAdmissionPolicy".to_owned()),
        "{answer}"
    );
    std::fs::remove_file(&manifest).unwrap();
}
