//! Where the webhook injects, it and the operator use exactly the rights that they are granted for it, by the audit
//! log of the server. `lab/tests/cluster/rest.rs` shows the same of the operator's other rights.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use http::Method;
use otelagent_core::build::Choice;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use super::bed::{
    ADMISSION, OPERATOR, ThreatBed, agent_path, config, is_possible, settings, sidecar, until,
};
use crate::inject::callee::Callee;
use otelagent_test_support::manifests::{objects, text, words};

const WEBHOOK: &str = "system:serviceaccount:otelagent-system:otelagent-webhook";

#[tokio::test(flavor = "multi_thread")]
async fn every_right_for_the_webhook_is_used_and_none_is_missing() {
    if !is_possible("rights of the webhook by the audit log") {
        return;
    }
    let world = tokio::task::spawn_blocking(|| {
        let world = ThreatBed::start("rights", |bed| bed.audit(true));
        world.kubectl(&["apply", "-k", "manifests/webhook"]);
        world
    });
    let world = world.await.unwrap();
    let bed = &world.bed;
    let account = config(bed.kubeconfig(), Some(WEBHOOK)).await;
    let webhook = Callee::start_as(bed, account, Callee::kept(bed)).await;
    let injection = InjectionSettings {
        engine: Choice::Webhook,
        webhook_url: Some(webhook.url().to_owned()),
        ca_file: None,
        ca_lifetime: Duration::from_hours(24),
        ..InjectionSettings::default()
    };
    world.run_operator(settings(injection));
    let tenant = world.tenant("t-rights").await;
    assert!(
        tenant
            .agent("t-rights", "own", &sidecar(&json!({})))
            .await
            .is_ok()
    );
    tenant.until_injecting("t-rights", "own").await;
    assert_eq!(
        tenant.injected_by("t-rights").await,
        Some("t-rights.own".into())
    );
    let path = agent_path("t-rights", "own");
    tenant.must(Method::DELETE, &path, &Value::Null).await;
    let admin = world.admin().await;
    until("the webhook configuration gone", async || {
        let configurations = admin
            .list(&format!("{ADMISSION}/mutatingwebhookconfigurations"))
            .await;
        configurations
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{configurations:?}"))
    })
    .await;

    let log = world.bed.audit_log().expect("an audit log");
    let granted = objects(&text("manifests/webhook/rbac.yaml"));
    for (user, prefix) in [
        (WEBHOOK, "otelagent-webhook"),
        (OPERATOR, "otelagent-operator"),
    ] {
        let requests = requests(&log, user);
        let refused: Vec<&Value> = requests
            .iter()
            .filter(|request| request["responseStatus"]["code"] == 403)
            .collect();
        assert!(
            refused.is_empty(),
            "{user} lacks a right: {:#?}",
            refused.first()
        );
        let used: BTreeSet<String> = requests.iter().flat_map(used_rights).collect();
        let granted = rights(&granted, prefix);
        assert!(granted.len() > 3, "{granted:?}");
        let idle: Vec<&String> = granted.difference(&used).collect();
        assert!(
            idle.is_empty(),
            "{user} never uses {idle:?}\nused: {used:#?}"
        );
        if user == WEBHOOK {
            let more: Vec<&String> = used.difference(&granted).collect();
            assert!(more.is_empty(), "{user} uses {more:?} by another role");
        }
    }
}

/// What a user has asked so far, without discovery, which every user may ask for.
fn requests(log: &Path, user: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| event["impersonatedUser"]["username"] == user)
        .filter(|event| {
            ["ResponseStarted", "ResponseComplete"]
                .iter()
                .any(|stage| event["stage"] == *stage)
        })
        .filter(|event| event["objectRef"]["resource"].is_string())
        .collect()
}

/// The right that a request needed. An apply that creates an object needs the right to create it, too.
fn used_rights(request: &Value) -> Vec<String> {
    let object = &request["objectRef"];
    let right = |verb: &str| {
        let group = object["apiGroup"].as_str().unwrap_or_default();
        format!(
            "{verb} {group}/{}",
            object["resource"].as_str().unwrap_or_default()
        )
    };
    let verb = request["verb"].as_str().unwrap_or_default();
    let makes = verb == "patch" && request["responseStatus"]["code"] == 201;
    let create = makes.then(|| right("create"));
    [Some(right(verb)), create].into_iter().flatten().collect()
}

/// The rights that the roles with this prefix grant.
fn rights(manifest: &[Value], prefix: &str) -> BTreeSet<String> {
    let roles = manifest.iter().filter(|object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with(prefix) && object["rules"].is_array()
    });
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()) {
        for verb in words(&rule["verbs"]) {
            for group in words(&rule["apiGroups"]) {
                let resources = words(&rule["resources"]).into_iter();
                rights.extend(resources.map(|resource| format!("{verb} {group}/{resource}")));
            }
        }
    }
    rights
}
