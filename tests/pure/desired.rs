//! What `build` gives back: the modes asked for, each rendered alike for every wanted mode.

use otelagent_api::Mode;
use otelagent_core::build::{Object, ValidAgent, build, template_label, validate};
use otelagent_core::names;
use serde_json::{Value, json};

use super::{agent_with, configuration, daemon_set, desired_in, environment};

fn wanting(mode: Mode) -> ValidAgent {
    let spec = format!("mode: {mode}, buffer: {{disk: {{size: 1Gi}}}}");
    validate(&agent_with("otelagent-system", &spec), &environment()).expect("a valid OtelAgent")
}

#[test]
fn mode_is_rendered_alike_whichever_mode_is_wanted() {
    for mode in Mode::ALL {
        let wanted = desired_in(mode, &wanting(mode));
        for other in Mode::ALL {
            assert_eq!(desired_in(mode, &wanting(other)), wanted, "{mode}, {other}");
        }
    }
}

#[test]
fn build_returns_each_mode_asked_for_once_with_its_template() {
    let asked = [Mode::NodeLocal, Mode::Sidecar, Mode::NodeLocal];
    let desired = build(&wanting(Mode::NodeLocal), &environment(), asked);
    let modes: Vec<Mode> = desired.modes.keys().copied().collect();
    assert_eq!(modes, [Mode::Sidecar, Mode::NodeLocal]);
    assert_eq!(desired.modes[&Mode::Sidecar].template, "");
    let node = &desired.modes[&Mode::NodeLocal];
    let kinds: Vec<&str> = node.objects.iter().map(Object::kind).collect();
    assert_eq!(kinds, ["ConfigMap", "DaemonSet", "Service"]);
    let workload = daemon_set(node).unwrap();
    assert_eq!(template_label(workload), Some(node.template.as_str()));
}

/// The agent workload of a mode for a spec with these fields.
fn workload(mode: Mode, fields: &str) -> Value {
    let spec = format!("mode: {mode}, {fields}");
    let valid = validate(&agent_with("otelagent-system", &spec), &environment());
    let desired = desired_in(mode, &valid.expect("a valid OtelAgent"));
    serde_json::to_value(daemon_set(&desired)).unwrap()
}

/// The configuration of the same agents.
fn config(mode: Mode, fields: &str) -> String {
    let spec = format!("mode: {mode}, {fields}");
    let valid = validate(&agent_with("otelagent-system", &spec), &environment());
    configuration(&desired_in(mode, &valid.expect("a valid OtelAgent")))
}

#[test]
fn chosen_ports_are_used_wherever_a_port_occurs() {
    let ports = "ports: {grpc: 5317, http: 5318, metrics: 5888, health: 5133}";
    let node_ports =
        |set: &Value| set["metadata"]["annotations"][names::ANNOTATION_NODE_PORTS].clone();
    let host = workload(Mode::HostNetwork, ports);
    assert_eq!(node_ports(&host), "5317,5318,5888,5133");
    for text in [
        "OTELAGENT_HOST_IP}]:5133",
        "port: 5888",
        "OTELAGENT_HOST_IP}]:5317",
    ] {
        let config = config(Mode::HostNetwork, ports);
        assert!(config.contains(text), "{text} in {config}");
    }
    let set = workload(Mode::HostPort, ports);
    assert_eq!(node_ports(&set), "5317,5318");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"]["httpGet"]["port"], 5133);
    let metrics = json!({"name": "metrics", "containerPort": 5888, "protocol": "TCP"});
    assert_eq!(container["ports"][2], metrics);
    let config = config(Mode::HostPort, ports);
    assert!(config.contains("[::]:5133") && config.contains("port: 5888"));
    assert!(node_ports(&workload(Mode::NodeLocal, ports)).is_null());
    let other_image = format!("{ports}, agent: {{image: 'otelcol:1'}}");
    let set = workload(Mode::HostNetwork, &other_image);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["readinessProbe"]["httpGet"]["port"], 5133);
}

#[test]
fn agents_run_on_linux_nodes_and_where_the_spec_says() {
    let selector = |fields: &str| {
        let set = workload(Mode::NodeLocal, fields);
        set["spec"]["template"]["spec"]["nodeSelector"].clone()
    };
    assert_eq!(selector("batch: {}"), json!({"kubernetes.io/os": "linux"}));
    assert_eq!(
        selector("agent: {nodeSelector: {pool: edge}}"),
        json!({"kubernetes.io/os": "linux", "pool": "edge"})
    );
}

