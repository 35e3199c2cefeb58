//! The answer of `explain`.

use insta::assert_snapshot;
use otelagent_api::Mode;
use otelagent_cli::args::Output;
use otelagent_cli::explain::{Explanation, Subject, assemble, view};
use otelagent_cli::output::Terminal;
use otelagent_core::explain::pod_of;
use otelagent_core::inject::{Injection, inject};
use serde_json::{Value, json};

use crate::bed::{Bed, terminal};
use crate::document::is_documented;

/// Text without what each change of a recipe changes.
fn text(answer: &Explanation, width: usize) -> String {
    shown(answer, terminal(width, Output::Text))
}

fn shown(answer: &Explanation, terminal: Terminal) -> String {
    let text = terminal
        .render("Explanation", answer, |answer| view(answer, false))
        .unwrap();
    let item = &answer.items[0];
    let reports = [&item.injected, &item.now].into_iter().flatten();
    let hashes = reports.filter_map(|report| report.recipe.as_ref());
    let mut hashes: Vec<&String> = hashes.collect();
    hashes.dedup();
    let named = hashes.iter().enumerate();
    named.fold(text, |text, (at, hash)| {
        text.replace(hash.as_str(), &format!("recipe-{at}"))
    })
}

const SPEC: &str = "spec:
  mode: NodeLocal
  export: {endpoint: 'http://otel-collector.observability.svc:4317'}
  workloads: {namespaceSelector: {matchLabels: {telemetry: otelagent}}, podSelector: {matchLabels: {tier: web}}}
";

fn deployment(labels: &Value, pod: &Value) -> Value {
    let mut spec = pod.clone();
    spec["containers"] = json!([{"name": "app", "image": "shop/cart:1.2"}]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}},
    })
}

fn of_file(manifest: &Value) -> Subject {
    Subject {
        name: "Deployment cart".into(),
        namespace: "shop".into(),
        pod: pod_of(manifest).unwrap(),
        is_running: false,
        template: None,
    }
}

/// One `OtelAgent` that serves.
fn bed() -> Bed {
    let mut bed = Bed::new();
    let key = bed.agent("otelagent-system", "node-agent", SPEC);
    bed.serve(&key, Mode::NodeLocal);
    bed
}

fn web() -> Value {
    json!({"tier": "web", "app": "cart"})
}

#[test]
fn manifest_that_is_selected_is_shown_with_what_is_injected() {
    let answer = assemble(&bed().snapshot, &[of_file(&deployment(&web(), &json!({})))]);
    assert!(answer.is_as_wished());
    assert_snapshot!(text(&answer, 100));
}

#[test]
fn manifest_that_is_not_selected_is_shown_with_the_rule_that_it_does_not_meet() {
    let manifest = deployment(&json!({"tier": "batch"}), &json!({}));
    let answer = assemble(&bed().snapshot, &[of_file(&manifest)]);
    assert!(answer.is_as_wished(), "nobody wants it injected");
    assert_snapshot!(text(&answer, 80));
}

#[test]
fn pod_that_cannot_be_injected_is_shown_with_the_reason() {
    let manifest = deployment(&web(), &json!({"dnsPolicy": "Default"}));
    let answer = assemble(&bed().snapshot, &[of_file(&manifest)]);
    assert!(!answer.is_as_wished());
    assert_snapshot!(text(&answer, 80));
}

#[test]
fn younger_otelagent_is_told_that_an_older_one_takes_the_pod() {
    let mut bed = bed();
    let key = bed.agent(
        "shop",
        "side",
        &SPEC.replace("NodeLocal", "Sidecar").replace(
            "namespaceSelector: {matchLabels: {telemetry: otelagent}}, ",
            "",
        ),
    );
    bed.serve(&key, Mode::Sidecar);
    let answer = assemble(&bed.snapshot, &[of_file(&deployment(&web(), &json!({})))]);
    let of: Vec<(&str, bool)> = answer.items[0]
        .candidates
        .iter()
        .map(|one| (one.name.as_str(), one.injects))
        .collect();
    assert_eq!(of, [("node-agent", true), ("side", false)]);
    assert_snapshot!(text(&answer, 80));
}

/// A pod that an `OtelAgent` has injected in a mode, as it runs.
fn running(bed: &Bed, mode: Mode) -> Subject {
    let manifest = deployment(&web(), &json!({}));
    let key = ("otelagent-system".to_owned(), "node-agent".to_owned());
    let recipe = bed.recipe(&key, mode);
    let Injection::Injected(mut pod) = inject(&pod_of(&manifest).unwrap(), "shop", &recipe) else {
        panic!("not injected");
    };
    pod["metadata"]["name"] = "cart-1".into();
    pod["metadata"]["creationTimestamp"] = "2026-11-22T10:30:00Z".into();
    pod["spec"]["nodeName"] = "n1".into();
    pod["status"] = json!({"phase": "Running"});
    Subject {
        name: "Pod cart-1".into(),
        namespace: "shop".into(),
        pod,
        is_running: true,
        template: Some(manifest["spec"]["template"].clone()),
    }
}

#[test]
fn pod_as_a_new_one_would_be_is_shown_with_what_was_injected() {
    let bed = bed();
    let answer = assemble(&bed.snapshot, &[running(&bed, Mode::NodeLocal)]);
    assert!(answer.is_as_wished(), "{answer:?}");
    assert_snapshot!(text(&answer, 120));
}

#[test]
fn stale_pod_is_shown_with_what_a_restart_would_change() {
    let bed = bed();
    let answer = assemble(&bed.snapshot, &[running(&bed, Mode::HostPort)]);
    assert!(!answer.is_as_wished());
    is_documented("Explanation", &answer);
    assert_snapshot!(text(&answer, 100));
}

/// The page shows what the program shows.
#[test]
fn documentation_has_the_text_of_a_stale_pod() {
    let bed = bed();
    let text = text(
        &assemble(&bed.snapshot, &[running(&bed, Mode::HostPort)]),
        100,
    );
    let page = otelagent_test_support::manifests::text("docs/cli.md");
    assert!(page.contains(&format!("```text\n{text}```")), "{text}");
}

#[test]
fn missed_pod_that_is_older_than_the_injection_is_told_so() {
    let bed = bed();
    let manifest = deployment(&web(), &json!({}));
    let mut subject = Subject {
        is_running: true,
        name: "Pod cart-1".into(),
        ..of_file(&manifest)
    };
    subject.pod["metadata"]["creationTimestamp"] = "2026-11-22T09:00:00Z".into();
    let answer = assemble(&bed.snapshot, &[subject]);
    assert!(!answer.is_as_wished());
    assert!(
        answer.items[0].advice[0].contains("before this injection became active"),
        "{answer:?}"
    );
}

#[test]
fn document_of_an_explanation_has_the_rules_and_the_edits() {
    let answer = assemble(&bed().snapshot, &[of_file(&deployment(&web(), &json!({})))]);
    assert_snapshot!(shown(&answer, terminal(80, Output::Yaml)));
}
