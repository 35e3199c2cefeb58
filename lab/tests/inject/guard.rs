//! The guard confines the operator to what its own policies need.

use std::process::Stdio;

use otelagent_core::inject::policy::render;
use otelagent_core::inject::{Recipe, canary};
use otelagent_core::reconcile::Render as _;
use otelagent_webhook::configuration::{Endpoint, WebhookEngine};
use serde_json::{Value, json};

use super::server::{self, CANARY, Server};
use otelagent_test_support::recipes;
use otelagent_test_support::recipes::input;
use testbed::Bed;

const OPERATOR: &str = "system:serviceaccount:otelagent-system:otelagent-operator";

/// More than the operator is granted, so that only the guard can refuse.
const RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: guard-test}
rules:
- {apiGroups: [admissionregistration.k8s.io], resources: ["*"], verbs: ["*"]}
- {apiGroups: [""], resources: [pods, configmaps], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: guard-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: guard-test}
subjects: [{kind: ServiceAccount, name: otelagent-operator, namespace: otelagent-system}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn operator_creates_pods_only_by_dry_run_in_the_canary_namespace() {
    if !server::is_possible("the guard on a real API server") {
        return;
    }
    let admin = Server::start().await;
    admin.namespace("guarded", json!({})).await;
    tokio::task::spawn_blocking(|| install(server::shared_bed()))
        .await
        .unwrap();
    let operator = Server::start_as(Some(OPERATOR)).await;
    let pod = canary::in_force_pod("otelagent-system.nobody");
    admin
        .until("the guard", async || {
            let answer = operator.dry_run("guarded", &pod).await;
            let message = answer.body["message"].as_str().unwrap_or_default();
            if message.contains("only as dry run") {
                Ok(())
            } else {
                Err(message.into())
            }
        })
        .await;
    assert!(operator.dry_run(CANARY, &pod).await.is_ok());
    assert!(
        admin.dry_run("guarded", &pod).await.is_ok(),
        "others are not confined"
    );
    for (namespace, dry_run) in [(CANARY, false), ("guarded", true), ("guarded", false)] {
        let answer = operator.create_pod(namespace, &pod, dry_run).await;
        assert_eq!(answer.status, 403, "{namespace} {dry_run} {answer:?}");
    }
}

/// Needs an API server of its own, started with the manifests' directory.
#[tokio::test(flavor = "multi_thread")]
async fn static_guard_lets_the_operator_write_only_its_own_policies() {
    if !server::is_possible("the static guard on a real API server") {
        return;
    }
    let bed = tokio::task::spawn_blocking(guarded_bed).await.unwrap();
    let operator = Server::of(bed.kubeconfig(), Some(OPERATOR)).await;
    for recipe in recipes::each() {
        let policies = render(&input("guarded", "guarded", recipe)).unwrap();
        let policy = policies.policy.as_ref().unwrap();
        let [warning, warning_binding] = &policies.warnings;
        let (canary, binding) = (&policies.canary, &policies.binding);
        let all = [policy, canary, binding, warning, warning_binding];
        for object in all {
            let answer = operator.apply(object).await;
            assert!(answer.is_ok(), "{}", answer.body["message"]);
        }
        refuses_changes(&operator, policy).await;
        refuses_changes(&operator, warning).await;
        refuses_rebinding(&operator, binding).await;
        refuses_rebinding(&operator, warning_binding).await;
        writes_entries_of_its_own_service_only(&operator, recipe).await;
        for object in all.into_iter().rev() {
            let answer = operator.delete(object).await;
            assert!(answer.is_ok(), "{}", answer.body["message"]);
        }
    }
    refuses_the_guard_itself(&operator).await;
    let admin = Server::of(bed.kubeconfig(), None).await;
    let foreign = named(
        &json!({"kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": "x"}}),
        "foreign",
    );
    assert!(
        admin.apply(&foreign).await.is_ok(),
        "others are not confined"
    );
    tokio::task::spawn_blocking(|| bed.stop())
        .await
        .unwrap()
        .unwrap();
}

/// As the comment in the manifest says.
fn guarded_bed() -> Bed {
    let directory = demo::repository().join("manifests/guard/static");
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{
            "name": "ValidatingAdmissionPolicy",
            "configuration": {
                "apiVersion": "apiserver.config.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyConfiguration",
                "staticManifestsDir": directory,
            },
        }],
    });
    let path = std::env::temp_dir().join(format!("admission-{}.json", std::process::id()));
    std::fs::write(&path, configuration.to_string()).unwrap();
    let bed = Bed::builder()
        .name(format!("guard-{}", std::process::id()))
        .apiserver_arg(format!(
            "--admission-control-config-file={}",
            path.display()
        ))
        .start()
        .expect("a control plane");
    std::fs::remove_file(path).unwrap();
    install(&bed);
    bed
}

