//! Simulated nodes: objects only, whose kubelets kwok plays, for questions of scale.
//!
//! Knows how they are made, what kwok is configured with, and how one of them goes down. No process, network
//! or address stands behind them: nothing in their pods ever runs.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::addresses::Addresses;
use crate::command::{command, run, write};
use crate::component::{self, Component, wait_ready};
use crate::control_plane;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::options::Options;
use crate::parts::{Part, ensure_for};

/// Simulated nodes per bed; what a control plane on one machine bears.
pub(crate) const MAX_SIMULATED: u16 = 5000;
/// The label by which kwok knows its nodes. It leaves alone a node, and all pods on it, whose
/// label has another value than [`ON`].
pub(crate) const LABEL: &str = "testbed.local/simulated";
const ON: &str = "on";
const OFF: &str = "off";
/// Pods' addresses: the range for benchmarks of RFC 2544, which is not routed.
const POD_RANGE: &str = "198.18.0.0/15";
/// Nodes' addresses: the shared range of RFC 6598.
const FIRST_NODE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);
/// There is no heartbeat: a thousand nodes would write a hundred leases a second.
const PATIENT: &str = "--node-monitor-grace-period=24h";
const STAGES: &str = include_str!("stages.yaml");
/// Thousands of nodes are made and seen one by one.
const PATIENCE: Duration = Duration::from_mins(5);

/// The name of a simulated node; they count from 1.
pub(crate) fn node_name(node: u16) -> String {
    format!("sim{node}")
}

/// Arguments of the controller manager beyond the usual.
pub(crate) fn controller_manager_args(options: &Options) -> Option<String> {
    (options.simulated_nodes > 0).then(|| PATIENT.to_owned())
}

/// Arguments of the scheduler beyond the usual: its own default is 50 pods a second.
pub(crate) fn scheduler_args(options: &Options) -> Vec<String> {
    if options.simulated_nodes == 0 {
        return Vec::new();
    }
    ["--kube-api-qps=1000", "--kube-api-burst=2000"]
        .map(str::to_owned)
        .to_vec()
}

/// The configuration of kwok.
pub(crate) fn kwok_args(layout: &Layout) -> Vec<OsString> {
    [
        format!("--kubeconfig={}", layout.file("kwok.kubeconfig").display()),
        format!("--config={}", layout.file("stages.yaml").display()),
        format!("--manage-nodes-with-label-selector={LABEL}={ON}"),
        format!("--cidr={POD_RANGE}"),
        "--node-lease-duration-seconds=0".to_owned(),
    ]
    .into_iter()
    .map(OsString::from)
    .collect()
}

/// Makes the node objects, starts kwok, and waits until all nodes are Ready and may be scheduled to.
pub(crate) fn start(layout: &Layout, options: &Options) -> Result<()> {
    let nodes: Vec<Value> = (1..=options.simulated_nodes)
        .map(|node| manifest(node, options))
        .collect();
    let file = layout.file("simulated-nodes.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes});
    write(&file, serde_json::to_vec(&list)?)?;
    kubectl(
        layout,
        options,
        &["create", "--filename", &file.display().to_string()],
    )?;
    write_stages(layout, &[])?;
    control_plane::start(layout, options, Component::Kwok)?;
    let every: Vec<u16> = (1..=options.simulated_nodes).collect();
    wait_until_ready(layout, options, &every)
}

/// Which nodes hold their pods from now on.
pub(crate) fn hold_pods(layout: &Layout, options: &Options, nodes: &[u16]) -> Result<()> {
    write_stages(layout, nodes)?;
    component::kill(layout, Component::Kwok)?;
    control_plane::start(layout, options, Component::Kwok)
}

/// Takes a node down, as the control plane sees it once heartbeats are missed: no component knows of the
/// node, and its pods are taken for not ready.
pub(crate) fn stop_node(layout: &Layout, options: &Options, node: u16) -> Result<()> {
    // First the label: kwok must not bring the node back.
    label(layout, options, node, OFF)?;
    let name = node_name(node);
    let patch = |kind: &[&str], reason: &str, status: &str| {
        let condition = json!({"type": "Ready", "status": status, "reason": reason});
        let patch = json!({"status": {"conditions": [condition]}});
        let patch = format!("--patch={patch}");
        let args = [&["patch", "--subresource=status", &patch], kind].concat();
        kubectl(layout, options, &args).map(drop)
    };
    patch(&["node", &name], "NodeStatusUnknown", "Unknown")?;
    // The node lifecycle controller does so when it is the one who misses the heartbeats.
    for (namespace, pod) in pods(layout, options, &name)? {
        let pod = ["pod", &pod, "--namespace", &namespace];
        patch(&pod, "NodeStatusUnknown", "False")?;
    }
    Ok(())
}

/// Namespace and name of the pods on a node.
fn pods(layout: &Layout, options: &Options, node: &str) -> Result<Vec<(String, String)>> {
    const NAMES: &str =
        "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
    let on_node = format!("--field-selector=spec.nodeName={node}");
    let args = [
        "get",
        "pods",
        "--all-namespaces",
        &on_node,
        "--output",
        NAMES,
    ];
    let answer = kubectl(layout, options, &args)?;
    let words = answer.lines().filter_map(|line| line.split_once(' '));
    Ok(words
        .map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()))
        .collect())
}

