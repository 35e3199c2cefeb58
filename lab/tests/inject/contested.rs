//! A second writer of the operator's objects: one that is tolerated, as AKS's enforcer, and one that is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use otelagent_core::build::Choice;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::callee::Callee;
use super::installed::{self, InstalledOperator, apply_side, begin, until_condition};
use super::server::Server;

const WEBHOOKS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const WARNINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const NAME: &str = "otelagent.shop.side";

/// Changes an object whenever it is not as this writer wants it, until it is dropped.
struct SecondWriter {
    looks: Arc<AtomicUsize>,
    changes: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Drop for SecondWriter {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl SecondWriter {
    /// `change` makes of an object what to apply, if anything.
    fn start(server: Arc<Server>, path: &'static str, change: fn(&Value) -> Option<Value>) -> Self {
        let (looks, changes) = (Arc::default(), Arc::default());
        let counts: [Arc<AtomicUsize>; 2] = [Arc::clone(&looks), Arc::clone(&changes)];
        let running = tokio::spawn(async move {
            loop {
                let live = server.get(&format!("{path}/{NAME}")).await;
                if let Some(wanted) = change(&live.body).filter(|_| live.is_ok()) {
                    let applied = server.apply_at(path, NAME, &wanted).await;
                    assert!(applied.is_ok(), "{applied:?}");
                    counts[1].fetch_add(1, Ordering::SeqCst);
                }
                counts[0].fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Self {
            looks,
            changes,
            running,
        }
    }

    fn changes(&self) -> usize {
        self.changes.load(Ordering::SeqCst)
    }

    /// Waits until it has looked so often again.
    async fn looks_again(&self, times: usize) {
        let before = self.looks.load(Ordering::SeqCst);
        while self.looks.load(Ordering::SeqCst) < before + times {
            assert!(!self.running.is_finished(), "the writer failed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// As AKS's enforcer: adds a term to each webhook's namespace selector.
fn add_term(live: &Value) -> Option<Value> {
    let term = json!({"key": "control-plane", "operator": "NotIn", "values": ["true"]});
    let mut webhooks = Vec::new();
    for webhook in live["webhooks"].as_array()? {
        let mut terms = webhook["namespaceSelector"]["matchExpressions"]
            .as_array()?
            .clone();
        if terms.contains(&term) {
            return None;
        }
        terms.push(term.clone());
        webhooks.push(
            json!({"name": webhook["name"], "namespaceSelector": {"matchExpressions": terms}}),
        );
    }
    let kind = "MutatingWebhookConfiguration";
    Some(
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": NAME}, "webhooks": webhooks}),
    )
}

/// Wants another failure policy than the operator.
fn fail(live: &Value) -> Option<Value> {
    let kind = "ValidatingAdmissionPolicy";
    (live["spec"]["failurePolicy"] != "Fail").then(|| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": NAME}, "spec": {"failurePolicy": "Fail"}})
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn second_writer_is_tolerated_if_it_adds_terms_and_told_if_it_changes_fields_back() {
    let Some((bed, server)) = begin("a second writer of the operator's objects", "contested").await
    else {
        return;
    };
    let server = Arc::new(server);
    let callee = Callee::start_with_what_is_kept(&bed).await;
    let settings = InjectionSettings {
        engine: Choice::Webhook,
        webhook_url: Some(callee.url().to_owned()),
        ..InjectionSettings::default()
    };
    let operator = InstalledOperator::start(&bed, settings).await;
    apply_side(&server, json!({"flushInterval": "500ms"})).await;
    let is_active = |injected: &Value| injected["reason"] == "Active";
    until_condition(&server, "the webhook", "Injected", is_active).await;
    let configuration = server.get(&format!("{WEBHOOKS}/{NAME}")).await.body;
    let annotations = &configuration["metadata"]["annotations"];
    assert_eq!(annotations["admissions.enforcer/disabled"], "true");

    let enforcer = SecondWriter::start(server.clone(), WEBHOOKS, add_term);
    enforcer.looks_again(50).await;
    assert_eq!(enforcer.changes(), 1, "the operator left it");
    drop(enforcer);

    let writer = SecondWriter::start(server.clone(), WARNINGS, fail);
    until_condition(&server, "told", "Ready", |ready| {
        let message = ready["message"].as_str().unwrap_or_default();
        let named = format!("test keeps changing ValidatingAdmissionPolicy {NAME} back");
        ready["status"] == "False" && ready["reason"] == "Contested" && message.contains(&named)
    })
    .await;
    let before = writer.changes();
    writer.looks_again(200).await;
    let since = writer.changes() - before;
    assert!(since <= 4, "{since} changes were undone in twenty seconds");
    drop(writer);
    until_condition(&server, "over", "Ready", |ready| ready["status"] == "True").await;
    let policy = server.get(&format!("{WARNINGS}/{NAME}")).await.body;
    assert_eq!(policy["spec"]["failurePolicy"], "Ignore");
    installed::end(operator, bed).await;
}
