//! What the operator refuses, and what it says instead.

use otelagent_core::build::{Environment, ServerVersion, validate};
use otelagent_core::inject::canary::probe_pods;
use otelagent_core::inject::{Injection, inject};

use super::{agent_with, desired, environment};

fn problems(namespace: &str, spec: &str) -> Vec<(&'static str, String)> {
    problems_on(namespace, spec, &environment())
}

fn problems_on(
    namespace: &str,
    spec: &str,
    environment: &Environment,
) -> Vec<(&'static str, String)> {
    let problems = validate(&agent_with(namespace, spec), environment)
        .err()
        .unwrap_or_default();
    problems
        .into_iter()
        .map(|problem| (problem.reason, problem.message))
        .collect()
}

#[test]
fn node_modes_need_a_platform_namespace_and_the_message_names_it() {
    for mode in ["HostPort", "HostNetwork", "NodeLocal"] {
        let found = problems("shop", &format!("mode: {mode}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, "NotAPlatformNamespace");
        assert!(
            found[0].1.contains("otelagent-system") && found[0].1.contains("Sidecar"),
            "{}",
            found[0].1
        );
    }
    assert_eq!(problems("shop", "mode: Sidecar"), []);
    assert_eq!(problems("otelagent-system", "mode: NodeLocal"), []);
}

#[test]
fn another_image_and_other_namespaces_pods_need_a_platform_namespace() {
    let found = problems(
        "shop",
        "mode: Sidecar, agent: {image: x}, workloads: {namespaceSelector: {}}",
    );
    assert_eq!(
        found.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(),
        ["NotAPlatformNamespace"; 2]
    );
}

#[test]
fn selection_that_can_hold_no_pod_is_refused_with_the_words_to_write() {
    let own = "mode: NodeLocal, workloads: {podSelector: {matchLabels: {app: cart}}}";
    let found = problems("otelagent-system", own);
    assert_eq!(found[0].0, "SelectsNothing");
    let words = "add workloads.namespaceSelector, such as {matchLabels: {kubernetes.io/metadata.name: shop}}";
    assert!(found[0].1.contains(words), "{}", found[0].1);
    for selector in [
        "{matchLabels: {a: x}, matchExpressions: [{key: a, operator: NotIn, values: [x]}]}",
        "{matchLabels: {otelagent.dev/inject: 'false'}}",
    ] {
        let spec = format!("mode: Sidecar, workloads: {{podSelector: {selector}}}");
        assert_eq!(problems("shop", &spec)[0].0, "SelectsNothing", "{selector}");
    }
    assert_eq!(problems("shop", "mode: Sidecar, workloads: {}"), []);
    assert_eq!(problems("otelagent-system", "mode: NodeLocal"), []);
}

#[test]
fn selector_that_asks_for_what_no_label_can_be_is_refused_with_its_field() {
    for (selector, words) in [
        (
            "{matchLabels: {telemetry: 'otel agent'}}",
            "matchLabels has `telemetry: otel agent`, which is no label",
        ),
        (
            "{matchLabels: {'a b': x}}",
            "matchLabels has `a b: x`, which is no label",
        ),
        (
            "{matchExpressions: [{key: app, operator: Exists}, {key: 'a b', operator: Exists}]}",
            "matchExpressions[1] has key `a b`, which no label has",
        ),
        (
            "{matchExpressions: [{key: app, operator: In, values: [cart, 'till ']}]}",
            "matchExpressions[0] has value `till `, which no label has",
        ),
        (
            "{matchExpressions: [{key: app, operator: NotIn}]}",
            "matchExpressions[0] has no values",
        ),
    ] {
        for (namespace, field) in [
            ("shop", "podSelector"),
            ("otelagent-system", "namespaceSelector"),
        ] {
            let spec = format!("mode: Sidecar, workloads: {{{field}: {selector}}}");
            let found = problems(namespace, &spec);
            let expected = format!("spec.workloads.{field}.{words}");
            assert_eq!((found.len(), found[0].0), (1, "InvalidValue"), "{found:?}");
            assert!(found[0].1.starts_with(&expected), "{}", found[0].1);
        }
    }
    let all = "{matchLabels: {app: '', example.com/role: A.b_c-1}, matchExpressions: [{key: a, operator: In, values: ['']}]}";
    let spec = format!("mode: Sidecar, workloads: {{podSelector: {all}}}");
    assert_eq!(problems("shop", &spec), []);
}

#[test]
fn prefer_is_refused_on_servers_without_it_and_never_downgraded() {
    let old = Environment {
        server: ServerVersion {
            major: 1,
            minor: 33,
        },
        ..environment()
    };
    let spec = "mode: NodeLocal, nodeLocal: {routing: Prefer}";
    let found = problems_on("otelagent-system", spec, &old);
    assert_eq!(found[0].0, "ServerTooOld");
    for word in ["PreferSameNode", "1.34", "1.33", "Require"] {
        assert!(found[0].1.contains(word), "{word} in: {}", found[0].1);
    }
    assert_eq!(problems("otelagent-system", spec), []);
}

#[test]
fn path_of_a_signal_does_not_belong_into_the_endpoint() {
    for (export, words) in [
        (
            "endpoint: 'http://sink:4318/v1/traces', protocol: http",
            "`/v1/traces`, which the agent appends itself; write http://sink:4318",
        ),
        (
            "endpoint: 'https://sink:4318/otlp/v1/logs/', protocol: http",
            "`/v1/logs`, which the agent appends itself; write https://sink:4318/otlp",
        ),
        (
            "endpoint: 'http://sink:4318/v1/metrics'",
            "write http://sink:4318 and protocol http",
        ),
    ] {
        let agent = super::agent(&format!(
            "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: a, namespace: otelagent-system}}, \
             spec: {{mode: Sidecar, export: {{{export}}}}}}}"
        ));
        let found = validate(&agent, &environment()).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].reason, "InvalidValue");
        assert!(found[0].message.contains(words), "{}", found[0].message);
    }
}

