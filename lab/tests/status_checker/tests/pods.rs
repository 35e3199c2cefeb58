//! Counts of pods.

use otelagent_core::names;
use serde_json::json;

use super::{
    CONFIG, accepts, agent, agent_pod, injected, other_agent, plain, ready, reports, settled,
    settled_sidecar, switching, tell, with_missed_pod, with_status,
};

const OLDER: &str = "2026-01-01T00:00:00Z";
const YOUNGER: &str = "2026-01-03T00:00:00Z";

#[test]
fn wrong_counts_are_reported() {
    for field in [
        "injected",
        "current",
        "stale",
        "missed",
        "orphaned",
        "uninjectable",
        "uncovered",
    ] {
        let field = format!("pods.{field}");
        reports(with_status(settled(), &field, json!(9)), &[&field]);
    }
    reports(
        with_status(settled(), "pods.byMode.NodeLocal", json!(9)),
        &["pods.byMode.NodeLocal"],
    );
    let unknown = json!({"NodeLocal": 2, "NodePort": 1});
    reports(
        with_status(settled(), "pods.byMode", unknown),
        &["pods.byMode.NodePort"],
    );
}

#[test]
fn finished_and_terminating_pods_are_not_counted() {
    for phase in ["Succeeded", "Failed"] {
        let mut view = settled();
        for mut pod in [plain("done", "n1"), injected("job", "n1", "NodeLocal")] {
            pod["status"]["phase"] = phase.into();
            view.pods.push(pod);
        }
        accepts(view);
    }
    let mut view = settled();
    for mut pod in [plain("done", "n1"), injected("job", "n1", "NodeLocal")] {
        pod["metadata"]["deletionTimestamp"] = OLDER.into();
        view.pods.push(pod);
    }
    accepts(view);
}

#[test]
fn pod_without_injection_is_missed_until_it_is_counted() {
    let mut view = settled();
    view.pods.push(plain("late", "n1"));
    reports(view, &["conditions.Injected", "pods.missed"]);
    accepts(with_missed_pod(settled()));
}

#[test]
fn pods_that_are_not_selected_are_not_missed() {
    let mut opted_out = plain("out", "n1");
    opted_out["metadata"]["labels"][names::LABEL_INJECT] = "false".into();
    let mut mirror = plain("mirror", "n1");
    mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "any".into();
    let mut elsewhere = plain("elsewhere", "n1");
    elsewhere["metadata"]["namespace"] = "platform".into();
    let mut unlabelled = plain("unlabelled", "n1");
    unlabelled["metadata"]["labels"] = json!({});
    for pod in [opted_out, mirror, elsewhere, unlabelled] {
        let mut view = settled();
        view.pods.push(pod);
        accepts(view);
    }
}

#[test]
fn selector_of_everything_leaves_out_system_namespaces_and_agents() {
    let select_all = || {
        let mut view = settled();
        view.agent["spec"]["workloads"] = json!({"namespaceSelector": {}});
        view
    };
    for namespace in ["kube-system", "otelagent-system"] {
        let mut view = select_all();
        let mut pod = plain("system", "n1");
        pod["metadata"]["namespace"] = namespace.into();
        view.pods.push(pod);
        accepts(view);
    }
    let mut view = select_all();
    let mut pod = plain("late", "n1");
    pod["metadata"]["namespace"] = "platform".into();
    view.pods.push(pod);
    reports(view, &["conditions.Injected", "pods.missed"]);
}

#[test]
fn absent_namespace_selector_selects_the_own_namespace() {
    let mut view = settled();
    view.agent["spec"]["workloads"] = json!({});
    view.pods.push(plain("late", "n1"));
    accepts(view.clone());
    view.pods.last_mut().unwrap()["metadata"]["namespace"] = "platform".into();
    reports(view, &["conditions.Injected", "pods.missed"]);
}

