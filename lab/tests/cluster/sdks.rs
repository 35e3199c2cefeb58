//! SDKs of three languages over both transports in every mode, with their default settings.

use std::collections::BTreeMap;
use std::path::Path;

use demo::{images, python, repository, steps};
use serde_json::Value;
use testbed::{Addresses, Cluster};

use super::programs::{self, COMPILED, PYTHON, Program};
use super::{SharedCluster, World, cluster_with, world, world_on};
use crate::test_scale::is_full;

/// An `OtelAgent` for each mode. All exist at once, so two that want the same port of a node have different ones.
const AGENTS: [(&str, &str); 5] = [
    ("sidecar", "mode: Sidecar, hostMetadata: true"),
    ("host-port", "mode: HostPort, hostMetadata: true"),
    (
        "host-network",
        "mode: HostNetwork, hostMetadata: true, ports: {grpc: 4327, http: 4328}",
    ),
    ("node-local", "mode: NodeLocal, hostMetadata: true"),
    (
        "node-local-prefer",
        "mode: NodeLocal, nodeLocal: {routing: Prefer}",
    ),
];
const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];
const COUNT: u64 = 30;

#[test]
fn unmodified_sdks_send_all_signals_in_every_mode() {
    let Some(world) = world("SDKs of three languages in every mode") else {
        return;
    };
    no_program_knows_what_carries_its_telemetry();
    let programs = programs(&world);
    all_send_in_every_mode(&world, &programs);
    let is_bed = matches!(world.cluster, Cluster::Bed(_));
    assert!(!is_bed || zones(&world).len() == 2, "agents know no zones");
}

#[test]
fn sdks_send_all_signals_with_ipv6_addresses() {
    static SHARED: SharedCluster =
        SharedCluster::new(|| cluster_with("ipv6", |bed| bed.addresses(Addresses::Ipv6)));
    let Some(world) = world_on("SDKs where all addresses are IPv6", &SHARED) else {
        return;
    };
    all_send_in_every_mode(&world, &COMPILED);
    every_pod_has(&world, 1);
    world.end_bed();
}

/// With `make test-full`: what differs from the above is how many addresses there are.
#[test]
fn sdks_send_all_signals_with_dual_stack_addresses() {
    static SHARED: SharedCluster =
        SharedCluster::new(|| cluster_with("both", |bed| bed.addresses(Addresses::Both)));
    if !is_full() {
        return;
    }
    let Some(world) = world_on("SDKs where addresses are of both families", &SHARED) else {
        return;
    };
    all_send_in_every_mode(&world, &COMPILED);
    every_pod_has(&world, 2);
    world.end_bed();
}

/// So many addresses, of which the first is an IPv6 one.
fn every_pod_has(world: &World, count: usize) {
    let pods: Value = world.kubectl.get(&["pods", "--all-namespaces"]).unwrap();
    for pod in pods["items"].as_array().unwrap() {
        let addresses = pod["status"]["podIPs"].as_array().unwrap();
        assert_eq!(addresses.len(), count, "{addresses:?}");
        assert!(pod["status"]["podIP"].as_str().unwrap().contains(':'));
    }
}

/// One pod of each program for each mode; all that they send arrives, and says where it comes from.
pub(super) fn all_send_in_every_mode(world: &World, programs: &[Program]) {
    place_nodes(world);
    for (name, spec) in AGENTS {
        let spec = format!("{spec}, resourceAttributes: {{deployment.environment.name: {name}}}");
        world.agent(name, &namespace(name), &spec);
    }
    for (name, spec) in AGENTS {
        let mode = spec["mode: ".len()..].split(',').next().unwrap_or_default();
        world.until_serving(name, mode);
    }
    let namespaces = AGENTS.map(|(name, _)| programs::namespace(&namespace(name), true));
    programs::apply(world, &namespaces);
    let sent: Vec<(&str, Program, Value)> = AGENTS
        .iter()
        .flat_map(|(agent, _)| programs.iter().map(|program| (*agent, *program)))
        .map(|(agent, program)| (agent, program, pod(agent, program)))
        .collect();
    let pods: Vec<Value> = sent.iter().map(|(_, _, pod)| pod.clone()).collect();
    programs::apply(world, &pods);

    let runs = sent
        .iter()
        .map(|(agent, program, _)| (run(agent, *program), COUNT))
        .collect();
    programs::until_all_arrived(world, &runs, &SIGNALS);
    let (nodes, zones) = (nodes(world), zones(world));
    for (agent, program, _) in &sent {
        check(world, agent, *program, &nodes, &zones);
    }
    for (name, _) in AGENTS {
        world.end_namespace(&namespace(name));
    }
}

