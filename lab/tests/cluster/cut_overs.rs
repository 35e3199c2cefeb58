//! Switches under load: in quick succession, with agent workloads deleted by hand, and with a node that loses power.
//! Everything acknowledged must arrive.

use std::thread::sleep;
use std::time::Duration;

use demo::account::{Account, settle};
use demo::apps::{self, App};
use demo::follow::Follower;
use demo::wait::{Seen, until};
use serde_json::{Value, json};

use super::{PATIENCE, World, condition, world};

/// How long telemetry may take to the ledger before it counts as lost.
const ARRIVAL: Duration = Duration::from_mins(3);

/// SDKs that neither run out of room nor of patience while a busy machine is slow.
const PATIENT: [(&str, &str); 3] = [
    ("OTEL_BSP_MAX_QUEUE_SIZE", "10000"),
    ("OTEL_BLRP_MAX_QUEUE_SIZE", "10000"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "60000"),
];

/// Applications that send all signals, and the account of what arrived.
pub(super) struct Load<'a> {
    world: &'a World,
    namespace: &'static str,
    follower: Follower,
}

impl<'a> Load<'a> {
    /// Both programs, two pods each, a hundred of each signal per second and pod.
    pub(super) fn start(world: &'a World, namespace: &'static str) -> Self {
        let apps = [App::rust_sdk(), App::go_sdk()].map(|mut app| {
            namespace.clone_into(&mut app.namespace);
            app.args.pop();
            let more = ["--rate=100", "--signals=traces,metrics,logs"];
            app.args.extend(more.map(str::to_owned));
            let env = PATIENT.map(|(name, value)| (name.to_owned(), value.to_owned()));
            app.env.extend(env);
            app
        });
        apps::apply(&world.kubectl, &apps).unwrap();
        let follower = Follower::new(&world.kubectl, namespace);
        until("every program has spoken", PATIENCE, || {
            let said = follower.said();
            let speaking = said.values().filter(|said| said.report.made > 0).count();
            Ok(Seen::check(speaking == 4, format!("{said:?}")))
        })
        .unwrap();
        Self {
            world,
            namespace,
            follower,
        }
    }

    pub(super) fn roll(&self) {
        apps::roll(&self.world.kubectl, self.namespace).unwrap();
    }

    /// The account so far.
    fn account(&self) -> Account {
        let (kubectl, before) = (&self.world.kubectl, Account::default());
        let account = settle(kubectl, self.namespace, &self.follower, before, ARRIVAL).unwrap();
        println!("{}: {account:?}", self.namespace);
        assert!(account.sent > 1000, "{account:?}");
        account
    }

    /// Everything that was acknowledged has arrived.
    pub(super) fn check_nothing_acknowledged_is_lost(&self) {
        let account = self.account();
        assert!(
            account.lost <= account.unacknowledged,
            "{account:?}\n{}",
            self.circumstances()
        );
    }

    /// Details for a failure: errors of the SDKs, and the state of the agents.
    fn circumstances(&self) -> String {
        let said = self.follower.said().into_iter();
        let complaints: Vec<_> = said.map(|(run, said)| (run, said.complaints)).collect();
        let objects = "daemonsets,pods,services,endpointslices,events";
        let namespace = ["--namespace=otelagent-system", "--output=wide"];
        let query = [&["get", objects], &namespace[..]].concat();
        let seen = self.world.kubectl.run(&query);
        let seen = seen.unwrap_or_else(|error| error.to_string());
        format!("{complaints:#?}\n{seen}")
    }
}

/// Waits until nothing but one agent workload exists and serves all pods.
fn until_settled(world: &World, name: &str, mode: &str, pods: u64, workload: &str) {
    world.until_status(name, "the end of the switch", |status| {
        status["mode"] == mode
            && condition(status, "Ready")["reason"] == "Serving"
            && condition(status, "Switching")["status"] == "False"
            && status["pods"]["byMode"] == json!({mode: pods})
    });
    world.until(
        "one agent workload",
        &["daemonsets", "--namespace=otelagent-system"],
        |list| super::names(list) == [workload],
    );
}

