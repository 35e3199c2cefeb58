//! What agents get from their pods: space on disk, and time to end.

use otelagent_api::Mode;
use otelagent_core::build::{ValidAgent, validate};
use serde_json::Value;

use super::{agent_with, daemon_set, desired, environment};

const GIB: u64 = 1 << 30;

fn valid(spec: &str) -> ValidAgent {
    validate(&agent_with("otelagent-system", spec), &environment()).expect("a valid OtelAgent")
}

/// The pod of a node mode's agent.
fn pod(agent: &ValidAgent) -> Value {
    let desired = desired(agent);
    let set = daemon_set(&desired).expect("a DaemonSet");
    serde_json::to_value(set).unwrap()["spec"]["template"]["spec"].clone()
}

fn seconds(pod: &Value, variable: &str) -> i64 {
    let env = pod["containers"][0]["env"].as_array().unwrap();
    let found = env.iter().find(|entry| entry["name"] == variable);
    let value = found.expect("the variable")["value"].as_str().unwrap();
    value.parse().unwrap()
}

#[test]
fn agent_gives_up_before_it_is_killed() {
    for mode in Mode::ALL.into_iter().filter(|mode| mode.on_nodes()) {
        for buffer in ["", ", buffer: {disk: {size: 1Gi}}"] {
            let pod = pod(&valid(&format!("mode: {mode}{buffer}")));
            let killed = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
            let gives_up = seconds(&pod, "OTELAGENT_SHUTDOWN_GRACE");
            let lame_duck = seconds(&pod, "OTELAGENT_LAME_DUCK");
            assert!(gives_up + 5 <= killed, "{mode}: {gives_up} of {killed}");
            assert!(
                lame_duck * 4 < gives_up,
                "{mode}: {lame_duck} of {gives_up}"
            );
        }
    }
}

#[test]
fn sidecar_with_a_short_service_name_needs_dns_search() {
    let needs = |spec: &str| desired(&valid(spec)).recipe.upstream_is_service;
    assert!(needs("mode: Sidecar"));
    assert!(!needs("mode: HostPort"));
    let laid_over = |endpoint: &str| {
        format!("mode: Sidecar, config: {{exporters: {{otlp_grpc: {{endpoint: '{endpoint}'}}}}}}")
    };
    assert!(needs(&laid_over("c.other.svc:4317")));
    let pushed = |endpoint: &str| {
        let otlp = format!("protocol: grpc, endpoint: '{endpoint}'");
        let readers = format!("readers: [{{periodic: {{exporter: {{otlp: {{{otlp}}}}}}}}}]");
        let telemetry = format!("service: {{telemetry: {{metrics: {{{readers}}}}}}}");
        let exporters = "exporters: {otlp_grpc: {endpoint: 'http://192.0.2.1:4317'}}";
        format!("mode: Sidecar, config: {{{exporters}, {telemetry}}}")
    };
    assert!(needs(&pushed("http://c.other.svc:4317")));
    assert!(!needs(&pushed("http://192.0.2.1:4317")));
    for resolvable in [
        "http://192.0.2.1:4317",
        "https://telemetry.example.com:443",
        "http://c.o.svc.cluster.local:4317",
    ] {
        assert!(!needs(&laid_over(resolvable)), "{resolvable}");
    }
}

#[test]
fn queue_on_disk_gets_more_grace_only_with_surge() {
    let grace = |spec: &str| {
        let spec = format!("{spec}, buffer: {{disk: {{size: 1Gi}}}}");
        pod(&valid(&spec))["terminationGracePeriodSeconds"].clone()
    };
    assert_eq!(grace("mode: NodeLocal"), 120);
    assert_eq!(grace("mode: HostNetwork"), 120);
    assert_eq!(grace("mode: HostPort"), 30);
    let no_surge = "mode: NodeLocal, agent: {updateStrategy: {maxSurge: 0}}";
    assert_eq!(grace(no_surge), 30);
}

#[test]
fn pull_policy_is_the_servers_default_for_the_image() {
    let policy = |agent: &str| {
        let pod = pod(&valid(&format!("mode: NodeLocal, agent: {{{agent}}}")));
        pod["containers"][0]["imagePullPolicy"].clone()
    };
    assert_eq!(policy(""), "IfNotPresent", "the bundled agent has a tag");
    assert_eq!(policy("image: a"), "Always");
    assert_eq!(policy("image: 'a:latest'"), "Always");
    assert_eq!(policy("image: 'host:5000/a'"), "Always");
    assert_eq!(policy("image: 'host:5000/a:1'"), "IfNotPresent");
    let digest = "0".repeat(64);
    assert_eq!(
        policy(&format!("image: 'a@sha256:{digest}'")),
        "IfNotPresent"
    );
    assert_eq!(
        policy(&format!("image: 'a:latest@sha256:{digest}'")),
        "Always"
    );
    assert_eq!(policy("image: a, imagePullPolicy: Never"), "Never");
}

/// Bytes of the queue's volume.
fn volume(spec: &str) -> u64 {
    let pod = pod(&valid(spec));
    let volumes = pod["volumes"].as_array().unwrap();
    let queue = volumes.iter().find(|v| v["name"] == "otelagent-queue");
    let limit = &queue.expect("a volume")["emptyDir"]["sizeLimit"];
    let requests = &pod["containers"][0]["resources"]["requests"];
    assert!(requests["ephemeral-storage"].is_null(), "not reserved");
    let mebibytes = limit.as_str().unwrap().strip_suffix("Mi").unwrap();
    mebibytes.parse::<u64>().unwrap() << 20
}

#[test]
fn volume_is_larger_than_the_queues_may_become() {
    let disk = "mode: NodeLocal, buffer: {disk: {size: 1Gi}}";
    assert!(volume(disk) > GIB);
    let larger = "config: {extensions: {file_storage: {max_size: 1073741824}}}";
    assert!(volume(&format!("{disk}, {larger}")) > 3 * GIB);
    let unlimited = "config: {extensions: {file_storage: {max_size: 0}}, \
                     exporters: {otlp_grpc: {sending_queue: {queue_size: 1073741824}}}}";
    assert!(volume(&format!("{disk}, {unlimited}")) > 7 * GIB);
}
