//! Pods that are selected and cannot be injected, and policies that are broken.

use otelagent_api::OnFailure;
use otelagent_core::inject::policy::{PolicyError, render};
use otelagent_core::inject::{canary, difference};
use otelagent_core::names;
use serde_json::{Value, json};

use super::server::{self, CANARY, Server};
use otelagent_test_support::pod_shapes::pod;
use otelagent_test_support::recipes;
use otelagent_test_support::recipes::input;

#[tokio::test(flavor = "multi_thread")]
async fn uninjectable_pod_is_refused_when_the_agent_says_fail() {
    if !server::is_possible("refusal of pods that cannot be injected") {
        return;
    }
    let server = Server::start().await;
    server.namespace("strict", json!({})).await;
    let mut input = input("strict", "strict", &recipes::sidecar());
    input.on_failure = OnFailure::Fail;
    let policies = server.activate(&input).await;

    let taken = pod(
        json!({"name": "a"}),
        json!({"containers": [{"name": names::CONTAINER, "image": "x"}]}),
    );
    let why = "OtelAgent otelagent-system/strict did not inject this pod: a container is named otelagent, as the agent's; rename it";
    until_refused(&server, &taken, |message| message.ends_with(why)).await;

    let fine = pod(
        json!({"name": "a"}),
        json!({"containers": [{"name": "app", "image": "x"}]}),
    );
    assert!(server.dry_run("strict", &fine).await.is_ok());
    let mirror = pod(
        json!({"name": "a", "annotations": {"kubernetes.io/config.mirror": "x"}}),
        json!({"containers": [{"name": "app", "image": "x"}], "nodeName": "n", "automountServiceAccountToken": false}),
    );
    assert!(
        server.dry_run("strict", &mirror).await.is_ok(),
        "a node's static pod must stay visible"
    );

    server.delete(&policies.binding).await;
    let is_told = |message: &str| message.contains("was not active");
    until_refused(&server, &fine, is_told).await;
}

/// Waits until a pod is refused in words that are as they should be.
async fn until_refused(server: &Server, pod: &Value, is_told: impl Fn(&str) -> bool) {
    server
        .until("a refusal with the reason", async || {
            let answer = server.dry_run("strict", pod).await;
            let message = answer.body["message"].as_str().unwrap_or_default();
            if answer.status == 403 && is_told(message) {
                Ok(())
            } else {
                Err(format!("{} {message}", answer.status))
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_policy_fails_verification_and_harms_no_pod() {
    if !server::is_possible("a broken policy fails verification") {
        return;
    }
    let server = Server::start().await;
    server.namespace("unharmed", json!({})).await;
    let mut recipe = recipes::sidecar();
    recipe.sidecar.as_mut().unwrap()["bogus"] = json!(1);
    let input = input("broken", "unharmed", &recipe);
    let policies = render(&input).unwrap();
    for object in policies.policy.iter().chain([&policies.canary]) {
        let answer = server.apply(object).await;
        assert!(
            answer.is_ok(),
            "the server cannot see what is wrong: {}",
            answer.body["message"]
        );
    }
    let probe = &canary::probe_pods(&input.recipe, &policies.hash)[0];
    server
        .until("the verification fails", async || {
            let answer = server.dry_run(CANARY, probe).await;
            let message = answer.body["message"].as_str().unwrap_or_default();
            if message.contains("unknown field") {
                Ok(())
            } else {
                Err(format!("{} {message}", answer.status))
            }
        })
        .await;
    let fine = pod(
        json!({"name": "a"}),
        json!({"containers": [{"name": "app", "image": "x"}]}),
    );
    let answer = server.dry_run("unharmed", &fine).await;
    assert!(
        answer.is_ok() && answer.label(names::LABEL_AGENT).is_none(),
        "{answer:?}"
    );
    let asking = server
        .dry_run(CANARY, &canary::active_probe(&input.recipe.agent))
        .await;
    assert!(
        asking.is_ok() && asking.label(names::LABEL_AGENT).is_none(),
        "{asking:?}"
    );
    server.delete(&policies.canary).await;
    server.delete(policies.policy.as_ref().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_policy_fails_verification() {
    if !server::is_possible("a policy that does something else fails verification") {
        return;
    }
    let server = Server::start().await;
    let input = input("other", "nowhere", &recipes::recipe("host-port"));
    let policies = server.activate(&input).await;
    let mut other = input.recipe.clone();
    other.env[0].value = "http://elsewhere:4317".into();
    let probe = &canary::probe_pods(&other, &policies.hash)[0];
    let answer = server.dry_run(CANARY, probe).await;
    let mismatch = difference::compare(probe, &answer.body, &other, CANARY).unwrap_err();
    assert_eq!(mismatch.path, "metadata.labels.otelagent.dev/config");
    let mut answer = answer.body;
    answer["metadata"]["labels"][names::LABEL_CONFIG] = json!(other.hash());
    let mismatch = difference::compare(probe, &answer, &other, CANARY).unwrap_err();
    assert_eq!(
        mismatch.path,
        "spec.containers[app].env[OTEL_EXPORTER_OTLP_ENDPOINT].value"
    );
}

/// The server's limit is ours: one character less is taken.
#[tokio::test(flavor = "multi_thread")]
async fn largest_policy_is_accepted_and_a_larger_one_refused() {
    if !server::is_possible("the largest policy is taken") {
        return;
    }
    let server = Server::start().await;
    let mut large = input("large", "nowhere", &recipes::sidecar());
    large.recipe.annotations.clear();
    large.recipe.moved = None;
    let key = "otelagent.dev/agent-config";
    let around = format!("{{\"{key}\": dyn(\"\")}}").len();
    large
        .recipe
        .annotations
        .insert(key.into(), "é".repeat(100_000 - around));
    let policy = render(&large).expect("it just fits").policy.unwrap();
    let answer = server.apply(&policy).await;
    assert!(answer.is_ok(), "{}", answer.body["message"]);
    server.delete(&policy).await;
    large
        .recipe
        .annotations
        .insert(key.into(), "é".repeat(100_001 - around));
    let error = render(&large).unwrap_err();
    assert_eq!(
        error,
        PolicyError::TooLarge {
            expression: "addAnnotations".into(),
            length: 100_001
        }
    );
}
