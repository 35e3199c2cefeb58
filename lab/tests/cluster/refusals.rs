//! What is refused, where, and with which words. A refused spec changes nothing that runs.

use serde_json::json;

use super::{condition, manifest, world};

/// Fields of a spec, and words of the answer.
const REFUSED_SPECS: &[(&str, &str)] = &[
    ("mode: NodePort", "NodePort is not offered"),
    ("mode: NodePort", "use NodeLocal"),
    (
        "mode: Daemon",
        "mode must be Sidecar, HostPort, HostNetwork or NodeLocal",
    ),
    (
        "mode: NodeLocal, hostMetadata: true, nodeLocal: {routing: Prefer}",
        "would stamp its own name on it; use routing Require",
    ),
    (
        "mode: NodeLocal, ports: {grpc: 80}",
        "should be greater than or equal to 1024",
    ),
    (
        "mode: NodeLocal, ports: {grpc: 4318}",
        "ports.grpc and ports.http must differ",
    ),
    (
        "mode: NodeLocal, ports: {http: 13133}",
        "ports.metrics and ports.health must differ from each other",
    ),
    (
        "mode: NodeLocal, batch: {flushInterval: 1ms}",
        "must be a duration between 10ms and 24h",
    ),
    (
        "mode: NodeLocal, buffer: {memory: '1'}",
        "must be a size between 64Ki and 1Ti",
    ),
    (
        "mode: NodeLocal, buffer: {disk: {size: 1Mi}}",
        "must be a size between 16Mi and 1Ti",
    ),
    (
        "mode: HostPort, agent: {updateStrategy: {maxSurge: 1}}",
        "use maxUnavailable",
    ),
    (
        "mode: NodeLocal, agent: {podLabels: {otelagent.dev/owner: x}}",
        "are not yours to set; remove them",
    ),
    (
        "mode: NodeLocal, agent: {podAnnotations: {otelagent.dev/agent-config: x}}",
        "annotations of otelagent.dev are the operator's own",
    ),
    (
        "mode: NodeLocal, agent: {imagePullSecrets: [{name: a}, {name: a}]}",
        "Duplicate value",
    ),
    (
        "mode: NodeLocal, agent: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: \
         {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}]}]}}}}",
        "operators In and NotIn need values",
    ),
];

#[test]
fn api_server_refusals_say_what_to_write_instead() {
    let Some(world) = world("refusals") else {
        return;
    };
    for (spec, words) in REFUSED_SPECS {
        let answer = dry_run(
            &world,
            &manifest("otelagent-system", "refused", "nobody", spec),
        );
        assert!(
            answer.as_ref().is_err_and(|said| said.contains(words)),
            "`{spec}` should answer `{words}`: {answer:?}"
        );
    }
    let export = |export: &str| {
        format!(
            "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: refused, namespace: otelagent-system}}, \
             spec: {{mode: Sidecar, export: {{{export}}}}}}}"
        )
    };
    for (fields, words) in [
        (
            "endpoint: 'collector:4317'",
            "must be a URL with scheme http or https",
        ),
        (
            "endpoint: 'http://c:4317', tls: {serverName: c}",
            "write https:// or remove tls",
        ),
        (
            "endpoint: 'http://c:4317', headers: [{name: a}]",
            "exactly one of value and secretKeyRef",
        ),
    ] {
        let answer = dry_run(&world, &export(fields));
        assert!(
            answer.as_ref().is_err_and(|said| said.contains(words)),
            "`{fields}` should answer `{words}`: {answer:?}"
        );
    }
    let long = dry_run(
        &world,
        &manifest(
            "otelagent-system",
            &"n".repeat(41),
            "nobody",
            "mode: Sidecar",
        ),
    );
    assert!(long.is_err_and(|said| said.contains("at most 40 lower-case letters")));
}

fn dry_run(world: &super::World, yaml: &str) -> Result<String, String> {
    let file = std::env::temp_dir().join(format!("otelagent-refusal-{}.yaml", std::process::id()));
    std::fs::write(&file, yaml).unwrap();
    let answer = world.kubectl.run(&[
        "create",
        "--dry-run=server",
        "--filename",
        file.to_str().unwrap(),
    ]);
    std::fs::remove_file(file).unwrap();
    answer.map_err(|error| error.to_string())
}