#[test]
fn sidecar_elsewhere_cannot_have_this_namespaces_secrets() {
    let spec = "mode: Sidecar, workloads: {namespaceSelector: {}}, \
                export: {endpoint: 'http://c:1', headers: [{name: a, secretKeyRef: {name: s, key: k}}]}";
    let agent = super::agent(&format!(
        "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: a, namespace: otelagent-system}}, spec: {{{spec}}}}}"
    ));
    let found = validate(&agent, &environment()).unwrap_err();
    assert_eq!(found[0].reason, "SecretOutOfReach");
}

#[test]
fn restarts_default_to_off_and_one_at_a_time() {
    let at_a_time = |workloads: &str| {
        let spec = format!("mode: Sidecar, workloads: {{{workloads}}}");
        validate(&agent_with("shop", &spec), &environment())
            .unwrap()
            .at_a_time()
    };
    assert_eq!(at_a_time(""), 0);
    assert_eq!(at_a_time("maxConcurrentRestarts: 3"), 0);
    assert_eq!(at_a_time("restart: Rolling"), 1);
    assert_eq!(at_a_time("restart: Rolling, maxConcurrentRestarts: 3"), 3);
}

#[test]
fn configuration_that_the_bundled_agent_refuses_is_named() {
    let found = problems(
        "otelagent-system",
        "mode: NodeLocal, config: {exporters: {kafka: {}}}",
    );
    assert_eq!(found[0].0, "ConfigurationRefused");
    assert!(found[0].1.contains("exporters.kafka"), "{}", found[0].1);
    let other = "mode: NodeLocal, agent: {image: otelcol}, config: {exporters: {kafka: {}}}";
    assert_eq!(
        problems("otelagent-system", other),
        [],
        "another image's configuration is not checked"
    );
}

#[test]
fn encryption_and_a_queue_on_disk_are_accepted_in_every_mode() {
    for mode in ["Sidecar", "HostPort", "HostNetwork", "NodeLocal"] {
        for protocol in ["grpc", "http"] {
            let agent = super::agent(&format!(
                "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: a, namespace: otelagent-system}}, \
                 spec: {{mode: {mode}, buffer: {{disk: {{size: 1Gi}}}}, export: {{endpoint: 'https://c:4317', protocol: {protocol}, \
                 tls: {{caConfigMap: {{name: a, key: ca.crt}}, clientCertificateSecret: {{name: c}}}}}}}}}}"
            ));
            assert_eq!(
                validate(&agent, &environment()).err(),
                None,
                "{mode}, {protocol}"
            );
        }
    }
}

#[test]
fn profiles_are_accepted_where_a_pipeline_has_them() {
    let spec = "mode: NodeLocal, config: {service: {pipelines: {profiles: {receivers: [otlp], exporters: [otlp_grpc]}}}}";
    assert_eq!(problems("otelagent-system", spec), []);
}