#[test]
fn bundled_agents_run_where_there_is_an_image_for_the_architecture() {
    let terms = |fields: &str| {
        let set = workload(Mode::NodeLocal, fields);
        let affinity = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone()
    };
    let has_image = json!({
        "key": "kubernetes.io/arch", "operator": "NotIn", "values": ["arm", "ppc64le", "riscv64", "s390x"],
    });
    assert_eq!(
        terms("batch: {}"),
        json!([{"matchExpressions": [has_image]}])
    );
    let required = |key: &str| format!("{{matchExpressions: [{{key: {key}, operator: Exists}}]}}");
    let user = format!(
        "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{}, {}]}}}}}}",
        required("a"),
        required("b")
    );
    let own =
        |key: &str| json!({"matchExpressions": [{"key": key, "operator": "Exists"}, has_image]});
    assert_eq!(
        terms(&format!("agent: {{{user}}}")),
        json!([own("a"), own("b")])
    );
    assert_eq!(terms("agent: {image: 'otelcol:1'}"), json!(null));
}

#[test]
fn host_network_agents_share_ports_with_agents_of_their_own_otelagent_only() {
    let set = workload(Mode::HostNetwork, "batch: {}");
    let env = set["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let mut env = env.as_array().unwrap().iter();
    let reuse = env.find(|variable| variable["name"] == "OTELAGENT_REUSE_PORT");
    assert_eq!(reuse.unwrap()["value"], "otelagent-system.node");
}

#[test]
fn applications_of_another_image_are_told_to_speak_grpc() {
    let rules = |mode: Mode, fields: &str| {
        let spec = format!("mode: {mode}, {fields}");
        let valid = validate(&agent_with("otelagent-system", &spec), &environment());
        let recipe = desired_in(mode, &valid.unwrap()).recipe;
        let mut rules = recipe.env.into_iter();
        rules.find(|rule| rule.name == "OTEL_EXPORTER_OTLP_PROTOCOL")
    };
    for mode in Mode::ALL {
        assert_eq!(rules(mode, "batch: {}"), None, "{mode}");
        let rule = rules(mode, "agent: {image: 'otelcol:1'}").unwrap();
        assert_eq!(rule.value, "grpc");
        for blocking in ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
            assert!(
                rule.unless.iter().any(|name| name == blocking),
                "{blocking}"
            );
        }
    }
}

/// A sidecar that waits for a volume would keep its application from starting.
#[test]
fn secrets_are_optional_for_the_bundled_agent_only() {
    let volumes = |mode: &str, agent: &str| {
        let spec = format!(
            "mode: {mode}, agent: {{{agent}}}, export: {{endpoint: 'https://c:4317', \
             headers: [{{name: a, secretKeyRef: {{name: s, key: k}}}}], \
             tls: {{caConfigMap: {{name: c, key: k}}, clientCertificateSecret: {{name: t}}}}}}"
        );
        let text = format!(
            "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: a, namespace: otelagent-system}}, \
             spec: {{{spec}}}}}"
        );
        let valid = validate(&super::agent(&text), &environment()).expect("a valid OtelAgent");
        let desired = super::desired(&valid);
        let of_pod = daemon_set(&desired).and_then(|set| {
            let volumes = set.spec.as_ref()?.template.spec.as_ref()?.volumes.clone();
            let secrets = volumes?.into_iter();
            Some(
                secrets
                    .filter(|volume| volume.name != names::CONFIG_VOLUME)
                    .collect::<Vec<_>>(),
            )
        });
        let of_pod = of_pod.map(|volumes| serde_json::to_value(volumes).unwrap());
        let volumes = of_pod.unwrap_or_else(|| desired.recipe.volumes.clone().into());
        let volumes = volumes.as_array().unwrap().clone().into_iter();
        let sources = volumes.filter_map(|volume| {
            let source = volume.get("secret").or(volume.get("configMap"))?;
            Some(source["optional"] == true)
        });
        sources.collect::<Vec<bool>>()
    };
    for mode in ["Sidecar", "NodeLocal"] {
        assert_eq!(volumes(mode, ""), [true; 3]);
        assert_eq!(volumes(mode, "image: otelcol"), [false; 3]);
    }
}