#[test]
fn refused_spec_leaves_the_running_topology_unchanged() {
    let Some(world) = world("a broken spec") else {
        return;
    };
    world.agent("broken", "nobody", "mode: NodeLocal");
    world.until_serving("broken", "NodeLocal");
    let running = || {
        let workload: serde_json::Value = world
            .kubectl
            .get(&[
                "daemonset",
                "broken-node-local",
                "--namespace",
                "otelagent-system",
            ])
            .unwrap();
        (
            workload["metadata"]["generation"].clone(),
            workload["metadata"]["uid"].clone(),
            world.cluster_objects(),
        )
    };
    let before = running();
    world.patch(
        "broken",
        &json!({"spec": {"mode": "HostPort", "config": {"exporters": {"kafka": {}}}}}),
    );
    let agent = world.until_status("broken", "the refusal", |status| {
        condition(status, "Accepted")["status"] == "False"
    });
    let accepted = condition(&agent["status"], "Accepted");
    assert_eq!(accepted["reason"], "ConfigurationRefused");
    assert!(
        accepted["message"]
            .as_str()
            .is_some_and(|message| message.contains("exporters.kafka")),
        "{accepted}"
    );
    assert_eq!(
        agent["status"]["mode"], "NodeLocal",
        "the last good topology serves on"
    );
    assert_eq!(condition(&agent["status"], "Ready")["status"], "True");
    assert_eq!(running(), before);
    assert_eq!(world.names("daemonsets"), ["broken-node-local"]);

    world.patch(
        "broken",
        &json!({"spec": {"mode": "NodeLocal", "config": null}}),
    );
    world.until_status("broken", "accepted again", |status| {
        condition(status, "Accepted")["status"] == "True"
    });
    assert_eq!(running(), before, "nothing was restarted");
}

#[test]
fn node_mode_in_a_plain_namespace_is_refused_with_the_reason() {
    let Some(world) = world("a plain namespace") else {
        return;
    };
    world
        .kubectl
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: plain}}")
        .unwrap();
    let yaml = "{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {name: own, namespace: plain}, \
                spec: {mode: NodeLocal, export: {endpoint: 'http://otel-collector.observability.svc:4317'}}}";
    world.kubectl.apply(yaml).unwrap();
    let query = ["otelagent", "own", "--namespace", "plain"];
    let agent = world.until("the refusal", &query, |agent| {
        condition(&agent["status"], "Accepted")["status"] == "False"
    });
    let accepted = condition(&agent["status"], "Accepted");
    assert_eq!(accepted["reason"], "NotAPlatformNamespace");
    assert!(
        accepted["message"]
            .as_str()
            .is_some_and(|message| message.contains("use mode Sidecar")),
        "{accepted}"
    );
    world
        .kubectl
        .run(&[
            "patch",
            "otelagent",
            "own",
            "--namespace=plain",
            "--type=merge",
            "--patch={\"spec\":{\"mode\":\"Sidecar\"}}",
        ])
        .unwrap();
    world.until("Sidecar taken", &query, |agent| {
        condition(&agent["status"], "Ready")["status"] == "True"
    });
    world.end_namespace("plain");
}

#[test]
fn foreign_service_is_never_taken_over() {
    let Some(world) = world("a taken name") else {
        return;
    };
    let service = "{apiVersion: v1, kind: Service, metadata: {name: taken, namespace: otelagent-system}, \
                   spec: {selector: {app: theirs}, ports: [{port: 80}]}}";
    world.kubectl.apply(service).unwrap();
    world.agent("taken", "nobody", "mode: NodeLocal");
    let agent = world.until_status("taken", "the conflict", |status| {
        condition(status, "Ready")["reason"] == "NameTaken"
    });
    let message = condition(&agent["status"], "Ready")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(message.contains("Service taken exists"), "{message}");
    let theirs: serde_json::Value = world
        .kubectl
        .get(&["service", "taken", "--namespace", "otelagent-system"])
        .unwrap();
    assert_eq!(theirs["spec"]["selector"], json!({"app": "theirs"}));
    world
        .kubectl
        .run(&[
            "delete",
            "service",
            "taken",
            "--namespace",
            "otelagent-system",
        ])
        .unwrap();
    world.until_serving("taken", "NodeLocal");
}