/// Waits until these DaemonSets exist and each has a ready agent on every node.
fn until_agents_are_back(world: &World, names: &[&str]) {
    let query = ["daemonsets", "--namespace=otelagent-system"];
    world.until("agents ready on every node", &query, |list| {
        let all = list["items"].as_array().into_iter().flatten();
        let ready = all.filter(|one| {
            let status = &one["status"];
            status["observedGeneration"] == one["metadata"]["generation"]
                && status["numberReady"].as_u64() > Some(0)
                && status["numberReady"] == status["desiredNumberScheduled"]
        });
        let ready: Vec<_> = ready
            .filter_map(|one| one["metadata"]["name"].as_str())
            .collect();
        names.iter().all(|name| ready.contains(name))
    });
}

fn switch(world: &World, name: &str, switches: usize) {
    for number in 0..switches {
        let mode = ["HostPort", "NodeLocal"][number % 2];
        world.patch(name, &json!({"spec": {"mode": mode}}));
        sleep(Duration::from_secs(1));
    }
}

#[test]
fn mode_changes_every_second_and_deleted_workloads_lose_nothing() {
    let Some(world) = world("switches under load") else {
        return;
    };
    world.agent("cut-overs", "cut-overs", "mode: NodeLocal");
    world.until_serving("cut-overs", "NodeLocal");
    let load = Load::start(&world, "cut-overs");
    switch(&world, "cut-overs", 60);
    let account = load.account();
    assert_eq!(
        account.lost,
        0,
        "nothing was rolled or removed: {account:?}\n{}",
        load.circumstances()
    );

    let both = ["cut-overs-node-local", "cut-overs-host-port"];
    let deletion = ["delete", "daemonset", "--namespace=otelagent-system"];
    let options = ["--wait=false", "--ignore-not-found"];
    world
        .kubectl
        .run(&[&deletion[..], &both, &options].concat())
        .unwrap();
    switch(&world, "cut-overs", 5);
    world.until_serving("cut-overs", "HostPort");
    // The programs still send by way of NodeLocal, whose agents were deleted, too. An SDK that ends gives a flush five
    // seconds, and does not count what it still retries then, so the programs end once the agents are back.
    until_agents_are_back(&world, &both);
    load.roll();
    until_settled(&world, "cut-overs", "HostPort", 4, "cut-overs-host-port");
    load.check_nothing_acknowledged_is_lost();
    world.end_namespace("cut-overs");
}

#[test]
fn node_port_is_handed_over_and_back_under_load() {
    let Some(world) = world("a node port handed over") else {
        return;
    };
    world.agent("hand", "hand", "mode: HostPort");
    world.until_serving("hand", "HostPort");
    let load = Load::start(&world, "hand");
    let ways = [
        ("HostNetwork", "hand-host-network"),
        ("HostPort", "hand-host-port"),
    ];
    for (mode, workload) in ways {
        world.patch("hand", &json!({"spec": {"mode": mode}}));
        world.until_serving("hand", mode);
        load.roll();
        until_settled(&world, "hand", mode, 4, workload);
    }
    load.check_nothing_acknowledged_is_lost();
    world.end_namespace("hand");
}

#[test]
fn node_losing_power_during_a_switch_does_not_block_it() {
    let Some(world) = world("a node without power") else {
        return;
    };
    let Some(bed) = world.bed("a node without power", "powering a node off") else {
        return;
    };
    world.agent("power", "power", "mode: NodeLocal");
    world.until_serving("power", "NodeLocal");
    let app = App {
        namespace: "power".into(),
        ..App::go_sdk()
    };
    apps::apply(&world.kubectl, &[app]).unwrap();

    let node = bed.node_names()[1].clone();
    world.patch("power", &json!({"spec": {"mode": "HostPort"}}));
    bed.stop_node(2).unwrap();
    world.until("the node down", &["node", &node], |node: &Value| {
        condition(&node["status"], "Ready")["status"] != "True"
    });
    world.until_serving("power", "HostPort");
    world.until_status("power", "the agent of the other node alone", |status| {
        status["agents"]["ready"] == 1
    });

    bed.start_node(2).unwrap();
    world.until_status("power", "agents on both nodes", |status| {
        status["agents"]["ready"] == 2
    });
    apps::roll(&world.kubectl, "power").unwrap();
    until_settled(&world, "power", "HostPort", 2, "power-host-port");
    world.end_namespace("power");
}
