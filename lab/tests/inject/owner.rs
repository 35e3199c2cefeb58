//! Who owns what the operator writes for the whole cluster: the garbage collector removes it with its owner, and with
//! nothing else, under any prefix of names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};
use testbed::Bed;

use super::engines::DryRunCreator;
use super::installed::{self, InstalledOperator, apply_side, condition};
use super::server::{self, CANARY, Server};
use crate::overlay::in_repository;

/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(4);
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/otelagent.shop.side";
const OPERATOR: &str = "system:serviceaccount:otelagent-system:acme-otelagent-operator";

/// Installs `manifests/default` with another prefix of its names.
fn prefixed_bed() -> Bed {
    let name = format!("owner-{}", std::process::id());
    let bed = Bed::builder().name(name).start().expect("a control plane");
    let overlay = bed.kubeconfig().with_file_name("overlay");
    std::fs::create_dir(&overlay).unwrap();
    let overlay = overlay.canonicalize().unwrap();
    let kustomization = json!({
        "resources": [in_repository(&overlay, "manifests/default")],
        "namePrefix": "acme-",
    });
    std::fs::write(
        overlay.join("kustomization.yaml"),
        kustomization.to_string(),
    )
    .unwrap();
    for words in [
        &["apply", "-k", &*overlay.to_string_lossy()][..],
        &[
            "wait",
            "--for=condition=Established",
            "crd/otelagents.otelagent.dev",
        ],
    ] {
        let output = bed.kubectl().args(words).output().unwrap();
        assert!(output.status.success(), "kubectl {words:?}: {output:?}");
    }
    bed
}

/// Deletes a role and makes it again, as a replacement by force does. Returns its new uid.
async fn replace(server: &Server, name: &str) -> String {
    let path = format!("{ROLES}/{name}");
    let mut role = server.get(&path).await.body;
    let before = role["metadata"]["uid"].clone();
    role["metadata"] = json!({"name": name, "labels": role["metadata"]["labels"]});
    assert!(server.delete_at(ROLES, name).await.is_ok());
    let made = server.apply_at(ROLES, name, &role).await;
    assert!(made.is_ok(), "{made:?}");
    let after = made.body["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_ne!(before, *after);
    after
}

/// Waits until the garbage collector has removed what a role with this uid owns.
async fn until_collected(server: &Server, owner: &str, uid: &Value) {
    let sentinel = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {
        "name": "sentinel",
        "ownerReferences": [{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": owner, "uid": uid}],
    }});
    let made = server.apply_at(ROLES, "sentinel", &sentinel).await;
    assert!(made.is_ok(), "{made:?}");
    let own = made.body["metadata"]["uid"].clone();
    server
        .until("the garbage collector", async || {
            let found = server.get(&format!("{ROLES}/sentinel")).await;
            (found.body["metadata"]["uid"] != own)
                .then_some(())
                .ok_or("the sentinel stays".into())
        })
        .await;
}

/// Waits until injection is active and the binding is owned by the role with this uid. Returns the binding's own.
async fn until_owned(server: &Server, owner: &Value) -> Value {
    let begun = Instant::now();
    loop {
        let binding = server.get(BINDING).await;
        let metadata = &binding.body["metadata"];
        let injected = condition(server, "Injected").await;
        if metadata["ownerReferences"][0]["uid"] == *owner && injected["reason"] == "Active" {
            assert_eq!(
                metadata["ownerReferences"][0]["name"],
                "acme-otelagent-owner"
            );
            return metadata["uid"].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "{injected} {metadata:#}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn injection_outlives_replaced_roles_under_another_prefix_and_comes_back_with_its_owner() {
    if !server::is_possible("the garbage collector of a real control plane") {
        return;
    }
    let bed = tokio::task::spawn_blocking(prefixed_bed).await.unwrap();
    let server = Arc::new(Server::of(bed.kubeconfig(), None).await);
    server.namespace("shop", json!({})).await;
    let deployment =
        "/apis/apps/v1/namespaces/otelagent-system/deployments/acme-otelagent-operator";
    let deployment = server.get(deployment).await.body;
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let mut env = env.as_array().unwrap().iter();
    let owner = env
        .find(|one| one["name"] == "OTELAGENT_OWNER_ROLE")
        .unwrap()["value"]
        .clone();
    assert_eq!(owner, "acme-otelagent-owner");
    let owner = owner.as_str().unwrap();

    let settings = InjectionSettings::default();
    let operator = InstalledOperator::start_as(&bed, settings, Some(OPERATOR), Some(owner)).await;
    apply_side(&server, json!({})).await;
    let uid_of = async |name: &str| {
        let role = server.get(&format!("{ROLES}/{name}")).await;
        role.body["metadata"]["uid"].clone()
    };
    let owner_uid = uid_of(owner).await;
    let bound = until_owned(&server, &owner_uid).await;

    // The roles that grant rights.
    let creator = DryRunCreator::start(server.clone());
    let before = uid_of("acme-otelagent-operator").await;
    replace(&server, "acme-otelagent-operator").await;
    until_collected(&server, "acme-otelagent-operator", &before).await;
    assert_eq!(until_owned(&server, &owner_uid).await, bound);
    let (created, missed) = creator.end().await;
    assert!(
        missed.is_empty(),
        "{} of {created}: {missed:?}",
        missed.len()
    );

    // The owner itself: what it owned goes, comes back, and stays.
    let after = Value::from(replace(&server, owner).await);
    let bound = until_owned(&server, &after).await;
    until_collected(&server, owner, &owner_uid).await;
    assert_eq!(until_owned(&server, &after).await, bound);

    // Without an owner nothing is written that an uninstallation would leave behind.
    assert!(server.delete_at(ROLES, owner).await.is_ok());
    server
        .until("the missing owner is told", async || {
            let injected = condition(&server, "Injected").await;
            (injected["reason"] == "OwnerMissing")
                .then_some(())
                .ok_or(injected.to_string())
        })
        .await;
    server
        .until("no binding", async || {
            let found = server.get(BINDING).await;
            (found.status == 404)
                .then_some(())
                .ok_or(format!("{found:?}"))
        })
        .await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": owner}});
    let made = server.apply_at(ROLES, owner, &role).await;
    assert!(made.is_ok(), "{made:?}");
    until_owned(&server, &made.body["metadata"]["uid"]).await;

    confines_the_prefixed_account(&server, &bed).await;
    installed::end(operator, bed).await;
}

async fn confines_the_prefixed_account(server: &Server, bed: &Bed) {
    let operator = Server::of(bed.kubeconfig(), Some(OPERATOR)).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "real"}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "app", "image": "app:1", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    }});
    server
        .until("the guard", async || {
            let refused = operator.create_pod(CANARY, &pod, false).await;
            let message = refused.body["message"].as_str().unwrap_or_default();
            message
                .contains("only as dry run")
                .then_some(())
                .ok_or(format!("{refused:?}"))
        })
        .await;
    assert!(operator.dry_run(CANARY, &pod).await.is_ok());
}