#[test]
fn every_sample_that_is_shipped_is_accepted() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/samples");
    let mut seen = 0;
    for entry in std::fs::read_dir(samples).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.contains("kind: OtelAgent") {
            continue;
        }
        let problems = validate(&super::agent(&text), &environment()).err();
        assert_eq!(problems, None, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "the samples were found: {seen}");
}

#[test]
fn moved_sidecar_differs_in_its_ports_only() {
    let recipe = |ports: &str| {
        let spec = format!("mode: Sidecar, ports: {{{ports}}}");
        let valid = validate(&agent_with("shop", &spec), &environment()).unwrap();
        desired(&valid).recipe
    };
    let usual = recipe("grpc: 4317, http: 4318");
    let moved = usual.moved.clone().unwrap();
    let higher = |text: String| {
        [
            ("4317", "14317"),
            ("4318", "14318"),
            ("8888", "18888"),
            ("13133", "23133"),
        ]
        .into_iter()
        .fold(text, |text, (from, to)| text.replace(from, to))
    };
    assert_eq!(
        higher(usual.sidecar.unwrap().to_string()),
        moved.sidecar.to_string()
    );
    assert_eq!(
        moved.env[0].value, "http://127.0.0.1:14317",
        "the endpoint follows"
    );
    let configuration = &moved.annotations["otelagent.dev/agent-config"];
    for port in [
        "127.0.0.1:14317",
        "127.0.0.1:14318",
        "[::]:23133",
        "port: 18888",
    ] {
        assert!(configuration.contains(port), "{port} in: {configuration}");
    }
    let highest = recipe("grpc: 55535, http: 4318").moved.unwrap();
    assert_eq!(highest.env[0].value, "http://127.0.0.1:65535");
    let without = recipe("grpc: 55536, http: 4318");
    assert_eq!(without.moved, None);
    assert_eq!(recipe("metrics: 60000").moved, None);
    for recipe in [recipe("grpc: 4317, http: 4318"), without] {
        for probe in probe_pods(&recipe, "hash") {
            let verified = inject(&probe, "canary", &recipe);
            assert!(matches!(verified, Injection::Injected(_)), "{probe:#}");
        }
    }
}

#[test]
fn agent_that_nobody_would_reach_is_refused_with_what_to_leave_out() {
    for (mode, config, named) in [
        (
            "NodeLocal",
            "receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:4317'}}}}",
            "receivers.otlp.protocols.grpc.endpoint",
        ),
        (
            "HostPort",
            "receivers: {otlp: {protocols: {http: {endpoint: '0.0.0.0:4317'}}}}",
            "receivers.otlp.protocols.http.endpoint",
        ),
        (
            "Sidecar",
            "extensions: {health_check: {endpoint: 'localhost:13133'}}",
            "spec.ports.health",
        ),
        (
            "Sidecar",
            "extensions: {bearertokenauth: {token: a}}, service: {extensions: [bearertokenauth]}",
            "without health_check",
        ),
    ] {
        let spec = format!("mode: {mode}, config: {{{config}}}");
        let found = problems("otelagent-system", &spec);
        let told = found
            .iter()
            .any(|(reason, message)| *reason == "InvalidValue" && message.contains(named));
        assert!(told, "{spec}: {found:?}");
    }
    for (mode, config) in [
        (
            "NodeLocal",
            "receivers: {otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317'}, http: {endpoint: ':4318'}}}}",
        ),
        (
            "Sidecar",
            "receivers: {otlp: {protocols: {grpc: {endpoint: 'localhost:4317'}}}}, \
             extensions: {health_check: {endpoint: '[::]:13133'}}",
        ),
        (
            "HostNetwork",
            "receivers: {otlp: {protocols: {grpc: {endpoint: '${env:OTELAGENT_HOST_IP}:4317'}}}}",
        ),
    ] {
        let spec = format!("mode: {mode}, config: {{{config}}}");
        assert_eq!(problems("otelagent-system", &spec), [], "{spec}");
    }
}

#[test]
fn sidecar_whose_configuration_names_its_ports_does_not_move() {
    let moved = |config: &str| {
        let spec = format!("mode: Sidecar, workloads: {{}}, config: {{{config}}}");
        let valid = validate(&agent_with("shop", &spec), &environment()).expect("a valid spec");
        desired(&valid).recipe.moved.is_some()
    };
    assert!(moved(""));
    assert!(!moved(
        "receivers: {otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317'}}}}"
    ));
}
