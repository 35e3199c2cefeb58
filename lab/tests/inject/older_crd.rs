//! A CRD of another release than the operator: an older one lacks fields of the status.

use std::time::Duration;

use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use super::installed::{self, AGENTS, InstalledOperator, apply_side, begin, until_condition};
use super::server::Server;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const NAME: &str = "otelagents.otelagent.dev";

#[tokio::test(flavor = "multi_thread")]
async fn older_crd_lacks_fields_of_the_status_and_the_rest_is_told() {
    let Some((bed, server)) = begin("an older CRD", "older-crd").await else {
        return;
    };
    let whole = server.get(&format!("{CRDS}/{NAME}")).await.body["spec"].take();
    apply(&server, older(&whole)).await;
    until_in_force(&server).await;
    let operator = InstalledOperator::start(&bed, InjectionSettings::default()).await;
    apply_side(&server, json!({})).await;
    let is_active = |injected: &Value| injected["reason"] == "Active";
    until_condition(&server, "active", "Injected", is_active).await;
    let is_told = |accepted: &Value| {
        let message = accepted["message"].as_str().unwrap_or_default();
        accepted["status"] == "True" && message.contains("lacks status.pods.orphaned")
    };
    until_condition(&server, "told", "Accepted", is_told).await;
    let version = || async {
        let agent = server.get(&format!("{AGENTS}/side")).await.body;
        agent["metadata"]["resourceVersion"].clone()
    };
    // Reconciles at rest write nothing, and nothing tells of one, so time passes. What began before may still be written;
    // a field that the server drops would be written for ever.
    server
        .until("reconciles that write nothing", async || {
            let before = version().await;
            for number in 0..3 {
                let poke = format!("{}-{number}", before.as_str().unwrap_or_default());
                let labels = json!({"poke": poke});
                server.namespace("shop", labels).await;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            let after = version().await;
            let is_settled = before == after;
            is_settled.then_some(()).ok_or(format!("{before} {after}"))
        })
        .await;
    operator.end().await;

    apply(&server, whole).await;
    let operator = InstalledOperator::start(&bed, InjectionSettings::default()).await;
    let is_over = |accepted: &Value| accepted["message"] == "the spec is valid";
    until_condition(&server, "over", "Accepted", is_over).await;
    installed::end(operator, bed).await;
}

async fn apply(server: &Server, spec: Value) {
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME}, "spec": spec});
    let applied = server.apply_at(CRDS, NAME, &crd).await;
    assert!(applied.is_ok(), "{applied:?}");
}

/// Waits until the server refuses a field that the older CRD lacks.
async fn until_in_force(server: &Server) {
    let newer = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": "newer"},
        "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"}},
        "status": {"delivery": {"asked": 0}}});
    server
        .until("the older CRD in force", async || {
            let answer = server.apply_at(AGENTS, "newer", &newer).await;
            if answer.is_ok() {
                server.delete_at(AGENTS, "newer").await;
            }
            let message = answer.body["message"].as_str().unwrap_or_default();
            let is_refused = message.contains(".status.delivery: field not declared in schema");
            is_refused.then_some(()).ok_or(format!("{answer:?}"))
        })
        .await;
}

/// Without what a later release has added.
fn older(whole: &Value) -> Value {
    let mut spec = whole.clone();
    let status = &mut spec["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    let fields = status["properties"].as_object_mut().unwrap();
    assert!(fields.remove("delivery").is_some());
    let pods = fields["pods"]["properties"].as_object_mut().unwrap();
    assert!(pods.remove("orphaned").is_some());
    spec
}