/// The part of the guard that is applied, and rights.
fn install(bed: &Bed) {
    let directory = demo::repository().join("manifests/guard");
    let applied = bed
        .kubectl()
        .args(["apply", "-k"])
        .arg(directory)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(applied.success());
    let path =
        std::env::temp_dir().join(format!("rights-{}-{}.yaml", bed.name(), std::process::id()));
    std::fs::write(&path, RIGHTS).unwrap();
    let applied = bed
        .kubectl()
        .arg("apply")
        .arg("-f")
        .arg(&path)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    std::fs::remove_file(path).unwrap();
    assert!(applied.success());
}

fn named(object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = json!("admissionregistration.k8s.io/v1");
    object["metadata"]["name"] = json!(name);
    object
}

async fn refused(operator: &Server, object: &Value, why: &str) -> Result<(), String> {
    let answer = operator.apply(object).await;
    let message = answer.body["message"].as_str().unwrap_or_default();
    if answer.status == 403 && message.contains(why) {
        Ok(())
    } else {
        Err(format!("{}: {message}", answer.status))
    }
}

async fn refuses_changes(operator: &Server, policy: &Value) {
    let rule = |key: &str, value: Value| {
        let mut changed = policy.clone();
        changed["spec"]["matchConstraints"]["resourceRules"][0][key] = value;
        changed
    };
    let mut two = policy.clone();
    let secrets = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["secrets"]});
    two["spec"]["matchConstraints"]["resourceRules"]
        .as_array_mut()
        .unwrap()
        .push(secrets);
    let changes = [
        rule("resources", json!(["pods", "secrets"])),
        rule("resources", json!(["*"])),
        rule("operations", json!(["CREATE", "UPDATE"])),
        rule("apiGroups", json!(["*"])),
        two,
    ];
    for changed in changes {
        assert_eq!(
            refused(operator, &changed, "nothing but the creation of pods").await,
            Ok(()),
            "{changed:#}"
        );
    }
    let mut everywhere = policy.clone();
    everywhere["spec"]["matchConstraints"]["namespaceSelector"] = json!({});
    assert_eq!(
        refused(operator, &everywhere, "must leave namespaces").await,
        Ok(())
    );
    let mut with_params = policy.clone();
    with_params["spec"]["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    assert_eq!(
        refused(operator, &with_params, "no parameters").await,
        Ok(())
    );
    assert_eq!(
        refused(operator, &named(policy, "other"), "may touch only").await,
        Ok(())
    );
}

async fn writes_entries_of_its_own_service_only(operator: &Server, recipe: &Recipe) {
    let service = |name: &str| Endpoint::Service {
        namespace: "otelagent-system".into(),
        name: name.into(),
    };
    let input = input("guarded", "guarded", recipe);
    let entries_to = |endpoint: Endpoint| {
        let webhook = WebhookEngine {
            endpoint,
            ca_bundle: String::new(),
            owner: None,
        };
        webhook.render(&input).unwrap()
    };
    let entries = entries_to(service("otelagent-webhook"));
    for object in [&entries.canary, &entries.binding] {
        let answer = operator.apply(object).await;
        assert!(answer.is_ok(), "{}", answer.body["message"]);
    }
    for elsewhere in [
        service("another"),
        Endpoint::Url("https://192.0.2.7".into()),
    ] {
        let entries = entries_to(elsewhere);
        let why = "may call only the Service";
        assert_eq!(refused(operator, &entries.binding, why).await, Ok(()));
    }
    let changed = |pointer: &str, value: Value| {
        let mut changed = entries.binding.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        changed
    };
    for (pointer, value, why) in [
        (
            "/webhooks/0/rules/0/resources",
            json!(["*"]),
            "nothing but the creation",
        ),
        (
            "/webhooks/1/rules/0/operations",
            json!(["UPDATE"]),
            "nothing but the creation",
        ),
        (
            "/webhooks/0/namespaceSelector",
            json!({}),
            "must leave namespaces",
        ),
        ("/metadata/name", json!("somebody-elses"), "may touch only"),
    ] {
        let changed = changed(pointer, value);
        assert_eq!(refused(operator, &changed, why).await, Ok(()), "{pointer}");
    }
    for object in [&entries.canary, &entries.binding] {
        assert!(operator.delete(object).await.is_ok());
    }
}

async fn refuses_rebinding(operator: &Server, binding: &Value) {
    let mut rebound = binding.clone();
    rebound["spec"]["policyName"] = json!("somebody-elses");
    assert_eq!(refused(operator, &rebound, "may bind only").await, Ok(()));
    assert_eq!(
        refused(operator, &named(binding, "otelagent-x"), "may touch only").await,
        Ok(())
    );
}

async fn refuses_the_guard_itself(operator: &Server) {
    for kind in [
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ] {
        let guard = named(&json!({"kind": kind}), "otelagent-guard");
        let answer = operator.delete(&guard).await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
}
