//! What a support bundle holds, without secrets.

use std::collections::BTreeSet;

use otelagent_api::{Header, Mode, Protocol};
use otelagent_core::build::{Object, build, validate};
use otelagent_core::inject::policy::{self, PolicyInput};
use otelagent_core::inject::{Namespaces, Selection};
use otelagent_core::names;
use otelagent_core::support::{CONTENTS, REMOVED, without_secrets};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{agent_with, environment};

/// A secret that looks like nothing else.
fn secret() -> impl Strategy<Value = String> {
    proptest::string::string_regex("[A-Za-z0-9+=_-]{16,40}").unwrap()
}

/// What the operator writes for an `OtelAgent` whose headers and configuration have a secret: also the object itself.
fn written(secret: &str) -> Vec<Value> {
    let mut written = Vec::new();
    for mode in Mode::ALL {
        let spec = format!("mode: {mode}, workloads: {{namespaceSelector: {{}}}}");
        let mut agent = agent_with("otelagent-system", &spec);
        agent.spec.export.protocol = Protocol::Http;
        agent.spec.export.headers = vec![Header {
            name: "x-api-key".into(),
            value: Some(secret.into()),
            secret_key_ref: None,
        }];
        let config = json!({
            "exporters": {"otlp_http": {"proxy_url": format!("http://me:{secret}@proxy:3128"), "headers": {"a": secret}}},
            "extensions": {"bearertokenauth": {"tokens": [secret]}},
        });
        agent.spec.config = config.as_object().cloned();
        let valid = match validate(&agent, &environment()) {
            Ok(valid) => valid,
            Err(problems) => panic!("{problems:?}"),
        };
        let desired = build(&valid, &environment(), [mode]);
        let recipe = desired.recipe(mode).unwrap();
        let policies = policy::render(&PolicyInput {
            namespace: "otelagent-system".into(),
            name: "node".into(),
            uid: "u".into(),
            recipe: recipe.clone(),
            selection: Selection {
                namespaces: Namespaces::Named("shop".into()),
                pods: otelagent_api::Selector::default(),
            },
            exclusions: Vec::new(),
            excluded_namespaces: Vec::new(),
            canary_namespace: "c".into(),
            on_failure: otelagent_api::OnFailure::Ignore,
            owner_reference: None,
        });
        let policies = policies.unwrap();
        written.extend(desired.objects(mode).iter().map(Object::to_json));
        written.extend(policies.policy);
        written.extend(policies.warnings);
        written.push(policies.binding);
        written.push(serde_json::to_value(&agent).unwrap());
        let annotations = recipe.annotations.clone();
        written.push(json!({"kind": "Pod", "metadata": {"annotations": annotations}}));
        let instruction = serde_json::to_string(recipe).unwrap();
        written.push(json!({
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"annotations": {names::ANNOTATION_INSTRUCTION: instruction}},
        }));
    }
    written
}

/// Objects of others, with a secret wherever one may stand.
fn of_others(secret: &str) -> Vec<Value> {
    let container = json!({
        "name": "app",
        "image": "app:1",
        "command": ["run", secret],
        "args": [format!("--key={secret}")],
        "env": [
            {"name": "DATABASE", "value": secret},
            {"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": format!("key={secret}")},
            {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": format!("http://a:{secret}@b:4317/?key={secret}")},
            {"name": "REFERRED", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}},
        ],
        "livenessProbe": {
            "exec": {"command": ["check", secret]},
            "httpGet": {"path": "/", "httpHeaders": [{"name": "x", "value": secret}]},
        },
        "lifecycle": {"preStop": {"exec": {"command": [secret]}}},
    });
    let status =
        json!({"name": "app", "image": "app:1", "lastState": {"terminated": {"message": secret}}});
    let annotations = json!({
        "kubectl.kubernetes.io/last-applied-configuration": secret,
        "example.com/token": secret,
    });
    let pod = json!({
        "kind": "Pod",
        "metadata": {"name": "app", "annotations": annotations},
        "spec": {"containers": [container], "initContainers": [container],
            "volumes": [{"name": "v", "csi": {"volumeAttributes": {"key": secret}}}]},
        "status": {"containerStatuses": [status]},
    });
    vec![
        pod.clone(),
        json!({"kind": "Deployment", "metadata": {"name": "app"}, "spec": {"template": pod}}),
        json!({"kind": "Secret", "metadata": {"annotations": annotations}, "data": {"k": secret}, "stringData": {"l": secret}}),
        json!({"kind": "ConfigMap", "metadata": {"name": "app"}, "data": {"k": secret}, "binaryData": {"l": secret}}),
        json!({"kind": "Event", "message": format!("GET https://a:{secret}@b/c?d={secret} failed, then http://{secret}@e")}),
    ]
}

proptest! {
    // A case renders every mode.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn no_secret_survives(secret in secret()) {
        for object in written(&secret).iter().chain(&of_others(&secret)) {
            let left = without_secrets(object).to_string();
            prop_assert!(!left.contains(&secret), "{} of {}", left, object["kind"]);
        }
    }

    #[test]
    fn what_is_cleared_stays_as_it_is(secret in secret()) {
        for object in written(&secret).iter().chain(&of_others(&secret)) {
            let once = without_secrets(object);
            prop_assert_eq!(&without_secrets(&once), &once);
        }
    }
}

#[test]
fn what_a_supporter_needs_stays() {
    let pod = json!({
        "kind": "Pod",
        "metadata": {"labels": {names::LABEL_AGENT: "a.b"}, "annotations": {names::ANNOTATION_CONTAINERS: "app"}},
        "spec": {
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
            "containers": [{"name": "app", "image": "app:1", "env": [
                {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://$(OTELAGENT_HOST_IP):4317"},
                {"name": "PORT", "value": "1"},
                {"name": "REFERRED", "valueFrom": {"secretKeyRef": {"name": "database", "key": "password"}}},
            ]}],
            "initContainers": [{"name": names::CONTAINER, "image": "agent:1", "args": ["--config", "/c"]}],
        },
    });
    let mut expected = pod.clone();
    expected["spec"]["containers"][0]["env"][1]["value"] = REMOVED.into();
    assert_eq!(without_secrets(&pod), expected);

    let secret = json!({"kind": "Secret", "type": "Opaque", "metadata": {"name": "a"}, "data": {"token": "x"}});
    let left = without_secrets(&secret);
    assert_eq!(left["data"], json!({"token": REMOVED}));
    assert_eq!(left["type"], "Opaque");

    let operator = json!({
        "kind": "Deployment",
        "metadata": {"labels": {"app.kubernetes.io/name": "otelagent"}},
        "spec": {"template": {"spec": {"containers": [{"name": "operator", "image": "o", "args": ["controller"]}]}}},
    });
    assert_eq!(without_secrets(&operator), operator);
}

#[test]
fn agents_configuration_stays_readable_without_its_headers() {
    let objects = written("0123456789abcdef0123");
    let workload = objects.iter().find(|object| object["kind"] == "DaemonSet");
    let cleared = without_secrets(workload.unwrap());
    let annotations = &cleared["spec"]["template"]["metadata"]["annotations"];
    let text = annotations[names::ANNOTATION_CONFIG].as_str().unwrap();
    assert!(text.contains("x-api-key: <removed>"), "{text}");
    assert!(text.contains("endpoint: "), "{text}");
}

#[test]
fn bundle_names_each_kind_once() {
    let kinds: BTreeSet<_> = CONTENTS
        .iter()
        .map(|one| (one.api_version, one.kind))
        .collect();
    assert_eq!(kinds.len(), CONTENTS.len());
}
