//! Every generated edit, sent to a real API server as a dry run: its verdict matches the predicate.

use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{Problem, ValidAgent, build, covers, validate};
use otelagent_core::inject::policy::{PolicyInput, render};
use otelagent_core::inject::{Injection, canary, difference, inject};
use serde_json::{Value, json};

use super::edits::{self, Edit, MODES, apply};
use super::predicate::refusals;
use super::schema;
use super::world::{EditServer, Numbers, agent, base, seed};
use crate::test_scale::is_full;
use otelagent_test_support::agents::environment;

/// Of every field one edit in so many is sent in `make test`; all of them in `make test-full`.
const VERDICTS: usize = 4;
const OBJECTS: usize = 16;

/// Edits of every field; a sample that follows from a seed, unless everything is asked for.
fn edits(schema: &Value, one_in: usize, mode: impl Fn(usize) -> Option<&'static str>) -> Vec<Edit> {
    let (seed, full) = (seed(), is_full());
    if !full {
        println!(
            "one edit in {one_in}; again with OTELAGENT_SEED={seed}, all with OTELAGENT_FULL=1"
        );
    }
    let mut numbers = Numbers(seed);
    let mut edits = Vec::new();
    for field in schema::fields(schema) {
        for (index, value) in edits::values(&field).into_iter().enumerate() {
            if full || numbers.below(one_in) == 0 {
                edits.push(Edit {
                    mode: mode(index),
                    path: field.path.clone(),
                    value,
                });
            }
        }
    }
    edits
}

#[tokio::test(flavor = "multi_thread")]
async fn server_verdict_on_every_edit_matches_the_predicate() {
    if !testbed::skip_unless_possible("edits of every field against a real API server") {
        return;
    }
    let server = EditServer::still().await;
    let schema = schema::spec();
    let spec = base();
    assert!(server.create(&agent("verdicts", &spec)).await.is_ok());
    let mut differ = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    let mode = |index: usize| (index % 3 == 1).then(|| MODES[index % 4]);
    for edit in edits(&schema, VERDICTS, mode) {
        let edited = apply(&schema, &spec, &edit);
        let answer = server.dry_run("verdicts", &edited).await;
        let expected = refusals(&schema, Some(&spec), &edited);
        match &answer {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
        if answer.is_ok() != expected.is_empty() {
            differ.push(format!(
                "{edit}\n    server: {:?}\n    predicate: {expected:?}",
                answer.err()
            ));
        }
    }
    println!("{taken} edits taken, {refused} refused");
    assert!(
        taken > 20 && refused > 20,
        "both kinds were tried: {taken}, {refused}"
    );
    assert!(
        differ.is_empty(),
        "{} differ:\n{}",
        differ.len(),
        differ.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_spec_renders_valid_objects_or_is_refused_with_a_reason() {
    if !testbed::skip_unless_possible("objects of every edit against a real API server") {
        return;
    }
    let server = EditServer::still().await;
    let schema = schema::spec();
    assert!(server.create(&agent("objects", &base())).await.is_ok());
    let mut wrong = Vec::new();
    let (mut carried, mut refused) = (0, 0);
    for edit in edits(&schema, OBJECTS, |index| Some(MODES[index % 4])) {
        let spec = apply(&schema, &base(), &edit);
        let Ok(taken) = server.dry_run("objects", &spec).await else {
            continue;
        };
        let outcome = match serde_json::from_value::<OtelAgent>(taken) {
            Err(error) => Err(format!("cannot be read: {error}")),
            Ok(agent) => match validate(&agent, &environment()) {
                Err(problems) => {
                    refused += 1;
                    is_told(&problems)
                }
                Ok(valid) => {
                    carried += 1;
                    objects_are_taken(&server, &valid).await
                }
            },
        };
        if let Err(why) = outcome {
            let head: String = why.chars().take(300).collect();
            wrong.push(format!("{edit}\n    {head}"));
        }
    }
    println!("{carried} specs carried out, {refused} refused by the operator");
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn is_told(problems: &[Problem]) -> Result<(), String> {
    let is_silent = |problem: &Problem| problem.reason.is_empty() || problem.message.is_empty();
    if problems.is_empty() || problems.iter().any(is_silent) {
        return Err("refused without a word".into());
    }
    Ok(())
}

/// Objects of every mode, not of the wanted one only: an older route is held with the present spec.
async fn objects_are_taken(server: &EditServer, valid: &ValidAgent) -> Result<(), String> {
    let desired = build(valid, &environment(), Mode::ALL);
    for (mode, desired) in &desired.modes {
        for object in &desired.objects {
            let intent = object.to_json();
            let answer = server
                .dry_apply(&intent)
                .await
                .map_err(|why| format!("{mode}: {why}"))?;
            if !covers(&answer, &intent) {
                return Err(format!(
                    "{} would be written forever: {}",
                    intent["metadata"]["name"].as_str().unwrap_or_default(),
                    difference(&answer, &intent, "")
                ));
            }
        }
    }
    // Injection of an older mode is bound no more.
    let recipe = desired.modes[&valid.wanted()].recipe.clone();
    for probe in canary::probe_pods(&recipe, "canary") {
        if let Injection::Injected(pod) = inject(&probe, "otelagent-canary", &recipe) {
            let answer = server
                .dry_run_pod(&pod)
                .await
                .map_err(|why| format!("injected pod: {why}"))?;
            difference::compare(&probe, &answer, &recipe, "otelagent-canary")
                .map_err(|why| why.to_string())?;
        }
    }
    let Some(selection) = valid.selection.clone() else {
        return Ok(());
    };
    let policies = render(&PolicyInput {
        namespace: valid.namespace.clone(),
        name: valid.name.clone(),
        uid: valid.uid.clone(),
        recipe,
        selection,
        exclusions: Vec::new(),
        excluded_namespaces: vec!["kube-system".into()],
        canary_namespace: "otelagent-canary".into(),
        on_failure: valid
            .spec
            .workloads
            .clone()
            .unwrap_or_default()
            .on_injection_failure,
        owner_reference: None,
    })
    .map_err(|why| why.to_string())?;
    let objects = policies.policy.iter().chain([&policies.binding]);
    for object in objects.chain(&policies.warnings) {
        let answer = server.dry_apply(object).await?;
        if !covers(&answer, object) {
            return Err(format!(
                "{} would be written forever: {}",
                object["kind"],
                difference(&answer, object, "")
            ));
        }
    }
    Ok(())
}

/// Where the server stored something else than it was given.
fn difference(actual: &Value, intent: &Value, path: &str) -> String {
    match (actual, intent) {
        (Value::Object(_), Value::Object(fields)) => {
            let differs = fields.iter().find(|(key, value)| {
                !covers(&json!({"v": actual.get(*key)}), &json!({"v": value}))
            });
            differs.map_or_else(String::new, |(key, value)| {
                difference(
                    actual.get(key).unwrap_or(&Value::Null),
                    value,
                    &format!("{path}.{key}"),
                )
            })
        }
        (Value::Array(found), Value::Array(items)) if found.len() == items.len() => {
            let differs = found
                .iter()
                .zip(items)
                .find(|(found, item)| !covers(found, item));
            differs.map_or_else(String::new, |(found, item)| {
                difference(found, item, &format!("{path}[]"))
            })
        }
        _ => format!("{path} is {actual} instead of {intent}"),
    }
}
