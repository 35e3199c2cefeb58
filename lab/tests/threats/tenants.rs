//! Tenants with every right in a namespace of their own, and what they try.
//!
//! Namespaces of tenants begin with `t-`; everything else on the cluster must be unchanged
//! ([`elsewhere`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http::Method;
use otelagent_core::names;
use serde_json::{Value, json};

use super::bed::{
    ADMISSION, AGENTS, CANARY, Caller, PLATFORM, ThreatBed, agent_path, agents_of, condition,
    is_possible, pod, sidecar, until, world,
};

/// The content of a Secret, which no other object may hold.
const CANARY_BYTES: &str = "Y2FuYXJ5LW9mLWEtc2VjcmV0";
const MODES: [&str; 4] = ["Sidecar", "HostPort", "HostNetwork", "NodeLocal"];

/// Namespaced kinds of which a misled operator might create an object.
const KINDS: [&str; 12] = [
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/apis/apps/v1/daemonsets",
    "/apis/apps/v1/deployments",
    "/apis/batch/v1/jobs",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/otelagent.dev/v1alpha1/namespaces/otelagent-system/otelagents",
];

/// Cluster-scoped kinds.
const CLUSTER_KINDS: [&str; 9] = [
    "/api/v1/namespaces",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
];

/// `OtelAgent`s of the platform namespace that tests make.
const OF_TESTS: [&str; 3] = ["labelled", "grabbed", "beside"];

/// Whether an object is of a namespace that a test made, or of such an `OtelAgent`.
fn is_of_tests(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let namespace = metadata["namespace"].as_str();
    let (of, whose) = match (namespace, names::owner_of_cluster_object(name)) {
        (Some(namespace), _) => (namespace.to_owned(), name.to_owned()),
        (None, Some(owner)) => owner,
        (None, None) => (name.to_owned(), String::new()),
    };
    of.starts_with("t-") || of == PLATFORM && OF_TESTS.contains(&whose.as_str())
}

/// Every object outside of tenants' namespaces, without the fields that change by themselves.
async fn elsewhere(admin: &Caller) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for path in KINDS.into_iter().chain(CLUSTER_KINDS) {
        for mut object in admin.list(path).await {
            if is_of_tests(&object) {
                continue;
            }
            let metadata = object["metadata"].take();
            let key = format!("{path} {} {}", metadata["namespace"], metadata["name"]);
            object["metadata"] =
                json!({"labels": metadata["labels"], "annotations": metadata["annotations"]});
            if let Some(object) = object.as_object_mut() {
                object.remove("status");
            }
            found.insert(key, object);
        }
    }
    found
}

