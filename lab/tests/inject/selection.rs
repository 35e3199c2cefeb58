//! Selections in CEL on a real API server select what [`Selection::matches`] says.
//!
//! Nothing is injected here: the warning of every `OtelAgent` that selects a pod says so, which shows
//! many selections with one pod.

use std::collections::BTreeMap;

use otelagent_api::{Operator, Requirement, Selector};
use otelagent_core::inject::policy::render;
use otelagent_core::inject::{Namespaces, Selection};
use otelagent_core::names;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;

use super::server::{self, Server};
use otelagent_test_support::pod_shapes::pod;
use otelagent_test_support::recipes;
use otelagent_test_support::recipes::input;

type Labels = BTreeMap<String, String>;

/// All warnings of one answer must fit into the 4 KiB that the server sends.
const PER_ROUND: usize = 10;
const ROUNDS: usize = 4;

fn labels() -> impl Strategy<Value = Labels> {
    btree_map("(a|b|otelagent\\.dev/inject)", "(x|y|false|)", 0..3)
}

/// Values that no label can have must match nothing rather than something.
fn selector() -> impl Strategy<Value = Selector> {
    let value = "(x|y||\"q\"\\\\|/)";
    let operator = prop::sample::select(vec![
        Operator::In,
        Operator::NotIn,
        Operator::Exists,
        Operator::DoesNotExist,
    ]);
    let requirement =
        ("(a|b|c)", operator, vec(value, 1..3)).prop_map(|(key, operator, values)| {
            let has_values = matches!(operator, Operator::In | Operator::NotIn);
            Requirement {
                key,
                operator,
                values: if has_values { values } else { Vec::new() },
            }
        });
    (btree_map("(a|b)", value, 0..2), vec(requirement, 0..3)).prop_map(
        |(match_labels, match_expressions)| Selector {
            match_labels,
            match_expressions,
        },
    )
}

