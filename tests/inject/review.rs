//! The webhook's answers: the patch makes the pod that the function makes and touches nothing else, and no
//! request breaks the webhook.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use otelagent_api::Selector;
use otelagent_core::inject::{Injection, Namespaces, Reason, Recipe, Selection, inject};
use otelagent_webhook::instruction::Instruction;
use otelagent_webhook::review::{Answer, BadReview, Outcome, Review};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::properties::any_json;
use otelagent_test_support::pods::{any_pod, table};
use otelagent_test_support::recipes;

pub(super) fn instruction(recipe: &Recipe) -> Instruction {
    Instruction {
        recipe: recipe.clone(),
        exclusions: Vec::new(),
        canary_namespace: "otelagent-canary".into(),
    }
}

pub(super) fn review(namespace: &str, pod: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": namespace,
        "operation": "CREATE",
        "userInfo": {"username": "somebody"},
        "object": pod,
        "oldObject": null,
        "dryRun": false,
    }})
}

fn asked(review: &Value, instruction: &Instruction) -> Answer {
    Review::parse(review.to_string().as_bytes())
        .unwrap()
        .answer(Some(instruction), None)
}

fn operations(answer: &Answer) -> Vec<Value> {
    let response = &answer.review["response"];
    if response.get("patch").is_none() {
        return Vec::new();
    }
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes: ByteString = serde_json::from_value(response["patch"].clone()).unwrap();
    serde_json::from_slice(&bytes.0).unwrap()
}

/// Whether an operation is one that injection may make.
fn is_targeted(operation: &Value, pod: &Value) -> bool {
    let path = operation["path"].as_str().unwrap();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let is_index = |part: &&str| part.parse::<usize>().is_ok();
    match (operation["op"].as_str().unwrap(), parts.as_slice()) {
        ("add", ["metadata", "labels" | "annotations", ..]) => true,
        // A list of the user's with one more name.
        ("replace", ["metadata", "annotations", key]) => {
            key.replace("~1", "/") == recipes::EVICTABLE
        }
        ("add", ["spec", "volumes" | "initContainers"]) => {
            pod["spec"][parts[1]].as_array().is_none()
        }
        (
            "add",
            ["spec", "volumes" | "initContainers", index]
            | ["spec", "containers" | "initContainers", index, "env"],
        ) => is_index(index),
        ("add", ["spec", "containers" | "initContainers", index, "env", at]) => {
            is_index(index) && is_index(at)
        }
        // The user's own literal attributes, with more behind; in Go's eyes no value is an empty one.
        (
            "add" | "replace",
            [
                "spec",
                "containers" | "initContainers",
                _,
                "env",
                _,
                "value",
            ],
        ) => operation["value"].as_str().unwrap().contains('='),
        _ => false,
    }
}

