//! Beds whose nodes are simulated: pods come, go and wait, nodes go down and come back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;

use serde_json::json;
use support::{eventually, leftovers, output};
use testbed::{Bed, Component, skip_unless_possible};

/// One pod on every node, with the grace period that pods have by default.
fn create_daemon_set(bed: &Bed, name: &str) {
    let labels = json!({"app": name});
    let manifest = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "bed.local/nothing:1"}]},
            },
        },
    });
    let file = std::env::temp_dir().join(format!("testbed-{}-{name}.json", bed.name()));
    fs::write(&file, manifest.to_string()).unwrap();
    output(bed.kubectl().args(["create", "-f"]).arg(&file)).unwrap();
    fs::remove_file(&file).unwrap();
}

fn read(bed: &Bed, words: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    output(bed.kubectl().args(words.split(' ')).args(["-o", &path])).unwrap()
}

fn same(what: &str, limit: u64, wanted: &str, mut seen: impl FnMut() -> String) {
    eventually(what, limit, || match seen() {
        seen if seen == wanted => Ok(()),
        seen => Err(format!("{seen} instead of {wanted}")),
    });
}

#[test]
fn pods_of_simulated_nodes_run_wait_and_go() {
    if !skip_unless_possible("simulated nodes") {
        return;
    }
    let builder = Bed::builder().name("sim-20").simulated_nodes(20);
    let bed = builder.start().unwrap();
    assert_eq!(bed.node_names().len(), 20);
    let ready = |name: &str| read(&bed, &format!("get ds {name}"), "{.status.numberReady}");

    create_daemon_set(&bed, "first");
    same("a pod is ready on every node", 60, "20", || ready("first"));
    let addresses = read(&bed, "get pods", "{.items[*].status.podIP}");
    let distinct: std::collections::BTreeSet<&str> = addresses.split(' ').collect();
    assert_eq!(distinct.len(), 20, "{addresses}");

    node_down_and_back(&bed);

    // Pods that never become ready on one node, until they may.
    bed.hold_pods_on(&[7]).unwrap();
    create_daemon_set(&bed, "second");
    same("all but one are ready", 60, "19", || ready("second"));
    let held = "get pods -l app=second --field-selector spec.nodeName=sim7";
    same("the held pod says why", 60, "ImagePullBackOff", || {
        let reason = "{.items[*].status.containerStatuses[*].state.waiting.reason}";
        read(&bed, held, reason)
    });
    assert_eq!(ready("first"), "20", "pods that run are let be");
    bed.hold_pods_on(&[]).unwrap();
    same("the held pod runs", 60, "20", || ready("second"));

    // kwok is a process like any other, and the pods wait for it.
    bed.kill_process(Component::Kwok).unwrap();
    let delete = ["delete", "ds", "first", "second", "--wait=false"];
    output(bed.kubectl().args(delete)).unwrap();
    assert!(!bed.is_running(Component::Kwok));
    bed.start_process(Component::Kwok).unwrap();
    same("deleted pods go", 60, "", || {
        read(&bed, "get pods", "{.items[*].metadata.name}")
    });

    let ip = bed.host_ip();
    assert_eq!(bed.stop_simulated_node(21).unwrap_err().reason(), "Invalid");
    bed.stop().unwrap();
    assert_eq!(leftovers(ip, "sim-20"), Vec::<String>::new());
}

fn node_down_and_back(bed: &Bed) {
    let pod = "get pods -l app=first --field-selector spec.nodeName=sim3";
    let pod_ready = || {
        let ready = r#"{.items[*].status.conditions[?(@.type=="Ready")].status}"#;
        read(bed, pod, ready)
    };
    let node_ready = || {
        let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        read(bed, "get node sim3", ready)
    };
    bed.stop_simulated_node(3).unwrap();
    assert_eq!(node_ready(), "Unknown");
    same("its pod is ready no more", 60, "False", pod_ready);
    let name = read(bed, pod, "{.items[*].metadata.name}");
    let delete = ["delete", "pod", &name, "--wait=false"];
    output(bed.kubectl().args(delete)).unwrap();
    let other = "get node sim4";
    let taints = "{.spec.taints}";
    assert_eq!(read(bed, other, taints), "", "other nodes are let be");
    assert_eq!(
        read(bed, pod, "{.items[*].metadata.name}"),
        name,
        "no process is there that could end the pod"
    );

    bed.start_simulated_node(3).unwrap();
    assert_eq!(node_ready(), "True");
    eventually("another pod is ready in its place", 60, || {
        let now = read(bed, pod, "{.items[*].metadata.name}");
        if now != name && pod_ready() == "True" {
            Ok(())
        } else {
            Err(now)
        }
    });
}

#[test]
fn real_and_simulated_nodes_are_not_mixed() {
    let mixed = Bed::builder().nodes(1).simulated_nodes(1).start();
    assert_eq!(mixed.err().unwrap().reason(), "Invalid");
    let many = Bed::builder().simulated_nodes(u16::MAX).start();
    assert_eq!(many.err().unwrap().reason(), "Invalid");
}
