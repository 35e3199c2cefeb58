//! Conditions.

use otelagent_core::names;
use serde_json::json;

use super::{
    accepts, agent, injected, other_agent, ready, reports, settled, settled_sidecar, switching,
    tell, with_missed_pod, with_status,
};

#[test]
fn ready_is_true_exactly_while_a_new_pod_is_served() {
    let mut view = settled();
    tell(
        &mut view,
        "Ready",
        "False",
        "AgentsNotReady",
        "no agent is ready",
    );
    reports(view, &["conditions.Ready"]);
    let mut view = settled();
    view.services.clear();
    reports(view, &["conditions.Ready"]);
    let mut view = with_status(settled(), "agents.ready", json!(0));
    view.pods[0]["status"] = ready(false);
    view.pods[1]["status"] = ready(false);
    view = with_status(view, "pods.uncovered", json!(2));
    tell(
        &mut view,
        "Injected",
        "True",
        "PodsUncovered",
        "2 pods are uncovered: cart, till",
    );
    reports(view, &["conditions.Ready"]);
}

#[test]
fn ready_is_open_where_the_agents_leave_a_node_out() {
    for (status, reason) in [("True", "Serving"), ("False", "PodsUncovered")] {
        let mut view = with_status(settled(), "pods.uncovered", json!(1));
        view.nodes.push(super::node("n3"));
        view.pods[3]["spec"]["nodeName"] = "n3".into();
        tell(
            &mut view,
            "Ready",
            status,
            reason,
            "no agent runs on n3: till",
        );
        accepts(view);
    }
}

#[test]
fn ready_tolerates_max_unready_silent_nodes() {
    let silent = |tolerated: serde_json::Value| {
        let mut view = with_status(settled(), "agents.ready", json!(1));
        view.pods[1]["status"] = ready(false);
        view = with_status(view, "pods.uncovered", json!(1));
        tell(
            &mut view,
            "Injected",
            "True",
            "PodsUncovered",
            "1 pod is uncovered: till",
        );
        view.agent["spec"]["switchover"] = json!({"maxUnready": tolerated});
        view
    };
    for tolerated in [json!(1), json!("50%"), json!("1")] {
        accepts(silent(tolerated));
    }
    for tolerated in [json!(null), json!(0), json!("49%")] {
        reports(silent(tolerated), &["conditions.Ready"]);
    }
    // Nodes that are down do not count.
    let mut view = silent(json!(null));
    view.nodes[1]["status"] = ready(false);
    accepts(view);
}

#[test]
fn ready_and_injected_need_an_active_injection() {
    let mut view = settled();
    view.new_pods[0]["metadata"]["labels"] = json!({"app": "new"});
    reports(view, &["conditions.Injected", "conditions.Ready"]);
    // Refused, as onInjectionFailure: Fail does.
    let mut view = settled();
    view.new_pods[0] = json!(null);
    reports(view, &["conditions.Injected", "conditions.Ready"]);
    let mut view = settled();
    view.policies.clear();
    reports(view, &["conditions.Injected", "conditions.Ready"]);
    let mut view = settled();
    view.bindings.clear();
    reports(view.clone(), &["conditions.Injected", "conditions.Ready"]);
    // A webhook configuration is as good.
    view.webhooks
        .push(json!({"metadata": {"name": "otelagent.platform.node"}}));
    accepts(view);
}

#[test]
fn injected_is_false_while_pods_are_missed_or_injection_inactive() {
    let mut view = with_missed_pod(settled());
    tell(&mut view, "Injected", "True", "Active", "late");
    reports(view, &["conditions.Injected"]);
    let inactive = |mut view: super::ClusterView| {
        tell(&mut view, "Injected", "False", "Any", "any");
        view
    };
    reports(inactive(settled()), &["conditions.Injected"]);
    // An older OtelAgent may have the pods, or none is selected.
    let mut view = inactive(settled());
    view.agents
        .push(other_agent("2026-01-01T00:00:00Z", "True"));
    accepts(view);
    let mut view = inactive(settled());
    view.agents
        .push(other_agent("2026-01-03T00:00:00Z", "True"));
    reports(view, &["conditions.Injected"]);
    let mut view = inactive(settled());
    view.agent["spec"]["workloads"] = json!(null);
    accepts(view);
}

#[test]
fn injected_names_an_owner_of_missed_pods() {
    let mut view = with_missed_pod(settled());
    tell(
        &mut view,
        "Injected",
        "False",
        "PodsMissed",
        "1 pod was missed",
    );
    reports(view.clone(), &["conditions.Injected"]);
    let owner =
        json!([{"controller": true, "kind": "ReplicaSet", "name": "orders-5f6d", "uid": "any"}]);
    view.pods.last_mut().unwrap()["metadata"]["ownerReferences"] = owner;
    tell(
        &mut view,
        "Injected",
        "False",
        "PodsMissed",
        "1 pod was missed: Deployment shop/orders",
    );
    accepts(view);
}

#[test]
fn pods_refused_needs_a_sidecar_and_namespace_limits() {
    let refused = |mut view: super::ClusterView, namespace: &str| {
        tell(
            &mut view,
            "Injected",
            "False",
            "PodsRefused",
            "LimitRange shop/small demands less memory",
        );
        view.limits = vec![json!({"metadata": {"name": "small", "namespace": namespace}})];
        view
    };
    accepts(refused(settled_sidecar(), "shop"));
    reports(
        refused(settled_sidecar(), "platform"),
        &["conditions.Injected"],
    );
    reports(refused(settled(), "shop"), &["conditions.Injected"]);
}

