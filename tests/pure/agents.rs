//! What the state of an agent workload says of its nodes.

use std::sync::Arc;

use otelagent_core::quantity::MaxUnready;
use otelagent_core::switching::{AgentPod, AgentWorkload, NodeState, WantedAgents};

#[test]
fn node_that_has_ended_its_agent_says_why() {
    let node = |name: &str| {
        let ready = NodeState {
            ready: true,
            ..NodeState::default()
        };
        (name.to_owned(), Arc::new(ready))
    };
    let agent = AgentPod {
        name: "a-n1".into(),
        node: Some("n1".into()),
        ready: true,
        template: Some("t1".into()),
        ..AgentPod::default()
    };
    let workload = AgentWorkload {
        observed: true,
        desired: 2,
        template: "t1".into(),
        pods: vec![agent],
        ended: ["n1", "n2"]
            .map(|node| (node.to_owned(), "Evicted: low on memory".to_owned()))
            .into(),
        ..AgentWorkload::default()
    };
    let nodes = ["n1", "n2"].map(node).into();
    let wanted = WantedAgents {
        template: "t1",
        configuration: None,
    };
    let state = workload.state(&nodes, wanted, MaxUnready::default());
    assert_eq!(
        state.waiting_for(),
        ["1 of 2 nodes have no agent yet (n2, whose last agent ended: Evicted: low on memory)"]
    );
}
