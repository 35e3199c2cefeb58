//! Shapes of pods that clusters hold, and what `docs/pods.md` says becomes of each.
//!
//! `lab/tests/inject/pod_shapes.rs` sends them to an API server by dry run. They are also part of the table on which
//! policy and function must agree.

mod annotations;

use otelagent_core::names;
use serde_json::{Value, json};

pub use crate::pod_case::{ATTRIBUTES, Case, SERVICE, SIDECAR, Seen, pod, with_app};
use crate::pod_case::{ENDPOINT, MOVED, annotated, app, case, with_spec};

/// All pods, for the comparison of the engines.
pub fn pods() -> Vec<(&'static str, Value)> {
    cases()
        .into_iter()
        .map(|case| (case.name, case.pod))
        .collect()
}

/// All lines of the documentation.
pub fn cases() -> Vec<Case> {
    [
        nodes_and_networks(),
        neighbours(),
        variables(),
        annotations::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn nodes_and_networks() -> Vec<Case> {
    let secure = json!({
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "runAsNonRoot": true},
        "shareProcessNamespace": true,
        "enableServiceLinks": false,
        "automountServiceAccountToken": false,
        "containers": [app(json!({"securityContext": {"readOnlyRootFilesystem": true}}))],
    });
    let dns = |searches: Value| json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.10"], "searches": searches}});
    vec![
        case(
            "pod-level resources",
            with_spec(json!({"resources": {"limits": {"memory": "64Mi"}}})),
            |seen| seen.refused("it sets spec.resources"),
            Seen::warned,
        ),
        case(
            "Windows",
            with_spec(json!({"os": {"name": "windows"}})),
            |seen| seen.refused("it is for Windows nodes"),
            |seen| seen.refused("it is for Windows nodes"),
        ),
        case(
            "Windows by node selector",
            with_spec(json!({"nodeSelector": {"kubernetes.io/os": "windows"}})),
            |seen| seen.refused("it is for Windows nodes"),
            |seen| seen.refused("it is for Windows nodes"),
        ),
        case(
            "Windows by node affinity",
            crate::pod_variants::placed(&[&[("kubernetes.io/os", "In", &["windows"])]]),
            |seen| seen.refused("it is for Windows nodes"),
            |seen| seen.refused("it is for Windows nodes"),
        ),
        case(
            "another architecture",
            with_spec(json!({"nodeSelector": {"kubernetes.io/arch": "s390x"}})),
            |seen| seen.refused("it is for nodes of an architecture"),
            Seen::warned,
        ),
        case(
            "virtual nodes",
            with_spec(json!({"nodeSelector": {"type": "virtual-kubelet"}})),
            |seen| seen.refused("it is for virtual nodes"),
            Seen::warned,
        ),
        case(
            "ndots below 3",
            with_spec(json!({"dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}})),
            Seen::unadvised,
            |seen| seen.advised("ndots is below 3"),
        ),
        case(
            "dnsPolicy None with searches",
            with_spec(dns(json!(["svc.cluster.local", "cluster.local"]))),
            Seen::warned,
            Seen::warned,
        ),
        case(
            "dnsPolicy None without searches",
            with_spec(dns(json!([]))),
            |seen| seen.refused("does not resolve the Service that a sidecar would send to"),
            |seen| seen.refused("its DNS policy does not resolve the agent's Service"),
        ),
        case(
            "dnsPolicy Default",
            with_spec(json!({"dnsPolicy": "Default"})),
            |seen| seen.refused("does not resolve the Service that a sidecar would send to"),
            |seen| seen.refused("its DNS policy does not resolve the agent's Service"),
        ),
        case(
            "host network",
            with_spec(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"})),
            |seen| seen.refused("it is on the host network"),
            Seen::warned,
        ),
        case(
            "runs as root",
            with_spec(json!({"securityContext": {"runAsUser": 0}})),
            |seen| {
                seen.warned();
                let agent = seen.container(names::CONTAINER);
                assert_eq!(agent["securityContext"]["runAsUser"], 65532, "{agent:#}");
            },
            Seen::warned,
        ),
        case(
            "shareProcessNamespace, read-only root, runAsUser, enableServiceLinks false, automount off",
            with_spec(secure),
            |seen| {
                seen.warned();
                let agent = seen.container(names::CONTAINER);
                assert!(agent["securityContext"]["runAsUser"].is_null(), "{agent:#}");
                assert_eq!(agent["securityContext"]["readOnlyRootFilesystem"], true);
            },
            Seen::warned,
        ),
    ]
}

fn neighbours() -> Vec<Case> {
    let native = |name: &str| json!({"name": name, "image": "x", "restartPolicy": "Always"});
    let init = |name: &str| json!({"name": name, "image": "x"});
    let inits = |inits: Value| {
        let containers = json!([app(json!({}))]);
        pod(
            json!({"name": "shape"}),
            json!({"containers": containers, "initContainers": inits}),
        )
    };
    let ports = |ports: &[u16]| {
        let ports: Vec<Value> = ports.iter().map(|p| json!({"containerPort": p})).collect();
        json!({"ports": ports})
    };
    let collector = json!({"name": "collector", "image": "otelcol", "ports": [
        {"name": "otlp-grpc", "containerPort": 4317}, {"name": "otlp-http", "containerPort": 4318},
        {"name": "metrics", "containerPort": 8888}, {"name": "health", "containerPort": 13133},
    ]});
    let with_collector = pod(
        json!({"name": "shape"}),
        json!({"containers": [
            app(json!({"env": [{"name": ENDPOINT, "value": "http://localhost:4317"}]})), collector,
        ]}),
    );
    let instrumented = pod(
        json!({"name": "shape", "annotations": {"instrumentation.opentelemetry.io/inject-java": "true"}}),
        json!({
            "initContainers": [init("opentelemetry-auto-instrumentation-java")],
            "containers": [app(json!({"env": [
                {"name": "JAVA_TOOL_OPTIONS", "value": " -javaagent:/otel-auto-instrumentation-java/javaagent.jar"},
                {"name": SERVICE, "value": "theirs"},
                {"name": ENDPOINT, "value": "http://theirs:4317"},
                {"name": "OTEL_RESOURCE_ATTRIBUTES_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": ATTRIBUTES, "value": "k8s.pod.name=$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME),service.version=1"},
            ]}))],
        }),
    );
    vec![
        case(
            "an application at 4317 or 4318",
            with_app(ports(&[4318])),
            |seen| {
                seen.injected();
                assert_eq!(seen.value("app", ENDPOINT), MOVED);
                assert_eq!(seen.agent_ports(), [14317, 14318]);
            },
            Seen::warned,
        ),
        case(
            "an application at all of the agent's ports",
            with_app(ports(&[4317, 14318])),
            |seen| seen.refused("a container uses port 4317, as the agent does"),
            Seen::warned,
        ),
        case(
            "a collector in the pod",
            with_collector,
            |seen| {
                seen.injected();
                assert_eq!(seen.value("app", ENDPOINT), "http://localhost:4317");
                assert_eq!(seen.agent_ports(), [14317, 14318]);
            },
            |seen| {
                seen.injected();
                assert_eq!(seen.value("app", ENDPOINT), "http://localhost:4317");
            },
        ),
        case(
            "a collector requested by annotation",
            annotated("sidecar.opentelemetry.io/inject", "true"),
            |seen| seen.refused("asks for a collector of its own"),
            |seen| seen.refused("asks for a collector of its own"),
        ),
        case(
            "a collector declined by annotation",
            annotated("sidecar.opentelemetry.io/inject", "false"),
            Seen::warned,
            Seen::warned,
        ),
        case(
            "instrumented by the OpenTelemetry operator",
            instrumented,
            kept_as_instrumented,
            kept_as_instrumented,
        ),
        case(
            "Istio",
            inits(json!([
                init("istio-init"),
                native("istio-proxy"),
                init("migrate")
            ])),
            |seen| {
                seen.warned();
                assert_eq!(
                    seen.inits(),
                    ["istio-init", "istio-proxy", names::CONTAINER, "migrate"]
                );
            },
            Seen::warned,
        ),
        case(
            "Linkerd",
            inits(json!([
                init("linkerd-network-validator"),
                init("migrate"),
                native("linkerd-proxy"),
                init("late"),
            ])),
            |seen| {
                seen.warned();
                let order = [
                    "linkerd-network-validator",
                    "migrate",
                    "linkerd-proxy",
                    names::CONTAINER,
                    "late",
                ];
                assert_eq!(seen.inits(), order);
            },
            Seen::warned,
        ),
        case(
            "native sidecars of others",
            inits(json!([native("logs"), init("migrate")])),
            |seen| {
                seen.warned();
                assert_eq!(seen.inits(), [names::CONTAINER, "logs", "migrate"]);
                assert_eq!(seen.value("migrate", ENDPOINT), SIDECAR);
            },
            Seen::warned,
        ),
    ]
}

/// Everything of theirs as it was, and only what was missing added.
fn kept_as_instrumented(seen: &Seen) {
    seen.injected();
    assert_eq!(seen.value("app", ENDPOINT), "http://theirs:4317");
    assert_eq!(seen.value("app", SERVICE), "theirs");
    let attributes = seen.value("app", ATTRIBUTES);
    assert!(attributes.starts_with(
        "k8s.pod.name=$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME),service.version=1,k8s.namespace.name="
    ));
    assert_eq!(attributes.matches("k8s.pod.name=").count(), 1);
    assert_eq!(attributes.matches("service.version=").count(), 1);
}

fn variables() -> Vec<Case> {
    let env = |env: Value| with_app(json!({"env": env}));
    let from = |sources: Value| with_app(json!({"envFrom": sources}));
    let source = json!({"configMapRef": {"name": "settings"}});
    let key = json!({"configMapKeyRef": {"name": "settings", "key": "k"}});
    vec![
        case(
            "a variable set",
            env(json!([{"name": ENDPOINT, "value": "http://own:4317"}])),
            |seen| assert_eq!(seen.value("app", ENDPOINT), "http://own:4317"),
            |seen| assert_eq!(seen.value("app", ENDPOINT), "http://own:4317"),
        ),
        case(
            "an empty variable",
            env(json!([{"name": ENDPOINT, "value": ""}, {"name": SERVICE}])),
            |seen| {
                assert_eq!(seen.value("app", ENDPOINT), "");
                assert_eq!(seen.value("app", SERVICE), "");
            },
            |seen| assert_eq!(seen.value("app", ENDPOINT), ""),
        ),
        case(
            "a variable with `valueFrom`",
            env(
                json!([{"name": ENDPOINT, "valueFrom": key}, {"name": ATTRIBUTES, "valueFrom": key}]),
            ),
            |seen| {
                assert_eq!(seen.variables("app", ENDPOINT).len(), 1);
                assert_eq!(seen.variables("app", ATTRIBUTES).len(), 1);
                // The attributes may name the service.
                seen.without("app", SERVICE);
            },
            |seen| seen.without("app", SERVICE),
        ),
        case(
            "blank attributes",
            env(json!([{"name": ATTRIBUTES, "value": " ,\n"}])),
            |seen| {
                seen.warned();
                assert!(
                    seen.value("app", ATTRIBUTES)
                        .starts_with("k8s.namespace.name=")
                );
            },
            |seen| {
                assert!(
                    seen.value("app", ATTRIBUTES)
                        .starts_with("k8s.namespace.name=")
                );
            },
        ),
        case(
            "an endpoint of one signal",
            env(
                json!([{"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "http://own:4317"}]),
            ),
            |seen| {
                seen.injected();
                seen.without("app", ENDPOINT);
            },
            |seen| seen.without("app", ENDPOINT),
        ),
        case(
            "variables that refer to others",
            env(json!([
                {"name": "TEAM", "value": "a"},
                {"name": "BOTH", "value": "$(TEAM)-$(OTELAGENT_NODE_NAME)"},
                {"name": ATTRIBUTES, "value": "team=$(BOTH)"},
            ])),
            |seen| {
                seen.warned();
                let env = seen.container("app")["env"].as_array().unwrap();
                let at = |name: &str| env.iter().position(|v| v["name"] == name).unwrap();
                assert!(at("OTELAGENT_NODE_NAME") < at("TEAM"));
                assert!(at("TEAM") < at("BOTH") && at("BOTH") < at(ATTRIBUTES));
                assert!(seen.value("app", ATTRIBUTES).starts_with("team=$(BOTH),"));
            },
            Seen::warned,
        ),
        case(
            "a variable twice",
            env(json!([
                {"name": ENDPOINT, "value": "http://first:4317"},
                {"name": ENDPOINT, "value": "http://last:4317"},
            ])),
            |seen| {
                let values: Vec<&str> = seen
                    .variables("app", ENDPOINT)
                    .iter()
                    .filter_map(|variable| variable["value"].as_str())
                    .collect();
                assert_eq!(values, ["http://first:4317", "http://last:4317"]);
            },
            Seen::injected,
        ),
        case(
            "envFrom",
            from(json!([source])),
            nothing_that_may_be_carried,
            nothing_that_may_be_carried,
        ),
        case(
            "envFrom with a prefix of other variables",
            from(json!([{"prefix": "APP_", "secretRef": {"name": "settings"}}])),
            |seen| {
                seen.warned();
                assert_eq!(seen.variables("app", SERVICE).len(), 1);
            },
            Seen::warned,
        ),
        case(
            "envFrom with a prefix of the attributes only",
            from(json!([{"prefix": "OTEL_RES", "secretRef": {"name": "settings"}}])),
            |seen| {
                seen.warned();
                seen.without("app", ATTRIBUTES);
                seen.without("app", SERVICE);
            },
            Seen::warned,
        ),
    ]
}

fn nothing_that_may_be_carried(seen: &Seen) {
    seen.injected();
    for name in [ENDPOINT, SERVICE, ATTRIBUTES, "OTEL_BSP_SCHEDULE_DELAY"] {
        seen.without("app", name);
    }
    assert_eq!(seen.variables("app", "OTELAGENT_POD_NAME").len(), 1);
}
