//! Mode, endpoint, routes and agents.

use otelagent_core::names;
use serde_json::json;

use super::{
    accepts, agent_pod, daemon_set, ready, reports, settled, settled_sidecar, switching, tell,
    with_status,
};

#[test]
fn mode_is_what_a_pod_created_now_is_given() {
    let mut view = settled();
    view.new_pods[0]["metadata"]["labels"][names::LABEL_MODE] = "HostPort".into();
    reports(view, &["mode"]);
    let mut view = settled();
    view.new_pods.clear();
    view.bindings[0]["metadata"]["annotations"][names::ANNOTATION_SERVING] = "HostPort".into();
    reports(view, &["mode"]);
}

#[test]
fn wanted_mode_serves_once_its_agents_are_ready_everywhere() {
    // The old mode still serves, and everything says so.
    let waiting = |view: super::ClusterView| {
        let mut view = view;
        view.bindings = vec![super::binding("NodeLocal")];
        view.new_pods = vec![super::injected("new", "", "NodeLocal")];
        view.pods[4] = super::injected("cart", "n1", "NodeLocal");
        view = with_status(view, "mode", json!("NodeLocal"));
        view = with_status(view, "endpoint", json!("http://node.platform.svc:4317"));
        view = with_status(view, "pods.byMode", json!({"NodeLocal": 2}));
        view = with_status(view, "pods.current", json!(2));
        tell(&mut view, "Reconciling", "True", "AgentsNotReady", "n2");
        with_status(view, "pods.stale", json!(0))
    };
    reports(waiting(switching()), &["mode"]);
    let mut view = waiting(switching());
    view.pods[3]["status"] = ready(false);
    accepts(view);
}

#[test]
fn endpoint_follows_from_mode_name_and_port() {
    reports(
        with_status(settled(), "endpoint", json!("http://node.shop.svc:4317")),
        &["endpoint"],
    );
    reports(
        with_status(settled(), "endpoint", json!(null)),
        &["endpoint"],
    );
    reports(
        with_status(
            settled_sidecar(),
            "endpoint",
            json!("http://127.0.0.1:4318"),
        ),
        &["endpoint"],
    );
    for wrong in [
        "http://127.0.0.1:4317",
        "http://node.platform.svc:4317",
        "http://10.0.0.1:4318",
    ] {
        reports(
            with_status(switching(), "endpoint", json!(wrong)),
            &["endpoint"],
        );
    }
    accepts(with_status(
        switching(),
        "endpoint",
        json!("http://<node's address>:4317"),
    ));
}

#[test]
fn endpoint_in_the_status_is_the_one_new_pods_get() {
    let mut view = settled();
    view.new_pods[0]["spec"]["containers"][0]["env"][0]["value"] = "http://127.0.0.1:4317".into();
    reports(view, &["endpoint"]);
}

#[test]
fn routes_are_existing_serving_and_wanted_modes() {
    reports(with_status(settled(), "paths", json!([])), &["paths"]);
    reports(
        with_status(settled(), "paths", json!(["NodeLocal", "HostPort"])),
        &["paths"],
    );
    reports(
        with_status(settled(), "paths", json!(["NodeLocal", "NodeLocal"])),
        &["paths"],
    );
    reports(
        with_status(settled_sidecar(), "paths", json!(["Sidecar"])),
        &["paths"],
    );
    reports(
        with_status(switching(), "paths", json!(["HostPort"])),
        &["paths"],
    );
    accepts(with_status(
        switching(),
        "paths",
        json!(["HostPort", "NodeLocal"]),
    ));
}

#[test]
fn route_without_its_agent_workload_is_reported() {
    let mut view = switching();
    view.daemon_sets.remove(0);
    reports(view, &["paths"]);
    // Another user's object keeps it from being made.
    let mut view = switching();
    view.daemon_sets[0]["metadata"]["labels"] = json!({});
    view.daemon_sets[0]["metadata"]["name"] = "node-node-local".into();
    accepts(view);
}

#[test]
fn wrong_counts_of_agents_are_reported() {
    for field in ["desired", "ready", "updated"] {
        for view in [settled(), settled_sidecar()] {
            let field = format!("agents.{field}");
            let found = super::fields(with_status(view, &field, json!(1)));
            assert!(found.contains(&field), "{found:?}");
        }
    }
}

#[test]
fn terminating_and_outdated_agents_do_not_count() {
    let mut view = settled();
    view.pods[0]["metadata"]["labels"][names::LABEL_TEMPLATE] = "01d".into();
    reports(view.clone(), &["agents.updated"]);
    accepts(with_status(view, "agents.updated", json!(1)));
    let mut view = settled();
    view.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-04T00:00:00Z".into();
    // The next one already runs on the node.
    view.pods.push(agent_pod("NodeLocal", "n1"));
    accepts(view);
}

#[test]
fn ready_sidecar_counts_in_a_pod_that_is_not_ready() {
    let mut view = settled_sidecar();
    view.pods[0]["status"] = ready(false);
    reports(view.clone(), &["agents.ready"]);
    accepts(with_status(view.clone(), "agents.ready", json!(1)));
    view.pods[0]["status"]["initContainerStatuses"] =
        json!([{"name": names::CONTAINER, "ready": true}]);
    accepts(view);
}

#[test]
fn agents_are_those_of_the_wanted_mode_before_one_serves() {
    let mut view = settled();
    view.pods.clear();
    view.bindings.clear();
    view.new_pods.clear();
    view.daemon_sets = vec![daemon_set("NodeLocal")];
    view.agent["status"]["mode"] = json!(null);
    view.agent["status"]["endpoint"] = json!(null);
    view.agent["status"]["pods"] = json!({
        "injected": 0, "current": 0, "stale": 0, "missed": 0, "orphaned": 0, "uninjectable": 0,
        "uncovered": 0,
    });
    tell(
        &mut view,
        "Ready",
        "False",
        "AgentsNotReady",
        "no agent is ready yet",
    );
    tell(
        &mut view,
        "Switching",
        "True",
        "FirstWorkload",
        "the agents of NodeLocal start",
    );
    tell(
        &mut view,
        "Injected",
        "False",
        "NotActive",
        "no mode serves yet",
    );
    let start = "the agents of NodeLocal start";
    tell(&mut view, "Reconciling", "True", "FirstWorkload", start);
    reports(view.clone(), &["agents.ready", "agents.updated"]);
    view.agent["status"]["agents"] = json!({"desired": 2, "ready": 0, "updated": 0});
    accepts(view.clone());
    view.daemon_sets.clear();
    reports(view.clone(), &["agents", "paths"]);
    view.agent["status"]["agents"] = json!(null);
    reports(view, &["paths"]);
}