fn check(pod: &Value, recipe: &Recipe) -> Result<(), TestCaseError> {
    let answer = asked(&review("shop", pod), &instruction(recipe));
    let response = &answer.review["response"];
    prop_assert_eq!(&response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    prop_assert_eq!(&response["allowed"], true);
    let operations = operations(&answer);
    let patch: json_patch::Patch = serde_json::from_value(json!(operations)).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).expect("a patch that fits");
    match inject(pod, "shop", recipe) {
        Injection::Skipped(reason) => {
            prop_assert_eq!(&answer.outcome, &Outcome::Skipped(reason));
            prop_assert!(operations.is_empty());
        }
        Injection::Injected(expected) => {
            prop_assert_eq!(&patched, &expected);
            for operation in &operations {
                prop_assert!(is_targeted(operation, pod), "{operation} on {pod:#}");
            }
            let again = asked(&review("shop", &patched), &instruction(recipe));
            prop_assert_eq!(again.outcome, Outcome::Unchanged);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn patch_makes_the_functions_pod_and_touches_nothing_else(pod in any_pod()) {
        for recipe in recipes::each() {
            check(&pod, recipe)?;
        }
    }

    #[test]
    fn any_request_gets_an_answer_or_a_refusal_with_a_reason(value in any_json(), bytes in any::<Vec<u8>>()) {
        prop_assert!(Review::parse(&bytes).is_err());
        let instruction = instruction(&recipes::each()[0]);
        if let Err(refusal) = Review::parse(value.to_string().as_bytes()) {
            prop_assert_eq!(&refusal.status()["code"], 400);
        }
        let mut odd = review("shop", &value);
        prop_assert_eq!(&asked(&odd, &instruction).review["response"]["allowed"], true);
        odd["request"]["object"] = json!({"apiVersion": "v1", "kind": "Pod", "metadata": value, "spec": value});
        prop_assert_eq!(&asked(&odd, &instruction).review["response"]["allowed"], true);
    }
}

#[test]
fn review_of_every_pod_in_the_table_matches_the_function() {
    for recipe in recipes::each() {
        for (name, pod) in table(recipe) {
            let forged = [
                "forged configuration",
                "forged mode",
                "a copy with a foreign agent",
            ];
            if !forged.contains(&name) {
                check(&pod, recipe).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
        }
    }
}

#[test]
fn malformed_review_is_refused_with_a_reason() {
    let instruction = instruction(&recipes::recipe("host-port"));
    let refusal = |text: &str| Review::parse(text.as_bytes()).unwrap_err();
    assert_eq!(refusal(""), BadReview::NotJson);
    assert_eq!(refusal("{"), BadReview::NotJson);
    assert_eq!(refusal(&"[".repeat(100_000)), BadReview::NotJson);
    assert_eq!(refusal("{}"), BadReview::NotAReview);
    let pod = json!({"apiVersion": "v1", "kind": "Pod"});
    let mut old = review("shop", &pod);
    old["apiVersion"] = json!("admission.k8s.io/v1beta1");
    assert_eq!(refusal(&old.to_string()), BadReview::NotAReview);
    let mut empty = review("shop", &pod);
    empty["request"] = json!(null);
    assert_eq!(refusal(&empty.to_string()), BadReview::NoRequest);
    let mut nameless = review("shop", &pod);
    nameless["request"]["uid"] = json!(7);
    assert_eq!(refusal(&nameless.to_string()), BadReview::NoRequest);
    let no_instruction = Review::parse(review("shop", &pod).to_string().as_bytes())
        .unwrap()
        .answer(None, None);
    assert_eq!(no_instruction.outcome, Outcome::NoInstruction);
    assert_eq!(
        asked(&review("shop", &pod), &instruction).outcome,
        Outcome::Injected
    );
}

#[test]
fn request_that_creates_no_pod_is_admitted_unchanged() {
    let instruction = instruction(&recipes::recipe("host-port"));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "app"}]}});
    for (path, value) in [
        ("/request/operation", json!("UPDATE")),
        ("/request/operation", json!("DELETE")),
        ("/request/operation", json!(null)),
        ("/request/subResource", json!("exec")),
        ("/request/resource/resource", json!("deployments")),
        ("/request/resource/group", json!("apps")),
        ("/request/resource/version", json!("v2")),
        ("/request/object/kind", json!("Deployment")),
        ("/request/object", json!(null)),
        ("/request/object", json!([])),
    ] {
        let mut review = review("shop", &pod);
        review["request"]["subResource"] = json!("");
        *review.pointer_mut(path).unwrap() = value.clone();
        let answer = asked(&review, &instruction);
        assert_eq!(answer.outcome, Outcome::NotAPodCreation, "{path}: {value}");
        assert_eq!(answer.review["response"]["allowed"], true);
        assert!(operations(&answer).is_empty());
    }
    let mut dry = review("shop", &pod);
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(
        asked(&dry, &instruction),
        asked(&review("shop", &pod), &instruction)
    );
}

#[test]
fn pod_of_an_older_agent_is_excluded_by_its_namespaces_labels() {
    let labelled = |value: &str| Selector {
        match_labels: BTreeMap::from([("team".to_owned(), value.to_owned())]),
        ..Selector::default()
    };
    let mut instruction = instruction(&recipes::recipe("host-port"));
    instruction.exclusions = vec![Selection {
        namespaces: Namespaces::Labelled(labelled("a")),
        pods: labelled("x"),
    }];
    let pod = |team: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"team": team}}, "spec": {"containers": [{"name": "app"}]}});
    let asked = |namespace: &str, team: &str, labels: Option<&str>| {
        let labels = labels.map(|team| BTreeMap::from([("team".to_owned(), team.to_owned())]));
        let review = review(namespace, &pod(team)).to_string();
        let review = Review::parse(review.as_bytes()).unwrap();
        review.answer(Some(&instruction), labels.as_ref()).outcome
    };
    assert_eq!(asked("shop", "x", Some("a")), Outcome::Excluded);
    assert_eq!(asked("shop", "y", Some("a")), Outcome::Injected);
    assert_eq!(asked("shop", "x", Some("b")), Outcome::Injected);
    assert_eq!(asked("shop", "x", None), Outcome::UnknownNamespace);
    assert_eq!(asked("otelagent-canary", "x", None), Outcome::Injected);
}

#[test]
fn outcome_has_a_stable_word() {
    assert_eq!(Outcome::Skipped(Reason::Windows).word(), "Windows");
    assert_eq!(Outcome::Injected.word(), "Injected");
}

#[test]
fn instruction_reads_back_or_is_refused_when_not_understood_in_full() {
    for recipe in recipes::each() {
        let mut instruction = instruction(recipe);
        instruction.exclusions = vec![Selection {
            namespaces: Namespaces::Named("shop".into()),
            pods: Selector::default(),
        }];
        let text = instruction.to_text();
        let read = Instruction::parse(&text).expect("an instruction");
        assert_eq!(read, instruction);
        assert_eq!(read.recipe.hash(), recipe.hash());
        let of_a_later_version = text.replacen("\"recipe\":{", "\"recipe\":{\"more\":1,", 1);
        assert_eq!(Instruction::parse(&of_a_later_version), None);
        assert_eq!(Instruction::parse("{}"), None);
    }
}