#[test]
fn older_configuration_needs_stale_pods() {
    let mut view = settled();
    tell(
        &mut view,
        "Injected",
        "True",
        "OlderConfiguration",
        "0 pods have an older configuration",
    );
    reports(view, &["conditions.Injected"]);
    let mut view = with_status(settled(), "pods.stale", json!(1));
    view = with_status(view, "pods.current", json!(1));
    view.pods[2]["metadata"]["labels"][names::LABEL_CONFIG] = "01d".into();
    tell(
        &mut view,
        "Injected",
        "True",
        "OlderConfiguration",
        "1 pod has an older configuration: cart",
    );
    accepts(view);
}

#[test]
fn switching_is_true_while_another_route_exists_or_is_used() {
    let mut view = settled();
    tell(
        &mut view,
        "Switching",
        "True",
        "OldRouteInUse",
        "1 pod uses HostPort",
    );
    reports(view, &["conditions.Switching"]);
    let mut view = switching();
    tell(
        &mut view,
        "Switching",
        "False",
        "Settled",
        "every pod but till uses HostPort",
    );
    reports(view, &["conditions.Switching"]);
    // The old route has no users left, but still exists.
    let mut view = switching();
    view.pods[5] = injected("till", "n2", "HostPort");
    view = with_status(view, "pods.byMode", json!({"HostPort": 2}));
    view = with_status(view, "pods.stale", json!(0));
    view = with_status(view, "pods.current", json!(2));
    accepts(view.clone());
    tell(
        &mut view,
        "Switching",
        "False",
        "Settled",
        "every pod uses HostPort",
    );
    reports(view, &["conditions.Switching"]);
}

#[test]
fn conditions_of_kstatus_are_present_only_while_they_are_true() {
    let mut view = settled();
    tell(&mut view, "Reconciling", "False", "Serving", "none");
    reports(view, &["conditions.Reconciling"]);
    let mut view = settled();
    tell(&mut view, "Stalled", "True", "InvalidValue", "no size");
    reports(view, &["conditions.Stalled"]);
    let mut view = settled();
    tell(&mut view, "Accepted", "False", "InvalidValue", "no size");
    accepts(view.clone());
    let conditions = view.agent["status"]["conditions"].as_array_mut().unwrap();
    conditions.retain(|condition| condition["type"] != "Stalled");
    reports(view, &["conditions.Stalled"]);
}

#[test]
fn switching_counts_the_pods_on_the_old_route() {
    let mut view = switching();
    tell(
        &mut view,
        "Switching",
        "True",
        "OldRouteInUse",
        "10 pods use NodeLocal: till",
    );
    reports(view.clone(), &["conditions.Switching"]);
    // One that is being deleted uses it as well, until it is gone.
    let mut ending = injected("gone", "n1", "NodeLocal");
    ending["metadata"]["deletionTimestamp"] = "2026-01-04T00:00:00Z".into();
    view.pods.push(ending);
    for said in ["1 pod uses NodeLocal: till", "2 pods use NodeLocal: till"] {
        tell(&mut view, "Switching", "True", "OldRouteInUse", said);
        accepts(view.clone());
    }
}

#[test]
fn agent_is_over_quota_only_beside_twenty_older_ones() {
    let refused = |older: usize| {
        let mut view = settled();
        tell(
            &mut view,
            "Accepted",
            "False",
            "TooManyInNamespace",
            "delete one of the others",
        );
        let named = |number| agent("platform", &format!("old{number}"), "2026-01-01T00:00:00Z");
        view.agents.extend((0..older).map(named));
        view
    };
    accepts(refused(20));
    reports(refused(19), &["conditions.Accepted"]);
}

#[test]
fn stale_pods_are_named_in_some_condition() {
    let mut view = switching();
    tell(
        &mut view,
        "Switching",
        "True",
        "OldRouteInUse",
        "1 pod uses NodeLocal",
    );
    reports(view, &["conditions.Injected"]);
    accepts(switching());
}

#[test]
fn delivering_is_what_the_counts_say() {
    for (counts, status) in [
        ([2, 2, 0, 0, 0], "True"),
        ([2, 1, 0, 1, 0], "False"),
        ([2, 0, 2, 0, 0], "Unknown"),
        ([3, 1, 0, 0, 2], "Unknown"),
    ] {
        let [asked, delivering, idle, failing, unanswered] = counts;
        let counts = json!({
            "asked": asked, "delivering": delivering, "idle": idle, "failing": failing, "unanswered": unanswered,
        });
        let view = with_status(settled(), "delivery", counts);
        for said in ["True", "False", "Unknown"] {
            let mut view = view.clone();
            tell(&mut view, "Delivering", said, "Any", "any");
            if said == status {
                accepts(view);
            } else {
                reports(view, &["conditions.Delivering"]);
            }
        }
    }
    let counts = json!({"asked": 3, "delivering": 2, "idle": 0, "failing": 0, "unanswered": 0});
    reports(with_status(settled(), "delivery", counts), &["delivery"]);
}