/// The differences, by name.
fn differences(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<String> {
    let keys = before.keys().chain(after.keys());
    let mut differ: Vec<String> = keys
        .filter(|key| before.get(*key) != after.get(*key))
        .cloned()
        .collect();
    differ.sort();
    differ.dedup();
    differ
}

/// Cluster-scoped objects that the operator made for a tenant act only in that tenant's namespace.
async fn confined(admin: &Caller, namespace: &str) -> usize {
    let mut seen = 0;
    for kind in [
        "mutatingadmissionpolicybindings",
        "validatingadmissionpolicybindings",
    ] {
        for binding in admin.list(&format!("{ADMISSION}/{kind}")).await {
            let name = binding["metadata"]["name"].as_str().unwrap_or_default();
            let owner = names::owner_of_cluster_object(name);
            if owner.is_none_or(|(of, _)| of != namespace) {
                continue;
            }
            seen += 1;
            let selector = &binding["spec"]["matchResources"]["namespaceSelector"];
            let one = &selector["matchExpressions"][0];
            let values: Vec<&str> = one["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            assert_eq!(one["key"], "kubernetes.io/metadata.name", "{binding:#}");
            assert_eq!(one["operator"], "In", "{binding:#}");
            assert!(
                values
                    .iter()
                    .all(|value| [namespace, CANARY].contains(value)),
                "{binding:#}"
            );
            let bound = binding["spec"]["policyName"].as_str().unwrap_or_default();
            let of = names::owner_of_cluster_object(bound).map(|(of, _)| of);
            assert_eq!(of.as_deref(), Some(namespace), "{binding:#}");
        }
    }
    seen
}

/// A neighbour with an `OtelAgent` of its own that injects.
async fn neighbour(world: &ThreatBed, namespace: &str) -> Caller {
    let neighbour = world.tenant(namespace).await;
    assert!(
        neighbour
            .agent(namespace, "own", &sidecar(&json!({})))
            .await
            .is_ok()
    );
    neighbour.until_injecting(namespace, "own").await;
    neighbour
}

/// Specs that ask for more than a tenant has.
fn greedy() -> Vec<Value> {
    let mut specs: Vec<Value> = MODES[1..]
        .iter()
        .map(|mode| sidecar(&json!({"mode": mode})))
        .collect();
    specs.extend([
        sidecar(&json!({"agent": {"image": "evil:1"}})),
        sidecar(&json!({"workloads": {"namespaceSelector": {}}})),
        sidecar(&json!({"mode": "HostPort", "ports": {"grpc": 30000}, "agent": {"image": "evil:1", "priorityClassName": "system-node-critical",
            "tolerations": [{"operator": "Exists"}]}, "workloads": {"namespaceSelector": {}, "onInjectionFailure": "Fail", "restart": "Rolling"}})),
        sidecar(&json!({"config": {"receivers": {"hostmetrics": {}}}})),
        sidecar(&json!({"config": {"service": {"telemetry": {"logs": {"level": "${file:/proc/self/environ}"}}}}})),
        sidecar(&json!({"config": {"x": "y".repeat(900_000)}})),
        sidecar(&json!({"workloads": {"podSelector": {"matchLabels": {"a": "true || true"}}}})),
        sidecar(&json!({"resourceAttributes": {"a": "'); object.spec.hostNetwork = true; ('"}})),
    ]);
    specs
}

#[tokio::test(flavor = "multi_thread")]
async fn tenant_changes_nothing_outside_its_namespace() {
    if !is_possible("a tenant's specs and status") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let tenant = world.tenant("t-greedy").await;
    // What the tenant may do, and where that ends, is the server's.
    for path in [
        agents_of(PLATFORM),
        format!("/api/v1/namespaces/{CANARY}/pods"),
    ] {
        let refused = tenant.send(Method::POST, &path, &pod(json!({}))).await;
        assert_eq!(refused.status, 403, "{refused:?}");
    }
    let before = elsewhere(&admin).await;
    let mut taken = Vec::new();
    for (number, spec) in greedy().iter().enumerate() {
        let name = format!("g{number}");
        let answer = tenant.agent("t-greedy", &name, spec).await;
        if answer.is_ok() {
            taken.push(name);
        } else {
            assert!([400, 413, 422].contains(&answer.status), "{answer:?}");
        }
    }
    assert!(taken.len() > 5, "{taken:?}");
    for name in &taken {
        forge_status(&tenant, "t-greedy", name).await;
    }
    // The operator corrects the status after any forged write.
    for name in &taken {
        let judged = |status: &Value| {
            let accepted = condition(status, "Accepted");
            accepted["message"] != "forged" && accepted["status"].is_string()
        };
        let status = tenant
            .until_status("t-greedy", name, "judged", judged)
            .await;
        let accepted = condition(&status, "Accepted");
        if accepted["status"] == "True" {
            tenant.until_injecting("t-greedy", name).await;
        }
    }
    for number in 0..5 {
        let accepted =
            |status: &Value| condition(status, "Accepted")["reason"] == "NotAPlatformNamespace";
        let name = format!("g{number}");
        tenant
            .until_status("t-greedy", &name, "refused", accepted)
            .await;
    }
    assert!(confined(&admin, "t-greedy").await >= 2);
    let own = admin
        .list("/apis/apps/v1/namespaces/t-greedy/daemonsets")
        .await;
    assert_eq!(own, Vec::<Value>::new(), "nor is anything made in it");
    let differ = differences(&before, &elsewhere(&admin).await);
    assert!(differ.is_empty(), "{differ:#?}");
}

/// A forged status: everything is granted, and a route of every mode serves.
async fn forge_status(tenant: &Caller, namespace: &str, name: &str) {
    let path = agent_path(namespace, name);
    for mode in &MODES[1..] {
        let generation = tenant.get(&path).await.body["metadata"]["generation"].clone();
        let granted = json!({"type": "Accepted", "status": "True", "reason": "Forged", "message": "forged",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"mode": mode, "endpoint": "http://evil:4317", "observedGeneration": generation,
            "conditions": [granted]}});
        tenant
            .must(Method::PATCH, &format!("{path}/status"), &status)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_on_a_tenants_pods_create_and_stop_no_agents() {
    if !is_possible("forged labels on pods") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let neighbour = neighbour(world, "t-labelled").await;
    let spec =
        sidecar(&json!({"workloads": {"namespaceSelector": {"matchLabels": {"labelled": "yes"}}}}));
    admin
        .namespace("t-selected", json!({"labelled": "yes"}))
        .await;
    assert!(admin.agent(PLATFORM, "labelled", &spec).await.is_ok());
    admin.until_injecting(PLATFORM, "labelled").await;
    let before = elsewhere(&admin).await;

    let tenant = world.tenant("t-labels").await;
    let pods = "/api/v1/namespaces/t-labels/pods";
    let victims = [format!("{PLATFORM}.labelled"), "t-labelled.own".to_owned()];
    for victim in &victims {
        for mode in &MODES[1..] {
            // A user of a route, and an agent that serves it.
            let user = json!({names::LABEL_AGENT: victim, names::LABEL_MODE: mode, names::LABEL_CONFIG: "0123456789"});
            let agent = json!({names::LABEL_OWNER: victim, names::LABEL_WORKLOAD: mode, names::LABEL_MANAGED_BY: names::MANAGED_BY});
            for labels in [user, agent] {
                tenant.must(Method::POST, pods, &pod(labels)).await;
            }
        }
    }
    // Users of the platform's agent may be anywhere: these are counted, once they have been seen.
    admin
        .until_status(PLATFORM, "labelled", "its users counted", |status| {
            status["pods"]["byMode"]["HostNetwork"] == 1
        })
        .await;
    // Both are carried on with.
    for (caller, namespace, name) in [
        (&admin, PLATFORM, "labelled"),
        (&neighbour, "t-labelled", "own"),
    ] {
        let changed = json!({"resourceAttributes": {"changed": "yes"}});
        assert!(caller.change(namespace, name, &changed).await.is_ok());
        caller.until_injecting(namespace, name).await;
        caller
            .until_status(namespace, name, "carried on with", |status| {
                condition(status, "Ready")["reason"] != "Forbidden"
                    && condition(status, "Injected")["status"] == "True"
            })
            .await;
    }
    let own = neighbour.get(&agent_path("t-labelled", "own")).await.body;
    assert_eq!(own["status"]["pods"]["injected"], 0, "{}", own["status"]);
    let differ = differences(&before, &elsewhere(&admin).await);
    assert!(differ.is_empty(), "{differ:#?}");
    let workloads = admin.list("/apis/apps/v1/daemonsets").await;
    assert_eq!(workloads, Vec::<Value>::new());
    admin
        .must(
            Method::DELETE,
            &agent_path(PLATFORM, "labelled"),
            &Value::Null,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_agent_with_an_excessive_selector_never_takes_foreign_pods() {
    if !is_possible("an OtelAgent that grabs others' pods") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let tenant = neighbour(world, "t-grab").await;
    // Times are counted in seconds: the tenant's must be the older one.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    admin
        .namespace("t-grabbed", json!({"grabbed": "yes"}))
        .await;
    let spec =
        sidecar(&json!({"workloads": {"namespaceSelector": {"matchLabels": {"grabbed": "yes"}}}}));
    assert!(admin.agent(PLATFORM, "grabbed", &spec).await.is_ok());
    admin.until_injecting(PLATFORM, "grabbed").await;
    let label = format!("{PLATFORM}.grabbed");
    assert_eq!(admin.injected_by("t-grabbed").await, Some(label.clone()));

    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(10) {
        round += 1;
        let everything = json!({"workloads": {"namespaceSelector": {"matchExpressions": [
            {"key": format!("no-{round}"), "operator": "DoesNotExist"},
        ]}}});
        assert!(tenant.change("t-grab", "own", &everything).await.is_ok());
        forge_status(&tenant, "t-grab", "own").await;
        for _ in 0..5 {
            let by = admin.injected_by("t-grabbed").await;
            assert_eq!(by, Some(label.clone()), "in round {round}");
        }
    }
    let refused = |status: &Value| condition(status, "Accepted")["status"] == "False";
    tenant
        .until_status("t-grab", "own", "refused", refused)
        .await;
    // What it had before goes on.
    assert_eq!(
        tenant.injected_by("t-grab").await,
        Some("t-grab.own".into())
    );
    assert_eq!(admin.injected_by("t-grabbed").await, Some(label));
    admin
        .must(
            Method::DELETE,
            &agent_path(PLATFORM, "grabbed"),
            &Value::Null,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_selectors_of_tenants_do_not_stop_younger_agents() {
    if !is_possible("large selectors of tenants") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let tenant = world.tenant("t-large").await;
    for number in 0..12 {
        let values: Vec<String> = (0..32).map(|value| format!("{value:062}")).collect();
        let requirement = |key: usize| json!({"key": format!("k{number}-{key}"), "operator": "In", "values": values});
        let requirements: Vec<Value> = (0..16).map(requirement).collect();
        let spec =
            sidecar(&json!({"workloads": {"podSelector": {"matchExpressions": requirements}}}));
        let answer = tenant.agent("t-large", &format!("l{number}"), &spec).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
    tenant
        .until_status("t-large", "l0", "judged", |status| {
            condition(status, "Accepted")["status"].is_string()
        })
        .await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    admin.namespace("t-beside", json!({})).await;
    let everywhere = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In",
        "values": ["t-beside", "t-large"]}]});
    let spec = sidecar(&json!({"workloads": {"namespaceSelector": everywhere}}));
    assert!(admin.agent(PLATFORM, "beside", &spec).await.is_ok());
    admin.until_injecting(PLATFORM, "beside").await;
    let label = format!("{PLATFORM}.beside");
    assert_eq!(admin.injected_by("t-beside").await, Some(label));
    admin
        .must(
            Method::DELETE,
            &agent_path(PLATFORM, "beside"),
            &Value::Null,
        )
        .await;
}

/// Nested deeper than the operator's JSON reader accepts.
fn deep(levels: usize) -> String {
    let config = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    format!(
        r#"{{"apiVersion":"otelagent.dev/v1alpha1","kind":"OtelAgent","metadata":{{"name":"deep"}},
        "spec":{{"mode":"Sidecar","export":{{"endpoint":"http://c.o.svc:4317"}},"workloads":{{}},"config":{config}}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn object_nested_too_deep_does_not_block_others() {
    if !is_possible("an OtelAgent nested a thousand levels deep") {
        return;
    }
    let world = world().await;
    let tenant = world.tenant("t-deep").await;
    let created = tenant
        .send_text(Method::POST, &agents_of("t-deep"), deep(1000))
        .await;
    assert!(created < 300, "{created}");
    // A later agent is served, by the operator that saw the object come and by one that starts now.
    let _neighbour = neighbour(world, "t-undisturbed").await;
    world.an_operator_starts().await;
    tenant
        .must(Method::DELETE, &agent_path("t-deep", "deep"), &Value::Null)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_a_referenced_secret_appears_nowhere_else() {
    if !is_possible("a Secret's content") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let tenant = world.tenant("t-secret").await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "creds"},
        "stringData": {"token": CANARY_BYTES}});
    let secrets = "/api/v1/namespaces/t-secret/secrets";
    tenant.must(Method::POST, secrets, &secret).await;
    let headers =
        json!([{"name": "authorization", "secretKeyRef": {"name": "creds", "key": "token"}}]);
    let export = json!({"endpoint": "https://c.o.svc:4317", "headers": headers,
        "tls": {"clientCertificateSecret": {"name": "creds"}}});
    let spec = sidecar(&json!({"export": export}));
    assert!(tenant.agent("t-secret", "own", &spec).await.is_ok());
    tenant.until_injecting("t-secret", "own").await;
    let created = tenant
        .must(
            Method::POST,
            "/api/v1/namespaces/t-secret/pods",
            &pod(json!({})),
        )
        .await;
    assert!(
        created.to_string().contains("creds"),
        "the pod mounts it: {created}"
    );
    let own = agents_of("t-secret");
    let others = KINDS.into_iter().filter(|kind| !kind.ends_with("/secrets"));
    let more = ["/apis/events.k8s.io/v1/events", own.as_str()];
    for path in others.chain(CLUSTER_KINDS).chain(more) {
        for object in admin.list(path).await {
            assert!(
                !object.to_string().contains(CANARY_BYTES),
                "{path}: {object}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reference_to_a_neighbours_agent_gives_a_tenant_nothing() {
    if !is_possible("references to a neighbour's OtelAgent") {
        return;
    }
    let world = world().await;
    let tenant = world.tenant("t-asks").await;
    let victim = world.tenant("t-asked").await;
    let spec = sidecar(
        &json!({"export": {"endpoint": "http://victims-collector:4317",
        "headers": [{"name": "x-key", "value": "victims-value"}]}}),
    );
    assert!(victim.agent("t-asked", "own", &spec).await.is_ok());
    victim.until_injecting("t-asked", "own").await;
    let by = until("injected", async || {
        let by = victim.injected_by("t-asked").await;
        by.ok_or_else(|| "not yet".to_owned())
    })
    .await;
    assert_eq!(by, "t-asked.own");
    for spelling in [
        "t-asked/own",
        "t-asked.own",
        "own",
        "true",
        "../t-asked/own",
    ] {
        let mut asking = pod(json!({names::LABEL_INJECT: "true"}));
        asking["metadata"]["annotations"] = json!({
            "otelagent.dev/agent": spelling, "otelagent.dev/inject": spelling, "otelagent.dev/order": spelling,
            "sidecar.opentelemetry.io/inject": spelling,
        });
        for key in [names::LABEL_AGENT, names::LABEL_CANARY, names::LABEL_OWNER] {
            if !spelling.contains('/') {
                asking["metadata"]["labels"][key] = json!(spelling);
            }
        }
        let path = "/api/v1/namespaces/t-asks/pods?dryRun=All";
        let answer = tenant.send(Method::POST, path, &asking).await;
        assert!(answer.is_ok(), "{answer:?}");
        let text = answer.body.to_string();
        assert!(!text.contains("victims-"), "{spelling}: {text}");
    }
    // Nor may it read the objects that hold it.
    for path in [
        AGENTS.to_owned(),
        format!("{ADMISSION}/mutatingadmissionpolicies"),
        agents_of("t-asked"),
    ] {
        assert_eq!(tenant.get(&path).await.status, 403, "{path}");
    }
}