#[test]
fn only_a_sidecar_with_a_queue_on_disk_says_what_evicts_it() {
    let recipe = desired_in(Mode::Sidecar, &wanting(Mode::Sidecar)).recipe;
    let key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
    assert_eq!(recipe.joined_annotations[key], "otelagent-queue");
    let volume = recipe
        .volumes
        .iter()
        .find(|volume| volume["name"] == "otelagent-queue");
    let bytes = |text: &str| {
        let (digits, factor) = match text.strip_suffix("Mi") {
            Some(digits) => (digits, 1 << 20),
            None => (text, 1),
        };
        digits.parse::<u64>().unwrap() * factor
    };
    let volume = bytes(volume.unwrap()["emptyDir"]["sizeLimit"].as_str().unwrap());
    assert!(bytes(&recipe.storage_limit.unwrap()) > volume);

    let spec = agent_with("otelagent-system", "mode: Sidecar");
    let recipe = super::desired(&validate(&spec, &environment()).unwrap()).recipe;
    assert!(recipe.joined_annotations.is_empty() && recipe.storage_limit.is_none());
}

#[test]
fn labels_and_annotations_of_the_user_never_replace_the_operators() {
    let spec = "mode: NodeLocal, agent: {podLabels: {team: a, otelagent.dev/owner: x, \
                otelagent.dev/template: x}, podAnnotations: {team: a, otelagent.dev/agent-config: x}}";
    let spec = agent_with("otelagent-system", spec);
    let desired = super::desired(&validate(&spec, &environment()).unwrap());
    let workload = daemon_set(&desired).unwrap();
    let metadata = workload.spec.clone().unwrap().template.metadata.unwrap();
    let (labels, annotations) = (metadata.labels.unwrap(), metadata.annotations.unwrap());
    assert_eq!(
        (labels["team"].as_str(), annotations["team"].as_str()),
        ("a", "a")
    );
    assert_ne!(labels["otelagent.dev/owner"], "x");
    assert_ne!(labels["otelagent.dev/template"], "x");
    assert_ne!(annotations["otelagent.dev/agent-config"], "x");
}

#[test]
fn start_gate_is_in_every_mode_on_nodes_and_in_no_sidecar() {
    let gate = |mode: Mode, more: &str, gate: &str| {
        let spec = format!(
            "mode: {mode}, workloads: {{namespaceSelector: {{}}, startGate: {{{gate}}}}}, {more}"
        );
        let valid = validate(&agent_with("otelagent-system", &spec), &environment());
        let recipe = desired_in(mode, &valid.expect("a valid OtelAgent")).recipe;
        recipe.start_gate.map(|gate| gate.container)
    };
    for mode in Mode::ALL {
        let default = gate(mode, "agent: {imagePullPolicy: Always}", "type: Wait");
        assert_eq!(default.is_some(), mode.on_nodes(), "{mode}");
        if let Some(container) = default {
            assert_eq!(container["args"][1], "60s");
            assert_eq!(container["imagePullPolicy"], "Always");
        }
        let fraction = gate(mode, "batch: {}", "type: Wait, timeout: 1500ms");
        assert!(fraction.is_none_or(|container| container["args"][1] == "1.5s"));
        assert_eq!(gate(mode, "batch: {}", "type: None, timeout: 5s"), None);
    }
    // Another image may not know how to wait.
    let foreign = "agent: {image: 'other:1', imagePullPolicy: Always}";
    let foreign = gate(Mode::HostPort, foreign, "type: Wait").unwrap();
    assert_eq!(foreign["image"], environment().agent_image);
    assert_eq!(foreign["imagePullPolicy"], Value::Null);
}

/// An agent that waited for itself would never start. The namespaces of the system and of the operator are in the
/// policies (`tests/golden`).
#[test]
fn agents_opt_out_of_injection_and_so_of_the_gate() {
    for mode in Mode::ALL.into_iter().filter(|mode| mode.on_nodes()) {
        let workload = workload(
            mode,
            "workloads: {namespaceSelector: {}, startGate: {type: Wait}}",
        );
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels[names::LABEL_INJECT], "false", "{mode}");
    }
}
