use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::super::node::NodeState;
use super::*;

fn pod(node: &str, ready: bool, template: &str) -> AgentPod {
    AgentPod {
        name: format!("a-{node}"),
        node: Some(node.into()),
        ready,
        waits_for: None,
        template: Some(template.into()),
    }
}

fn of_nodes(desired: i32, pods: Vec<AgentPod>) -> AgentWorkload {
    AgentWorkload {
        observed: true,
        desired,
        template: "t1".into(),
        pods,
        ..AgentWorkload::default()
    }
}

fn node(ready: bool) -> Arc<NodeState> {
    Arc::new(NodeState {
        ready,
        ..NodeState::default()
    })
}

fn nodes<const N: usize>(states: [(&str, bool); N]) -> NodeStates {
    let states = states.map(|(name, ready)| (name.to_owned(), node(ready)));
    states.into()
}

/// Of agents that should be of template `t1` on every Ready node.
fn state(nodes: &NodeStates, desired: i32, pods: Vec<AgentPod>) -> WorkloadState {
    of_nodes(desired, pods).state(nodes, "t1", MaxUnready::default())
}

#[test]
fn ready_everywhere_needs_an_updated_agent_on_each_node() {
    let nodes = nodes([("n1", true), ("n2", true)]);
    let with = |second| state(&nodes, 2, vec![pod("n1", true, "t1"), second]);
    let ready = with(pod("n2", true, "t1"));
    assert!(ready.is_ready_everywhere(), "{ready:?}");
    let counts = ready.counts;
    assert_eq!((counts.desired, counts.ready, counts.updated), (2, 2, 2));

    let starting = pod("n2", false, "t1");
    let waits = ["node n2: agent a-n2 is not ready"];
    assert_eq!(with(starting.clone()).waiting_for(), waits);

    let pulling = AgentPod {
        waits_for: Some("ImagePullBackOff".into()),
        ..starting
    };
    let waits = ["node n2: agent a-n2 (ImagePullBackOff) is not ready"];
    assert_eq!(with(pulling).waiting_for(), waits);
    assert!(!with(pod("n2", true, "t0")).is_ready_everywhere());
}

#[test]
fn workload_is_outdated_while_a_node_has_only_an_old_agent() {
    let up = nodes([("n1", true), ("n2", true)]);
    let surging = vec![
        pod("n1", true, "t0"),
        pod("n1", true, "t1"),
        pod("n2", true, "t0"),
    ];
    let mut surged = of_nodes(2, surging);
    assert!(surged.is_outdated(&up, "t1"));
    surged.pods.push(pod("n2", true, "t1"));
    assert!(!surged.is_outdated(&up, "t1"));
    assert!(surged.is_outdated(&up, "t2"), "not even asked for");
    surged.observed = false;
    assert!(surged.is_outdated(&up, "t1"), "not observed");

    let blocked = of_nodes(2, vec![pod("n1", true, "t1"), pod("n2", false, "t0")]);
    assert!(!blocked.is_outdated(&up, "t1"), "n2 has no ready agent");
    let half = nodes([("n1", true), ("n2", false)]);
    let down = of_nodes(2, vec![pod("n1", true, "t1"), pod("n2", true, "t0")]);
    assert!(!down.is_outdated(&half, "t1"), "n2 is down");
}

#[test]
fn node_that_is_down_blocks_nothing() {
    let nodes = nodes([("n1", true), ("n2", false)]);
    let one = vec![pod("n1", true, "t1")];
    let with_dead_agent = [one.clone(), vec![pod("n2", false, "t1")]].concat();
    for pods in [with_dead_agent, one] {
        assert!(state(&nodes, 2, pods).is_ready_everywhere());
    }
}

#[test]
fn node_without_an_agent_is_waited_for() {
    let nodes = nodes([("n1", true), ("n2", true)]);
    let state = state(&nodes, 2, vec![pod("n1", true, "t1")]);
    assert_eq!(state.waiting_for(), ["1 of 2 nodes have no agent yet (n2)"]);
}

#[test]
fn dead_nodes_without_agents_hide_no_ready_node_without_one() {
    let nodes = nodes([("d1", false), ("d2", false), ("n1", true), ("n2", true)]);
    // Its controller counts the dead nodes whose taints it tolerates.
    for desired in 2..=4 {
        let state = state(&nodes, desired, vec![pod("n1", true, "t1")]);
        assert_eq!(state.missing_on, ["n2"], "{desired}");
        assert!(!state.is_ready_everywhere(), "{desired}");
    }
}

#[test]
fn node_that_is_left_out_neither_blocks_nor_counts() {
    let mut nodes = nodes([("n1", true), ("n2", true), ("w1", true), ("w2", false)]);
    let windows = |ready| {
        let labels = [("kubernetes.io/os".to_owned(), "windows".to_owned())];
        Arc::new(NodeState {
            ready,
            labels: labels.into(),
            taints: Vec::new(),
        })
    };
    let linux = [("kubernetes.io/os".to_owned(), "linux".to_owned())];
    for name in ["n1", "n2"] {
        let mut known = (*nodes[name]).clone();
        known.labels = linux.clone().into();
        nodes.insert(name.into(), Arc::new(known));
    }
    nodes.insert("w1".into(), windows(true));
    nodes.insert("w2".into(), windows(false));
    let workload = |pods| AgentWorkload {
        targets: Targets::of(
            &serde_json::from_value(serde_json::json!({
                "metadata": {}, "spec": {"selector": {}, "template": {"spec": {
                    "containers": [], "nodeSelector": {"kubernetes.io/os": "linux"},
                }}},
            }))
            .unwrap(),
        ),
        ..of_nodes(2, pods)
    };
    let on = |names: &[&str]| -> Vec<AgentPod> {
        names
            .iter()
            .map(|name| pod(name, *name != "w1", "t1"))
            .collect()
    };
    let state = |pods| workload(pods).state(&nodes, "t1", MaxUnready::default());
    let everywhere = state(on(&["n1", "n2", "w1"]));
    assert!(everywhere.is_ready_everywhere(), "{everywhere:?}");
    // Dead nodes that are left out do not stand for the agent that n2 lacks.
    let lacking = state(on(&["n1", "w1"]));
    assert_eq!(
        lacking.waiting_for(),
        ["1 of 2 nodes have no agent yet (n2)"]
    );
    let why = workload(Vec::new()).leaves_out(&nodes, "w1");
    assert_eq!(
        why.unwrap(),
        "it has label kubernetes.io/os=windows, not linux"
    );
}

