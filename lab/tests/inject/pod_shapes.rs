//! What an API server makes of the shapes of pods in `docs/pods.md`, by dry run.

use otelagent_core::inject::Recipe;
use otelagent_core::names;
use otelagent_test_support::pod_shapes::{ATTRIBUTES, SERVICE, SIDECAR, Seen, cases, with_app};
use otelagent_test_support::recipes::{self, input};
use serde_json::json;

use super::server::{self, Answer, Server};

fn seen(answer: Answer, endpoint: &str) -> Seen {
    Seen {
        pod: answer.body,
        warnings: answer.warnings,
        endpoint: endpoint.into(),
    }
}

async fn installed(server: &Server, name: &str, recipe: &Recipe) -> String {
    server.namespace(name, json!({})).await;
    server.activate(&input(name, name, recipe)).await;
    recipe.env[0].value.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_pod_becomes_what_its_line_says() {
    if !server::is_possible("pods of many shapes on a real API server") {
        return;
    }
    let server = Server::start().await;
    for (name, recipe) in [
        ("shapes-sidecar", recipes::sidecar()),
        ("shapes-node", recipes::recipe("node-local")),
    ] {
        let endpoint = installed(&server, name, &recipe).await;
        for case in cases() {
            let answer = server.dry_run(name, &case.pod).await;
            assert!(answer.is_ok(), "{}: {}", case.name, answer.body["message"]);
            let seen = seen(answer, &endpoint);
            println!("{name}: {}", case.name);
            if recipe.sidecar.is_some() {
                (case.sidecar)(&seen);
            } else {
                (case.node)(&seen);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_overrides_env_from_when_its_spec_says_so() {
    if !server::is_possible("override of envFrom on a real API server") {
        return;
    }
    let server = Server::start().await;
    let mut recipe = recipes::recipe("node-local");
    recipe.overrides_env_from = true;
    let endpoint = installed(&server, "shapes-override", &recipe).await;
    let all = with_app(json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}));
    let answer = server.dry_run("shapes-override", &all).await;
    let seen = seen(answer, &endpoint);
    seen.warned();
    for name in [SERVICE, ATTRIBUTES] {
        assert_eq!(seen.variables("app", name).len(), 1, "{name}");
    }
}

/// The service account plugin runs once more after policies, and mounts a token wherever nothing is mounted.
#[tokio::test(flavor = "multi_thread")]
async fn sidecar_gets_no_token_when_the_pod_mounts_one() {
    if !server::is_possible("a pod with a token on a real API server") {
        return;
    }
    let server = Server::start().await;
    installed(&server, "shapes-token", &recipes::sidecar()).await;
    let answer = server.dry_run("shapes-token", &with_app(json!({}))).await;
    let seen = seen(answer, SIDECAR);
    seen.warned();
    let mounts = |name: &str| seen.container(name)["volumeMounts"].to_string();
    assert!(
        mounts("app").contains("kube-api-access"),
        "a token is given"
    );
    assert!(
        !mounts(names::CONTAINER).contains("kube-api-access"),
        "{}",
        mounts(names::CONTAINER)
    );
}