fn selection() -> impl Strategy<Value = Selection> {
    let namespaces = prop_oneof![
        "selected-[0-3]".prop_map(Namespaces::Named),
        selector().prop_map(Namespaces::Labelled),
        Just(Namespaces::Labelled(Selector::default())),
    ];
    (
        namespaces,
        prop_oneof![Just(Selector::default()), selector()],
    )
        .prop_map(|(namespaces, pods)| Selection { namespaces, pods })
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_function_select_the_same_pods() {
    if !server::is_possible("selections on a real API server") {
        return;
    }
    let server = Server::start().await;
    let mut runner = TestRunner::deterministic();
    let namespaces = namespaces(&server).await;
    let (mut selected, mut checked) = (0, 0);
    for round in 0..ROUNDS {
        let agents = agents(&mut runner);
        for (index, (selection, exclusions)) in agents.iter().enumerate() {
            warn(
                &server,
                &format!("s{index}"),
                selection.clone(),
                exclusions.clone(),
            )
            .await;
        }
        begin(&server, round).await;
        for _ in 0..40 {
            let pod_labels = labels().new_tree(&mut runner).unwrap().current();
            for (namespace, namespace_labels) in &namespaces {
                let asked = pod(
                    json!({"name": "p", "labels": pod_labels}),
                    json!({"containers": [{"name": "a", "image": "a"}]}),
                );
                let answer = server.dry_run(namespace, &asked).await;
                assert!(answer.is_ok(), "{answer:?}");
                for (index, (selection, exclusions)) in agents.iter().enumerate() {
                    let matches =
                        |s: &Selection| s.matches(namespace, namespace_labels, &pod_labels);
                    let expected = matches(selection) && !exclusions.iter().any(matches);
                    let by = format!("otelagent-system/s{index} did not inject");
                    let found = answer.warnings.iter().any(|warning| warning.contains(&by));
                    assert_eq!(
                        expected, found,
                        "{selection:?} but {exclusions:?}: {namespace} {namespace_labels:?} {pod_labels:?}: {:#?}",
                        answer.warnings
                    );
                    selected += usize::from(expected);
                    checked += 1;
                }
            }
        }
    }
    assert!(
        selected * 10 > checked && selected * 2 < checked,
        "{selected} of {checked} is no fair sample"
    );
    for index in 0..PER_ROUND {
        let policies = render(&input(
            &format!("s{index}"),
            "none",
            &recipes::recipe("host-port"),
        ))
        .unwrap();
        server.delete(&policies.warnings[1]).await;
    }
}

async fn namespaces(server: &Server) -> Vec<(String, Labels)> {
    let mut namespaces = Vec::new();
    for (index, labels) in [
        json!({}),
        json!({"a": "x"}),
        json!({"a": "y", "b": "x"}),
        json!({"b": ""}),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("selected-{index}");
        server.namespace(&name, labels.clone()).await;
        let mut labels: Labels = serde_json::from_value(labels).unwrap();
        labels.insert("kubernetes.io/metadata.name".into(), name.clone());
        namespaces.push((name, labels));
    }
    server.namespace("rounds", json!({})).await;
    namespaces
}

fn agents(runner: &mut TestRunner) -> Vec<(Selection, Vec<Selection>)> {
    let strategy = vec((selection(), vec(selection(), 0..2)), PER_ROUND);
    strategy.new_tree(runner).unwrap().current()
}

async fn warn(server: &Server, name: &str, selection: Selection, exclusions: Vec<Selection>) {
    let mut input = input(name, "", &recipes::recipe("host-port"));
    input.selection = selection;
    input.exclusions = exclusions;
    let policies = render(&input).unwrap();
    for object in &policies.warnings {
        // Applied by one manager: what an earlier round set and this one does not goes away.
        let answer = server.apply(object).await;
        assert!(answer.is_ok(), "{}", answer.body["message"]);
    }
}

/// Waits until the server has seen everything of this round: it loads all policies at once.
async fn begin(server: &Server, round: usize) {
    let of_round = Labels::from([("round".to_owned(), round.to_string())]);
    let pods = Selector {
        match_labels: of_round.clone(),
        ..Selector::default()
    };
    warn(
        server,
        "round",
        Selection {
            namespaces: Namespaces::Named("rounds".into()),
            pods,
        },
        Vec::new(),
    )
    .await;
    let asked = pod(
        json!({"name": "p", "labels": of_round}),
        json!({"containers": [{"name": "a", "image": "a"}]}),
    );
    server
        .until("this round", async || {
            let warnings = server.dry_run("rounds", &asked).await.warnings;
            warnings
                .iter()
                .any(|w| w.contains("/round did not"))
                .then_some(())
                .ok_or_else(|| format!("{warnings:?}"))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_of_two_agents_injects_and_opting_out_works() {
    if !server::is_possible("two agents on a real API server") {
        return;
    }
    let server = Server::start().await;
    server.namespace("shared", json!({})).await;
    let older = input("older", "shared", &recipes::recipe("host-port"));
    let mut younger = input("younger", "shared", &recipes::recipe("node-local"));
    younger.exclusions = vec![Selection {
        pods: Selector {
            match_labels: Labels::from([("team".into(), "a".into())]),
            ..Selector::default()
        },
        ..older.selection.clone()
    }];
    let mut older = older;
    older.selection = younger.exclusions[0].clone();
    server.activate(&older).await;
    server.activate(&younger).await;
    let created = async |labels: serde_json::Value| {
        let asked = pod(
            json!({"name": "p", "labels": labels}),
            json!({"containers": [{"name": "a", "image": "a"}]}),
        );
        let answer = server.dry_run("shared", &asked).await;
        // Another test's agents may select everything.
        let by_these = |warning: &String| {
            warning.contains("/older did not") || warning.contains("/younger did not")
        };
        (
            answer.label(names::LABEL_AGENT).map(str::to_owned),
            answer
                .warnings
                .into_iter()
                .filter(by_these)
                .collect::<Vec<_>>(),
        )
    };
    for _ in 0..20 {
        assert_eq!(
            created(json!({"team": "a"})).await,
            (Some(older.recipe.agent.clone()), vec![])
        );
        assert_eq!(
            created(json!({})).await,
            (Some(younger.recipe.agent.clone()), vec![])
        );
    }
    assert_eq!(
        created(json!({names::LABEL_INJECT: "false"})).await,
        (None, vec![])
    );
}

/// Label of the agent that injected a pod made now, once the namespace takes pods at all: the service account
/// of a new one takes a moment.
async fn injected_by(server: &Server, namespace: &str) -> Option<String> {
    let asked = pod(
        json!({"name": "p"}),
        json!({"containers": [{"name": "a", "image": "a"}]}),
    );
    for _ in 0..600 {
        let answer = server.dry_run(namespace, &asked).await;
        if answer.is_ok() {
            return answer.label(names::LABEL_AGENT).map(str::to_owned);
        }
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert!(message.contains("serviceaccount"), "{message}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{namespace} takes no pods");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_policy_injects_the_first_pod_of_three_hundred_namespaces() {
    if !server::is_possible("three hundred namespaces on a real API server") {
        return;
    }
    let server = Server::start().await;
    let mut many = input("many", "", &recipes::recipe("node-local"));
    many.selection.namespaces = Namespaces::Labelled(Selector {
        match_labels: Labels::from([("many".into(), "yes".into())]),
        ..Selector::default()
    });
    // Before the policy, and after it.
    let name = |index: usize| format!("many-{index}");
    for index in 0..150 {
        server.namespace(&name(index), json!({"many": "yes"})).await;
    }
    server.namespace("many-not", json!({})).await;
    let policies = server.activate(&many).await;
    for index in 150..300 {
        server.namespace(&name(index), json!({"many": "yes"})).await;
        let by = injected_by(&server, &name(index)).await;
        assert_eq!(by.as_ref(), Some(&many.recipe.agent), "{}", name(index));
    }
    for index in 0..150 {
        let by = injected_by(&server, &name(index)).await;
        assert_eq!(by.as_ref(), Some(&many.recipe.agent), "{}", name(index));
    }
    assert_eq!(injected_by(&server, "many-not").await, None);
    for object in [&policies.binding, &policies.warnings[1]] {
        server.delete(object).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_follow_a_changed_selector_and_a_recreated_agent() {
    if !server::is_possible("a changed selector on a real API server") {
        return;
    }
    let server = Server::start().await;
    for namespace in ["before", "after"] {
        server.namespace(namespace, json!({})).await;
    }
    let recipe = recipes::recipe("node-local");
    let agent = server.activate(&input("moving", "before", &recipe)).await;
    let label = input("moving", "before", &recipe).recipe.agent;
    assert_eq!(injected_by(&server, "before").await, Some(label.clone()));
    assert_eq!(injected_by(&server, "after").await, None);

    let changed = input("moving", "after", &recipe);
    let changed_policies = server.activate(&changed).await;
    assert_eq!(
        agent.binding["metadata"]["name"], changed_policies.binding["metadata"]["name"],
        "one binding at any time"
    );
    assert_eq!(injected_by(&server, "after").await, Some(label.clone()));
    assert_eq!(injected_by(&server, "before").await, None);

    for object in [&changed_policies.binding, &changed_policies.warnings[1]] {
        server.delete(object).await;
    }
    server
        .until("nothing is injected", async || {
            let by = injected_by(&server, "after").await;
            by.is_none().then_some(()).ok_or_else(|| format!("{by:?}"))
        })
        .await;
    let mut anew = changed;
    anew.uid = "another".into();
    server.activate(&anew).await;
    assert_eq!(injected_by(&server, "after").await, Some(label));
}