#[test]
fn node_that_went_down_with_its_agent_is_not_waited_for_while_the_controller_counts_it() {
    let mut nodes = nodes([("n1", true), ("n2", false), ("n3", true)]);
    let taint = Taint {
        key: "node.kubernetes.io/unreachable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    let down = NodeState {
        taints: vec![taint],
        ..NodeState::default()
    };
    nodes.insert("n2".into(), Arc::new(down));
    let agents = |on_n3: bool| {
        let n3 = on_n3.then(|| pod("n3", true, "t1"));
        let others = [pod("n1", true, "t1"), pod("n2", false, "t1")];
        others.into_iter().chain(n3).collect()
    };
    for desired in [2, 3] {
        let everywhere = state(&nodes, desired, agents(true));
        assert!(everywhere.is_ready_everywhere(), "{everywhere:?}");
        let lacking = state(&nodes, desired, agents(false));
        assert_eq!(lacking.missing_on, ["n3"], "{lacking:?}");
    }
}

#[test]
fn node_that_only_the_controller_knows_is_waited_for() {
    let known = nodes([("n1", true)]);
    let state = state(&known, 2, vec![pod("n1", true, "t1")]);
    assert_eq!(state.waiting_for(), ["1 of 2 nodes have no agent yet"]);
}

#[test]
fn old_agents_serve_while_new_ones_cannot_be_created_or_are_not_ready() {
    let nodes = nodes([("n1", true), ("n2", true)]);
    let old = vec![pod("n1", true, "t0"), pod("n2", true, "t0")];
    let blocked = AgentWorkload {
        cannot_create: Some("pods cannot be created: no PriorityClass".into()),
        ..of_nodes(2, old.clone())
    };
    let blocked = blocked.state(&nodes, "t1", MaxUnready::default());
    assert!(blocked.serves() && !blocked.is_ready_everywhere());
    assert_eq!(
        blocked.waiting_for()[0],
        "pods cannot be created: no PriorityClass"
    );

    let mut pods = old;
    pods.push(AgentPod {
        name: "new".into(),
        waits_for: Some("ErrImagePull".into()),
        ..pod("n1", false, "t1")
    });
    let pulling = state(&nodes, 2, pods);
    assert!(pulling.serves() && !pulling.is_ready_everywhere());
    assert_eq!(
        pulling.waiting_for(),
        [
            "node n1: agent new (ErrImagePull) is not ready",
            "node n2: agent a-n2 has an older configuration"
        ]
    );
    let silent = state(
        &nodes,
        2,
        vec![pod("n1", true, "t0"), pod("n2", false, "t0")],
    );
    assert!(!silent.serves());
}

#[test]
fn failure_to_create_pods_counts_until_one_is_created() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let said = |newest| creation_failure("Error creating: forbidden", at(5), newest);
    let expected = Some("agent pods cannot be created: forbidden".to_owned());
    assert_eq!(said(None), expected);
    assert_eq!(said(Some(at(5))), expected);
    assert_eq!(said(Some(at(6))), None);
}

#[test]
fn old_failure_is_not_told_once_every_node_has_a_pod() {
    let nodes = nodes([("n1", true)]);
    let workload = |template| AgentWorkload {
        cannot_create: Some("quota".into()),
        ..of_nodes(1, vec![pod("n1", false, template)])
    };
    let said = |template| {
        let state = workload(template).state(&nodes, "t1", MaxUnready::default());
        state.cannot_create
    };
    assert_eq!((said("t1"), said("t0")), (None, Some("quota".into())));
}

#[test]
fn tolerated_unready_nodes_do_not_block_and_are_named() {
    let nodes = nodes([("n1", true), ("n2", true), ("n3", true)]);
    let workload = of_nodes(3, vec![pod("n1", true, "t1"), pod("n2", false, "t1")]);
    let state = |max_unready| workload.state(&nodes, "t1", max_unready);
    assert!(!state(MaxUnready::Nodes(1)).is_ready_everywhere());
    assert!(!state(MaxUnready::Percent(66)).is_ready_everywhere());
    let allowed = state(MaxUnready::Percent(67));
    assert!(allowed.is_ready_everywhere());
    assert_eq!(
        allowed.waiting_for(),
        [
            "node n2: agent a-n2 is not ready",
            "1 of 3 nodes have no agent yet (n3)"
        ]
    );
}

#[test]
fn workload_without_any_ready_agent_is_never_ready() {
    let lame = vec![pod("n1", false, "t1")];
    let up = nodes([("n1", true)]);
    let workload = of_nodes(1, lame.clone());
    let all_may_be = workload.state(&up, "t1", MaxUnready::Percent(100));
    assert!(!all_may_be.is_ready_everywhere());
    let state = state(&nodes([("n1", false)]), 1, lame);
    assert_eq!(state.waiting_for(), ["no node has a ready agent"]);
}

#[test]
fn no_node_at_all_is_not_ready() {
    assert!(!state(&NodeStates::new(), 0, Vec::new()).is_ready_everywhere());
}