#[test]
fn pod_selectors_select_as_kubernetes_does() {
    let require = |key: &str, operator: &str, values: serde_json::Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    for (selector, is_selected) in [
        (json!(null), true),
        (json!({}), true),
        (json!({"matchLabels": {"app": "late"}}), true),
        (
            json!({"matchLabels": {"app": "late", "tier": "web"}}),
            false,
        ),
        (require("app", "In", json!(["late", "cart"])), true),
        (require("app", "In", json!(["cart"])), false),
        (require("app", "NotIn", json!(["late"])), false),
        (require("app", "NotIn", json!(["cart"])), true),
        (require("tier", "NotIn", json!(["web"])), true),
        (require("app", "Exists", json!(null)), true),
        (require("tier", "Exists", json!(null)), false),
        (require("app", "DoesNotExist", json!(null)), false),
        (require("tier", "DoesNotExist", json!(null)), true),
    ] {
        let mut view = settled();
        view.agent["spec"]["workloads"]["podSelector"] = selector;
        view.pods.push(plain("late", "n1"));
        if is_selected {
            reports(view, &["conditions.Injected", "pods.missed"]);
        } else {
            accepts(view);
        }
    }
}

#[test]
fn example_of_a_selected_pod_is_certainly_selected() {
    let example = |selector| {
        let mut view = settled();
        view.agent["spec"]["workloads"]["podSelector"] = selector;
        view.agents = vec![view.agent.clone()];
        view.pods.clear();
        view.example()
    };
    let chosen =
        json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["cart"]}]});
    let found = Some(("shop".to_owned(), json!({"app": "cart"})));
    assert_eq!(example(chosen), found);
    let impossible = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]});
    assert_eq!(example(impossible), None);
    let copied = settled().example().unwrap();
    assert_eq!(copied.1, json!({"app": "cart"}));
}

#[test]
fn oldest_agent_that_selects_a_pod_has_it() {
    let missed_beside = |other| {
        let mut view = settled();
        view.pods.push(plain("late", "n1"));
        view.agents.push(other);
        view
    };
    reports(
        missed_beside(other_agent(YOUNGER, "True")),
        &["conditions.Injected", "pods.missed"],
    );
    accepts(missed_beside(other_agent(OLDER, "True")));
    // A refused one without a binding acts on nothing; with one, its last good selection may hold the pod.
    reports(
        missed_beside(other_agent(OLDER, "False")),
        &["conditions.Injected", "pods.missed"],
    );
    let mut view = missed_beside(other_agent(OLDER, "False"));
    view.bindings
        .push(json!({"metadata": {"name": "otelagent.platform.other"}}));
    accepts(view);
}

/// A pod that was injected for another `OtelAgent`.
fn of_another(agent: &str) -> serde_json::Value {
    let mut pod = injected("theirs", "n1", "NodeLocal");
    pod["metadata"]["labels"][names::LABEL_AGENT] = agent.into();
    pod
}

#[test]
fn pod_of_another_agent_is_missed_by_the_oldest_that_selects_it() {
    let mut view = settled();
    view.agents.push(other_agent(YOUNGER, "True"));
    view.pods.push(of_another("platform.other"));
    assert!(view.orphaned().is_empty());
    reports(view.clone(), &["conditions.Injected", "pods.missed"]);
    view.agents[1] = other_agent(OLDER, "True");
    accepts(view);
}

#[test]
fn orphaned_pods_are_missed_by_whoever_selects_them() {
    let mut view = settled();
    let pod = of_another("platform.gone");
    let mut finished = pod.clone();
    finished["status"]["phase"] = "Succeeded".into();
    view.pods.extend([pod, finished]);
    assert_eq!(view.orphaned().len(), 1);
    reports(
        view.clone(),
        &["conditions.Injected", "pods.missed", "pods.orphaned"],
    );
    let mut view = with_status(view, "pods.missed", json!(1));
    view = with_status(view, "pods.orphaned", json!(1));
    tell(
        &mut view,
        "Injected",
        "False",
        "PodsOrphaned",
        "1 pod was injected for platform.gone: theirs",
    );
    accepts(view.clone());
    reports(
        with_status(view.clone(), "pods.injected", json!(3)),
        &["pods.injected"],
    );
    view.pods.pop();
    view.pods.last_mut().unwrap()["metadata"]["namespace"] = "platform".into();
    reports(
        view,
        &["conditions.Injected", "pods.missed", "pods.orphaned"],
    );
}

#[test]
fn pods_that_cannot_be_injected_are_counted_and_named_and_no_alarm() {
    let with_host_network = |mut view: super::ClusterView| {
        let mut pod = plain("cni", "n1");
        pod["spec"]["hostNetwork"] = true.into();
        view.pods.push(pod);
        with_status(view, "pods.missed", json!(1))
    };
    for view in [settled(), settled_sidecar()] {
        let view = with_host_network(view);
        reports(view.clone(), &["conditions.Injected", "pods.uninjectable"]);
        let mut view = with_status(view, "pods.uninjectable", json!(1));
        let message = "1 pod cannot be injected: cni";
        tell(&mut view, "Injected", "True", "PodsNotInjectable", message);
        accepts(view.clone());
        tell(&mut view, "Injected", "False", "PodsMissed", message);
        reports(view, &["conditions.Injected"]);
    }
}

