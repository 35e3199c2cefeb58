//! Policy and webhook do what the function does, on real API servers of every release the bed has.
//!
//! The test creates each pod twice, by dry run: in a selected namespace, where the engine injects it, and, injected
//! by the function, in a namespace that no agent selects. Both answers carry the server's defaults, so they are
//! compared whole.

use otelagent_core::inject::policy::PolicyInput;
use otelagent_core::inject::{Injection, Reason, Recipe, inject};
use otelagent_core::names;
use serde_json::{Value, json};
use testbed::{Bed, KubernetesVersion};

use super::callee::Callee;
use super::server::{self, Answer, Server};
use otelagent_test_support::pods::{any_pod, generated, table};
use otelagent_test_support::recipes;
use otelagent_test_support::recipes::input;

/// Generated pods per recipe.
const GENERATED: usize = 150;

/// The first release that has such policies.
#[tokio::test(flavor = "multi_thread")]
async fn policy_and_function_agree_on_every_pod_on_1_36() {
    policy_and_function_agree_on_every_pod(KubernetesVersion::V1_36).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_and_function_agree_on_every_pod_on_1_37() {
    policy_and_function_agree_on_every_pod(KubernetesVersion::V1_37).await;
}

async fn policy_and_function_agree_on_every_pod(release: KubernetesVersion) {
    if !server::is_possible(&format!("policy and function agree on {release}")) {
        return;
    }
    let server = Server::of_release(release, None).await;
    agree(&server, "policy", async |input| {
        server.activate(input).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_and_function_agree_on_every_pod_on_1_33() {
    webhook_and_function_agree_on_every_pod(KubernetesVersion::V1_33).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_and_function_agree_on_every_pod_on_1_35() {
    webhook_and_function_agree_on_every_pod(KubernetesVersion::V1_35).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_and_function_agree_on_every_pod_on_1_36() {
    webhook_and_function_agree_on_every_pod(KubernetesVersion::V1_36).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_and_function_agree_on_every_pod_on_1_37() {
    webhook_and_function_agree_on_every_pod(KubernetesVersion::V1_37).await;
}

async fn webhook_and_function_agree_on_every_pod(release: KubernetesVersion) {
    if !server::is_possible(&format!("webhook and function agree on {release}")) {
        return;
    }
    let bed = tokio::task::spawn_blocking(move || server::bed_of(release));
    agree_by_webhook(bed.await.unwrap()).await;
}

async fn agree_by_webhook(bed: &Bed) {
    let server = Server::of(bed.kubeconfig(), None).await;
    let callee = Callee::start(bed, &server).await;
    agree(&server, "webhook", async |input| {
        server.activate_webhook(input, &callee.engine()).await;
    })
    .await;
}

async fn agree(server: &Server, engine: &str, activate: impl AsyncFn(&PolicyInput)) {
    server.namespace("plain", json!({})).await;
    let (mut injected, mut skipped) = (0, 0);
    for (index, recipe) in recipes::each().iter().enumerate() {
        let namespace = format!("equal-{engine}-{index}");
        server.namespace(&namespace, json!({})).await;
        let input = input(&namespace, &namespace, recipe);
        activate(&input).await;
        let named = table(&input.recipe)
            .into_iter()
            .map(|(name, pod)| (name.to_owned(), pod));
        let generated = generated(GENERATED).into_iter().enumerate();
        let generated = generated.map(|(i, pod)| (format!("generated {i}"), pod));
        for (name, mut pod) in named.chain(generated) {
            // The name of the token's volume is random.
            pod["spec"]["automountServiceAccountToken"] = json!(false);
            match check(server, &namespace, &name, &pod, &input.recipe).await {
                Some(true) => injected += 1,
                Some(false) => skipped += 1,
                None => {}
            }
        }
    }
    assert!(
        injected > 300 && skipped > 50,
        "too few pods were taken: {injected} injected, {skipped} left alone"
    );
}

/// Whether the pod was injected; `None` if the server refuses it with or without us.
async fn check(
    server: &Server,
    namespace: &str,
    name: &str,
    pod: &Value,
    recipe: &Recipe,
) -> Option<bool> {
    let context = || format!("{name}, {}: {pod:#}", recipe.mode);
    let plain = server.dry_run("plain", pod).await;
    let by_engine = server.dry_run(namespace, pod).await;
    assert_eq!(
        plain.status,
        by_engine.status,
        "{}\n{}\n{}",
        by_engine.body["message"],
        plain.body["message"],
        context()
    );
    if !plain.is_ok() {
        return None;
    }
    let (expected, reason) = match inject(pod, namespace, recipe) {
        Injection::Injected(injected) => (server.dry_run("plain", &injected).await, None),
        Injection::Skipped(reason) => (plain, Some(reason)),
    };
    let (expected_pod, found_pod) = (comparable(&expected.body), comparable(&by_engine.body));
    assert_eq!(expected_pod, found_pod, "{}", context());
    let filled = plain_of(pod, server).await;
    if !pod["spec"]["resources"].is_null() && filled["spec"]["resources"].is_null() {
        // An older server drops them, which what mutates comes before and what validates does not.
        return Some(reason.is_none());
    }
    // What the server fills in changes nothing for the function.
    if let Injection::Injected(of_defaulted) = inject(&filled, namespace, recipe) {
        assert_eq!(
            comparable(&server.dry_run("plain", &of_defaulted).await.body),
            found_pod,
            "{}",
            context()
        );
    }
    check_warning(&by_engine, recipe, reason.as_ref(), &context());
    Some(reason.is_none())
}

async fn plain_of(pod: &Value, server: &Server) -> Value {
    let mut defaulted = server.dry_run("plain", pod).await.body;
    let metadata = defaulted["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| {
        ["labels", "annotations", "ownerReferences", "generateName"].contains(&key.as_str())
    });
    if pod["metadata"].get("name").is_some() {
        metadata.insert("name".into(), pod["metadata"]["name"].clone());
    }
    defaulted.as_object_mut().unwrap().remove("status");
    defaulted
}

/// The creator of the pod gets a warning, unless the pod says itself that it was injected.
fn check_warning(answer: &Answer, recipe: &Recipe, reason: Option<&Reason>, context: &str) {
    let agent = recipe.agent.replace('.', "/");
    let by_agent = format!("OtelAgent {agent} did not inject this pod");
    let warning = answer
        .warnings
        .iter()
        .find(|warning| warning.contains(&by_agent));
    let says_injected = answer.label(names::LABEL_AGENT) == Some(&recipe.agent);
    match reason {
        Some(Reason::OptedOut | Reason::MirrorPod) => assert_eq!(warning, None, "{context}"),
        Some(reason) if !says_injected => {
            let warning = warning.unwrap_or_else(|| panic!("no warning: {context}"));
            assert!(
                warning.contains(&reason.to_string()),
                "{warning} instead of {reason}: {context}"
            );
        }
        _ => assert_eq!(warning, None, "{context}"),
    }
}

/// Without what differs between any two creations.
fn comparable(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        for key in [
            "namespace",
            "uid",
            "creationTimestamp",
            "managedFields",
            "resourceVersion",
        ] {
            metadata.remove(key);
        }
        if metadata.contains_key("generateName") {
            metadata.remove("name");
        }
    }
    pod
}

/// Without this the generator could degenerate unseen.
#[test]
fn generated_pods_can_be_injected_more_often_than_not() {
    let _ = any_pod();
    let recipe = recipes::recipe("host-port");
    let pods = generated(GENERATED);
    let injected = pods
        .iter()
        .filter(|pod| matches!(inject(pod, "n", &recipe), Injection::Injected(_)))
        .count();
    assert!(injected > GENERATED / 2, "{injected} of {GENERATED}");
}
