//! Other people's admission on a real API server: policies that rewrite images, add variables, choose users, demand
//! limits, and refuse the canary's pods.

use std::sync::Arc;

use otelagent_core::build::Choice;
use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use super::callee::Callee;
use super::installed::{self, InstalledOperator, apply_side, begin, until_condition};
use super::server::{CANARY, Server};

/// The users that the platform gives, as the SCC `restricted-v2` does.
const USERS: &str = "1000650000";

/// JSON patches for every container `c` of both lists, at `path`.
fn each_container(patches: &str) -> String {
    let of = |list: &str| {
        let patches = patches.replace("$path", &format!("'/spec/{list}/' + string(i)"));
        format!("object.spec.?{list}.orValue([]).transformList(i, c, {patches}).flatten()")
    };
    format!("{} + {}", of("containers"), of("initContainers"))
}

/// A policy of somebody else that changes every pod, and its binding. It comes again after other policies.
fn mutation(name: &str, patches: &str) -> [Value; 2] {
    let spec = json!({
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": pods(),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
    });
    [
        object("MutatingAdmissionPolicy", name, spec),
        object(
            "MutatingAdmissionPolicyBinding",
            name,
            json!({"policyName": name}),
        ),
    ]
}

/// A policy of somebody else that refuses pods for which the expression is false, outside of some namespaces.
fn demand(name: &str, expression: &str, exempt: &[&str]) -> [Value; 2] {
    let spec = json!({
        "failurePolicy": "Fail",
        "matchConstraints": pods(),
        "validations": [{"expression": expression, "message": format!("{name} says no")}],
    });
    let namespaces =
        json!([{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": exempt}]);
    let namespaces = if exempt.is_empty() {
        json!([])
    } else {
        namespaces
    };
    let binding = json!({
        "policyName": name,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchExpressions": namespaces}},
    });
    [
        object("ValidatingAdmissionPolicy", name, spec),
        object("ValidatingAdmissionPolicyBinding", name, binding),
    ]
}

fn pods() -> Value {
    json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]})
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

/// Every container of a pod fulfils this.
fn all_containers(condition: &str) -> String {
    format!(
        "(object.spec.containers + object.spec.?initContainers.orValue([])).all(c, {condition})"
    )
}

/// What a platform does to every pod.
fn platform() -> Vec<Value> {
    let images = "!c.image.startsWith('mirror.local/') ? [JSONPatch{op: 'replace', path: $path + '/image', \
                  value: 'mirror.local/' + string(c.image)}] : []";
    let variables = "(has(c.env) ? [] : [JSONPatch{op: 'add', path: $path + '/env', value: []}]) \
                     + (c.?env.orValue([]).exists(e, e.name == 'HTTPS_PROXY') ? [] : [JSONPatch{op: 'add', \
                     path: $path + '/env/-', value: {'name': 'HTTPS_PROXY', 'value': 'http://proxy'}}])";
    let label = "(has(object.metadata.labels) ? [] : [JSONPatch{op: 'add', path: '/metadata/labels', value: {}}]) \
                 + [JSONPatch{op: 'add', path: '/metadata/labels/team', value: 'x'}] + ";
    let users = format!(
        "(has(c.securityContext) ? [] : [JSONPatch{{op: 'add', path: $path + '/securityContext', value: {{}}}}]) \
         + (has(c.securityContext) && has(c.securityContext.runAsUser) ? [] : [JSONPatch{{op: 'add', \
         path: $path + '/securityContext/runAsUser', value: {USERS}}}])"
    );
    let in_range = all_containers(&format!(
        "c.?securityContext.?runAsUser.orValue(0) == {USERS}"
    ));
    let limited = all_containers("['cpu', 'memory'].all(r, r in c.?resources.?limits.orValue({}))");
    [
        mutation("mirror", &each_container(images)),
        mutation("stamp", &format!("{label}{}", each_container(variables))),
        mutation("users", &each_container(&users)),
        demand("users-in-range", &in_range, &[]),
        demand("limits", &limited, &[]),
    ]
    .concat()
}

async fn apply(server: &Server, objects: &[Value]) {
    for object in objects {
        let answer = server.apply(object).await;
        assert!(answer.is_ok(), "{}", answer.body["message"]);
    }
}

/// An application's pod, as restricted as the canary namespace asks for.
fn application() -> Value {
    let amounts = json!({"cpu": "1m", "memory": "1Mi"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"},
        "spec": {"containers": [{"name": "app", "image": "app:1", "resources": {"limits": amounts}, "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"}}}]}})
}

fn is_active(condition: &Value) -> bool {
    condition["status"] == "True" && condition["reason"] == "Active"
}

/// A pod as its user gets it, injected and changed by the platform.
async fn pod_is_injected_and_changed_by_others(server: &Server) {
    let answer = server.dry_run("shop", &application()).await;
    assert!(answer.is_ok(), "{}", answer.body["message"]);
    assert_eq!(answer.label(names::LABEL_AGENT), Some("shop.side"));
    assert_eq!(answer.label("team"), Some("x"));
    let spec = &answer.body["spec"];
    let agent = &spec["initContainers"][0];
    for container in [agent, &spec["containers"][0]] {
        let image = container["image"].as_str().unwrap();
        assert!(image.starts_with("mirror.local/"), "{container:#}");
        assert_eq!(container["securityContext"]["runAsUser"].to_string(), USERS);
    }
    assert_eq!(agent["name"], names::CONTAINER);
}