/// Brings a node back and waits until it is Ready and may be scheduled to.
pub(crate) fn start_node(layout: &Layout, options: &Options, node: u16) -> Result<()> {
    label(layout, options, node, ON)?;
    wait_until_ready(layout, options, &[node])
}

fn label(layout: &Layout, options: &Options, node: u16, value: &str) -> Result<()> {
    let (name, label) = (node_name(node), format!("{LABEL}={value}"));
    kubectl(
        layout,
        options,
        &["label", "node", &name, "--overwrite", &label],
    )
    .map(drop)
}

fn write_stages(layout: &Layout, held: &[u16]) -> Result<()> {
    let mut names: Vec<String> = held.iter().copied().map(node_name).collect();
    if names.is_empty() {
        // A list must not be empty; no node is called so.
        names.push("-".to_owned());
    }
    let stages = STAGES.replace("HELD_NODES", &json!(names).to_string());
    write(&layout.file("stages.yaml"), stages)
}

/// A node as a kubelet would register it, without what kwok adds: that it is Ready.
fn manifest(node: u16, options: &Options) -> Value {
    let name = node_name(node);
    let [high, low] = node.to_be_bytes();
    let [a, b, ..] = FIRST_NODE.octets();
    let size = json!({"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "250"});
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            LABEL: ON,
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": Ipv4Addr::new(a, b, high, low).to_string()},
                {"type": "Hostname", "address": name},
            ],
            "allocatable": size,
            "capacity": size,
            "nodeInfo": {
                "architecture": "amd64",
                "operatingSystem": "linux",
                "kubeletVersion": options.kubernetes.release(),
                "kubeProxyVersion": "",
                "containerRuntimeVersion": "simulated://1",
                "kernelVersion": "simulated",
                "osImage": "simulated",
                "bootID": "",
                "machineID": "",
                "systemUUID": "",
            },
        },
    })
}

fn kubectl(layout: &Layout, options: &Options, args: &[&str]) -> Result<String> {
    let mut kubectl = command(ensure_for(Part::Kubectl, options.kubernetes)?);
    run(kubectl
        .env("KUBECONFIG", layout.file("kubeconfig"))
        .args(args))
}

/// Waits until these nodes are Ready and have no taint.
fn wait_until_ready(layout: &Layout, options: &Options, nodes: &[u16]) -> Result<()> {
    const STATE: &str = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status} {.spec.taints}{\"\\n\"}{end}";
    let selector = format!("--selector={LABEL}");
    let args = ["get", "nodes", &selector, "--output", STATE];
    let wanted: Vec<String> = nodes
        .iter()
        .map(|node| format!("{} True", node_name(*node)))
        .collect();
    wait_ready(layout, Component::Kwok, "Ready nodes", PATIENCE, || {
        kubectl(layout, options, &args).is_ok_and(|answer| {
            let seen: std::collections::BTreeSet<&str> =
                answer.lines().map(str::trim_end).collect();
            wanted.iter().all(|line| seen.contains(line.as_str()))
        })
    })
}

/// Refuses what a bed cannot be.
pub(crate) fn check_options(options: &Options) -> Result<()> {
    if options.simulated_nodes > MAX_SIMULATED {
        return Err(Error::Invalid(format!(
            "{} simulated nodes are too many; a bed has at most {MAX_SIMULATED}",
            options.simulated_nodes
        )));
    }
    if options.simulated_nodes > 0 && options.addresses != Addresses::Ipv4 {
        return Err(Error::Invalid(
            "simulated nodes have IPv4 addresses only; do not ask for others".to_owned(),
        ));
    }
    if options.simulated_nodes > 0 && options.nodes > 0 {
        // Pods of real nodes could not reach those of simulated ones, and silence of a real one
        // would go unnoticed.
        return Err(Error::Invalid(
            "a bed has real nodes or simulated ones, not both".to_owned(),
        ));
    }
    Ok(())
}

/// Refuses numbers of simulated nodes the bed does not have.
pub(crate) fn check(options: &Options, nodes: &[u16]) -> Result<()> {
    let known = 1..=options.simulated_nodes;
    match nodes.iter().find(|node| !known.contains(node)) {
        None => Ok(()),
        Some(node) => Err(Error::Invalid(format!(
            "there is no simulated node {node}; this bed has {}, counted from 1",
            options.simulated_nodes
        ))),
    }
}