#[test]
fn selection_of_no_namespace_is_no_success() {
    let mut view = settled();
    let nobody = json!({"matchLabels": {"no": "body"}});
    view.agent["spec"]["workloads"]["namespaceSelector"] = nobody;
    view.agents = vec![view.agent.clone()];
    view.pods
        .retain(|pod| pod["metadata"]["labels"][names::LABEL_AGENT].is_null());
    for (field, count) in [("injected", 0), ("current", 0)] {
        view = with_status(view, &format!("pods.{field}"), json!(count));
    }
    view = with_status(view, "pods.byMode", json!({}));
    reports(view.clone(), &["conditions.Injected"]);
    let message = "run kubectl label namespace";
    let mut refused = view.clone();
    tell(&mut view, "Injected", "False", "SelectsNothing", message);
    accepts(view);
    // Until the spec is accepted, the one before it selects.
    tell(
        &mut refused,
        "Accepted",
        "False",
        "SelectsNothing",
        "add it",
    );
    accepts(refused);
}

#[test]
fn refused_spec_leaves_open_which_pods_are_missed() {
    let mut view = settled();
    tell(&mut view, "Accepted", "False", "Invalid", "change the mode");
    view.pods.push(plain("late", "n1"));
    accepts(view.clone());
    accepts(with_status(view, "pods.missed", json!(1)));
}

#[test]
fn another_configuration_or_mode_makes_a_pod_stale() {
    let mut view = settled();
    view.pods[3]["metadata"]["labels"][names::LABEL_CONFIG] = "01d".into();
    let stale = |mut view: super::ClusterView| {
        view = with_status(view, "pods.stale", json!(1));
        with_status(view, "pods.current", json!(1))
    };
    reports(
        view.clone(),
        &["conditions.Injected", "pods.current", "pods.stale"],
    );
    let mut changed = stale(view);
    tell(
        &mut changed,
        "Injected",
        "True",
        "OlderConfiguration",
        "1 pod has an older configuration: till",
    );
    accepts(changed);
    reports(
        with_status(switching(), "pods.stale", json!(0)),
        &["pods.stale"],
    );
}

#[test]
fn configuration_comes_from_the_binding_without_a_new_pod() {
    let mut view = settled();
    view.new_pods.clear();
    accepts(view.clone());
    view.bindings[0]["metadata"]["annotations"][names::ANNOTATION_RECIPE] = "01d".into();
    reports(view, &["conditions.Injected", "pods.current", "pods.stale"]);
    assert_eq!(CONFIG, "c0ffee");
}

#[test]
fn pod_on_a_node_without_a_ready_agent_is_uncovered() {
    let uncovered = || {
        let mut view = settled();
        view.pods[1]["status"] = ready(false);
        view = with_status(view, "agents.ready", json!(1));
        tell(
            &mut view,
            "Ready",
            "False",
            "AgentsNotReady",
            "no agent is ready on n2",
        );
        view
    };
    reports(uncovered(), &["conditions.Injected", "pods.uncovered"]);
    let mut view = with_status(uncovered(), "pods.uncovered", json!(1));
    tell(
        &mut view,
        "Injected",
        "True",
        "PodsUncovered",
        "1 pod is uncovered: till",
    );
    accepts(view);
    // A pod without a node is on none, and a sidecar is in its pod.
    let mut view = settled();
    view.pods[3]["spec"]["nodeName"] = json!(null);
    accepts(view);
    accepts(settled_sidecar());
}

#[test]
fn agent_of_another_mode_or_owner_covers_nothing() {
    let mut view = switching();
    view.pods
        .retain(|pod| pod["metadata"]["name"] != "node-NodeLocal-n2");
    reports(view, &["pods.uncovered"]);
    let mut view = switching();
    view.agents.push(agent("platform", "other", YOUNGER));
    let mut other = agent_pod("NodeLocal", "n2");
    other["metadata"]["labels"][names::LABEL_OWNER] = "platform.other".into();
    view.pods[1] = other;
    reports(view, &["pods.uncovered"]);
}