#[tokio::test(flavor = "multi_thread")]
async fn injection_is_verified_and_active_beside_policies_that_change_every_pod() {
    let Some((bed, server)) = begin("other people's mutating policies", "others").await else {
        return;
    };
    let server = Arc::new(server);
    apply(&server, &platform()).await;
    server
        .until("the platform's policies act", async || {
            let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "bare-"},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
            let refused = server.dry_run("shop", &bare).await;
            let fine = server.dry_run("shop", &application()).await;
            let image = &fine.body["spec"]["containers"][0]["image"];
            let is_all = refused.status == 422 && fine.label("team") == Some("x") && *image == "mirror.local/app:1";
            is_all.then_some(()).ok_or(format!("{refused:?} {fine:?}"))
        })
        .await;

    let callee = Callee::start_with_what_is_kept(&bed).await;
    apply_side(&server, json!({"flushInterval": "500ms"})).await;
    for engine in [Choice::Policy, Choice::Webhook] {
        let settings = InjectionSettings {
            engine,
            webhook_url: Some(callee.url().to_owned()),
            ..InjectionSettings::default()
        };
        let operator = InstalledOperator::start(&bed, settings).await;
        let binding = match engine {
            Choice::Webhook => "mutatingwebhookconfigurations",
            _ => "mutatingadmissionpolicybindings",
        };
        let path = format!("/apis/admissionregistration.k8s.io/v1/{binding}/otelagent.shop.side");
        server
            .until("the engine is bound", async || {
                let bound = server.get(&path).await;
                bound.is_ok().then_some(()).ok_or(format!("{bound:?}"))
            })
            .await;
        until_condition(&server, "Injected", "Injected", is_active).await;
        until_condition(&server, "Ready", "Ready", |ready| ready["status"] == "True").await;
        pod_is_injected_and_changed_by_others(&server).await;
        operator.end().await;
    }
    tokio::task::spawn_blocking(|| bed.stop())
        .await
        .unwrap()
        .unwrap();
}

/// A webhook that nobody answers, for the canary's pods.
fn dead_webhook() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "somebody"},
        "webhooks": [{
            "name": "pods.somebody.example.com",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 1,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": CANARY}},
            "rules": pods()["resourceRules"],
        }],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_pods_that_others_refuse_bind_nothing_and_end_nothing() {
    let Some((bed, server)) = begin("other people's validating policies", "refusing").await else {
        return;
    };
    let owner = "'owner' in object.metadata.?annotations.orValue({})";
    apply(&server, &demand("owners", owner, &["shop"])).await;
    server
        .until("the canary's pods are refused", async || {
            let answer = server.dry_run(CANARY, &application()).await;
            let message = answer.body["message"].as_str().unwrap_or_default();
            message
                .contains("owners says no")
                .then_some(())
                .ok_or(message.to_owned())
        })
        .await;
    let policy = || InjectionSettings {
        engine: Choice::Policy,
        ..InjectionSettings::default()
    };
    let operator = InstalledOperator::start(&bed, policy()).await;
    apply_side(&server, json!({"flushInterval": "500ms"})).await;
    let refused = |condition: &Value, parts: &[&str]| {
        let message = condition["message"].as_str().unwrap_or_default();
        condition["reason"] == "CanaryRefused" && parts.iter().all(|part| message.contains(part))
    };
    for type_ in ["Injected", "Ready"] {
        until_condition(&server, "refused from the start", type_, |condition| {
            refused(
                condition,
                &[
                    "nothing is injected yet",
                    "otelagent-canary",
                    "owners says no",
                ],
            )
        })
        .await;
    }
    let binding =
        "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/otelagent.shop.side";
    assert_eq!(server.get(binding).await.status, 404);

    // The remedy that the message names.
    apply(&server, &demand("owners", owner, &["shop", CANARY])).await;
    until_condition(&server, "exempt", "Injected", is_active).await;

    // A replica that has not looked yet.
    apply(&server, &[dead_webhook()]).await;
    server
        .until("the webhook is asked", async || {
            let answer = server.dry_run(CANARY, &application()).await;
            (answer.status >= 400)
                .then_some(())
                .ok_or(format!("{answer:?}"))
        })
        .await;
    operator.end().await;
    let operator = InstalledOperator::start(&bed, policy()).await;
    until_condition(&server, "unconfirmed", "Injected", |injected| {
        let message = injected["message"].as_str().unwrap_or_default();
        is_active(injected) && message.contains("somebody.example.com")
    })
    .await;
    until_condition(&server, "still ready", "Ready", |ready| {
        ready["status"] == "True"
    })
    .await;

    // A new recipe cannot be verified: the previous one stays.
    let recipe = async || {
        let pod = server.dry_run("shop", &application()).await;
        pod.label(names::LABEL_CONFIG).map(str::to_owned)
    };
    let before = recipe().await;
    apply_side(&server, json!({"flushInterval": "700ms"})).await;
    until_condition(&server, "refused later", "Injected", |condition| {
        refused(
            condition,
            &["the previous one stays active", "somebody.example.com"],
        )
    })
    .await;
    assert!(before.is_some());
    assert_eq!(recipe().await, before);
    assert!(server.delete(&dead_webhook()).await.is_ok());
    until_condition(&server, "verified again", "Injected", is_active).await;
    assert_ne!(recipe().await, before);
    installed::end(operator, bed).await;
}
