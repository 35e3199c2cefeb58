//! Workloads that claim to be restarted by the operator.

use http::Method;
use otelagent_core::names;
use serde_json::{Value, json};

use super::bed::{Caller, PLATFORM, is_possible};
use crate::pods::{deploy, deployment, deployments, for_label, until_counted, world};
use crate::test_scale;

const AGENT: (&str, &str) = (PLATFORM, "marked");

/// A workload that never becomes healthy, and claims to be restarted for that `OtelAgent`.
async fn forge(tenant: &Caller, namespace: &str, name: &str, replicas: usize) {
    let mut forged = deployment(name, replicas, &json!({"nodeSelector": {"no": "where"}}));
    let label = names::agent_label(AGENT.0, AGENT.1);
    forged["metadata"]["labels"] = json!({names::LABEL_RESTARTING: label});
    let purpose = json!({names::ANNOTATION_RESTARTED_FOR: format!("{label}/any")});
    forged["metadata"]["annotations"] = purpose;
    let path = deployments(namespace);
    tenant.must(Method::POST, &path, &forged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_marks_hold_up_no_restart_however_many_there_are() {
    if !is_possible("forged marks of restarts") {
        return;
    }
    let world = world().await;
    let admin = world.admin().await;
    let tenant = world.tenant("t-marks").await;
    admin.namespace("m-shop", json!({"marked": "yes"})).await;
    forge(&tenant, "t-marks", "unhealthy", 1).await;
    // Several pages of a list; ten thousand objects take their time to be made.
    let many = if test_scale::is_full() { 10_000 } else { 120 };
    for number in 0..many {
        forge(&tenant, "t-marks", &format!("idle-{number}"), 0).await;
    }
    let mut spec = for_label("NodeLocal", "marked");
    spec["workloads"]["restart"] = "Rolling".into();
    assert!(admin.agent(AGENT.0, AGENT.1, &spec).await.is_ok());
    admin.until_injecting(AGENT.0, AGENT.1).await;
    // In a selected namespace, too, the label alone shows nothing.
    forge(&admin, "m-shop", "unhealthy", 0).await;
    deploy(&admin, "m-shop", "cart", &json!({})).await;
    until_counted(&admin, AGENT, &[("current", 2)]).await;
    for interval in ["1s", "2s"] {
        let change = json!({"workloads": {"flushInterval": interval}});
        assert!(admin.change(AGENT.0, AGENT.1, &change).await.is_ok());
        until_counted(&admin, AGENT, &[("current", 2), ("stale", 0)]).await;
    }
    let path = format!("{}/unhealthy", deployments("t-marks"));
    let forged = tenant.must(Method::GET, &path, &Value::Null).await;
    let label = &forged["metadata"]["labels"][names::LABEL_RESTARTING];
    assert!(label.is_string(), "the operator leaves it alone: {label}");
}