/// Those whose images can be had here, which the nodes are given.
fn programs(world: &World) -> Vec<Program> {
    let mut programs = COMPILED.to_vec();
    let skipped = python::obstacle()
        .is_some_and(|why| testbed::skip("the SDK for Python in every mode", why));
    if !skipped {
        let image = python::ensure().expect("the image with Python");
        images::load_all(world.cluster, image.as_slice()).expect("the image on the nodes");
        programs.extend(PYTHON);
    }
    programs
}

fn namespace(agent: &str) -> String {
    format!("sdks-{agent}")
}

fn run(agent: &str, program: Program) -> String {
    let protocol = program.protocol.split('/').next().unwrap_or_default();
    format!("{agent}-{}-{protocol}", program.language)
}

fn pod(agent: &str, program: Program) -> Value {
    let args = ["--signals=traces,metrics,logs", "--count=30", "--rate=20"];
    let spec = programs::spec(&[program.container(&args)]);
    let pod = programs::pod(&namespace(agent), &run(agent, program), &spec);
    let said = pod.to_string().replace(program.image, "");
    for word in ["otelagent", "OTEL_", ":43"] {
        assert!(!said.contains(word), "{word} in {said}");
    }
    pod
}

/// The node of each pod.
fn nodes(world: &World) -> BTreeMap<String, String> {
    let pods: Value = world.kubectl.get(&["pods", "--all-namespaces"]).unwrap();
    let pods = pods["items"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pods.map(|pod| {
        (
            text(&pod["metadata"]["name"]),
            text(&pod["spec"]["nodeName"]),
        )
    })
    .collect()
}

const ZONE: &str = "topology.kubernetes.io/zone";

/// Each node in a zone of its own.
fn place_nodes(world: &World) {
    for node in world.cluster.node_names().unwrap() {
        let zone = format!("{ZONE}=zone-of-{node}");
        let label = ["label", "--overwrite", "node", &node, &zone];
        world.kubectl.run(&label).unwrap();
    }
}

/// The zone of each node, as the server says it to agents: none before 1.35.
fn zones(world: &World) -> BTreeMap<String, String> {
    let pods: Value = world
        .kubectl
        .get(&["pods", "--namespace", steps::PLATFORM])
        .unwrap();
    let pods = pods["items"].as_array().unwrap().iter();
    pods.filter_map(|pod| {
        let node = pod["spec"]["nodeName"].as_str()?;
        let zone = pod["metadata"]["labels"][ZONE].as_str()?;
        Some((node.to_owned(), zone.to_owned()))
    })
    .collect()
}

/// Everything a program sent says where it comes from, and passed the agent of its mode, on its own node where
/// that is promised.
fn check(
    world: &World,
    agent: &str,
    program: Program,
    nodes: &BTreeMap<String, String>,
    zones: &BTreeMap<String, String>,
) {
    let pod = run(agent, program);
    let node = nodes[&pod].as_str();
    let namespace = namespace(agent);
    let mut expected = vec![
        ("service.name", pod.as_str()),
        ("service.namespace", &namespace),
        ("k8s.namespace.name", &namespace),
        ("k8s.pod.name", &pod),
        ("k8s.node.name", node),
        ("k8s.container.name", "app"),
        ("telemetry.sdk.language", program.language),
        ("deployment.environment.name", agent),
    ];
    if agent != "node-local-prefer" {
        expected.push(("host.name", node));
        let zone = zones.get(node);
        expected.extend(zone.map(|zone| ("cloud.availability_zone", zone.as_str())));
    }
    let resources = programs::arrived(world, &pod).resources;
    for signal in SIGNALS {
        let mut of_signal = resources.iter().filter(|r| r.signal == signal).peekable();
        assert!(of_signal.peek().is_some(), "no {signal} of {pod}");
        for resource in of_signal {
            for (key, value) in &expected {
                assert_eq!(
                    resource.attribute(key),
                    Some(*value),
                    "{key} of {resource:?}"
                );
            }
            let uid = resource.attribute("k8s.pod.uid");
            assert!(uid.is_some_and(|uid| uid.len() == 36), "{resource:?}");
        }
    }
}

fn no_program_knows_what_carries_its_telemetry() {
    for program in ["rust-sdk/src", "go-sdk", "python-sdk"] {
        let folder = repository().join("lab/apps").join(program);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                assert!(!knows(&path), "{}", path.display());
            }
        }
    }
}

fn knows(path: &Path) -> bool {
    let text = std::fs::read_to_string(path).unwrap();
    text.to_ascii_lowercase().contains("otelagent")
}
