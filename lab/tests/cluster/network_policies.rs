//! Enforced `NetworkPolicies`: what docs/security.md and `manifests/network` open is enough where everything else is denied,
//! in the namespaces of the platform, of the applications and of the upstream.
//!
//! The policies are read from the documentation. Only names, addresses and ports are replaced. They are enforced by
//! kube-router, on a bed of its own. It leaves open what was connected before a policy, and a new pod for a second. So
//! everything is closed before it starts, and what is to be shown open has been shown closed before, or connects anew.

use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use demo::account::{Account, settle};
use demo::apps::{self, App};
use demo::follow::Follower;
use demo::steps::PLATFORM;
use demo::wait::{Seen, until};
use demo::{ledger, repository};
use otelagent_test_support::manifests::{objects, text, yaml_blocks};
use serde_json::{Value, json};
use testbed::{Bed, Builder};

use super::delivering::until_delivering;
use super::programs::{self, RUST_GRPC};
use super::{PATIENCE, SharedCluster, World, cluster_with, condition, webhook, world_on};
use crate::test_scale::is_full;

/// An `OtelAgent` and the namespace that it selects, both called like this. All exist at once, so two that want the same port
/// of a node have different ones.
struct Case {
    name: &'static str,
    mode: &'static str,
    more: &'static str,
    /// What `Delivering` says while the upstream is closed.
    undelivered: &'static [&'static str],
}

const NODE_LOCAL: Case = Case {
    name: "closed-node-local",
    mode: "NodeLocal",
    more: "",
    undelivered: &["2 of 2 agents do not deliver: ", "node node1", "node node2"],
};
const HOST_PORT: Case = Case {
    name: "closed-host-port",
    mode: "HostPort",
    more: "",
    undelivered: NODE_LOCAL.undelivered,
};
/// A pod always admits its own node, so the agent that shares the upstream's node delivers.
const HOST_NETWORK: Case = Case {
    name: "closed-host-network",
    mode: "HostNetwork",
    more: ", ports: {grpc: 4327, http: 4328}",
    undelivered: &["1 of 2 agents do not deliver: ", "(node node"],
};
const SIDECAR: Case = Case {
    name: "closed-sidecar",
    mode: "Sidecar",
    more: "",
    undelivered: &["do not deliver: ", "pod closed-sidecar/"],
};
const CASES: [&Case; 4] = [&NODE_LOCAL, &HOST_PORT, &HOST_NETWORK, &SIDECAR];

/// How long programs send while everything is open.
const SENDING: Duration = Duration::from_secs(20);
/// How long telemetry may take to the ledger before it counts as lost.
const ARRIVAL: Duration = Duration::from_mins(3);

/// With `make test-full`: what enforces policies takes a minute to build, and the rest some minutes more.
#[test]
fn documented_policies_open_what_is_needed_and_a_missing_rule_is_named() {
    static SHARED: SharedCluster =
        SharedCluster::new(|| cluster_with("closed", Builder::with_network_policies));
    if !is_full() {
        return;
    }
    let Some(world) = world_on("enforced NetworkPolicies", &SHARED) else {
        return;
    };
    let bed = world.bed("enforced NetworkPolicies", "a bed that enforces policies");
    let bed = bed.expect("a bed of its own");
    let words = Words::new(bed);
    close(&world);
    operator_works_behind_its_policies(&world, bed);

    for case in CASES {
        programs::apply(&world, &words.of_case(case));
        let spec = format!("mode: {}{}", case.mode, case.more);
        world.agent(case.name, case.name, &spec);
    }
    for case in CASES {
        world.until_serving(case.name, case.mode);
    }
    let loads = CASES.map(|case| Load::start(&world, case.name));
    for load in &loads {
        load.until_acknowledged();
    }
    for case in CASES {
        let parts = [&["otlp_grpc: ", "refused"][..], case.undelivered].concat();
        until_delivering(&world, case.name, "False", &parts);
    }

    // The upstream admits everyone now, and agents' egress is still closed where policies apply to it.
    programs::apply(&world, &[words.read("upstream", "")]);
    until_delivering(&world, HOST_NETWORK.name, "True", &["2 of 2 agents"]);
    sleep(Duration::from_mins(1));
    for case in [&NODE_LOCAL, &HOST_PORT, &SIDECAR] {
        until_delivering(&world, case.name, "False", case.undelivered);
    }
    for case in CASES {
        is_served(&world, case);
    }

    programs::apply(&world, &words.upstream_rules());
    for case in CASES {
        until_delivering(&world, case.name, "True", &["deliver"]);
        is_served(&world, case);
    }
    all_arrives(&loads);
    strangers_are_refused(&world);
    for load in loads {
        load.check_nothing_acknowledged_is_lost();
    }
    webhook_works_behind_its_policy(&world, bed, &words);
    world.end_bed();
}

/// What the documentation says, in the words of this cluster.
struct Words {
    page: String,
    nodes: String,
}

impl Words {
    fn new(bed: &Bed) -> Self {
        let IpAddr::V4(node) = bed.node_ip(1) else {
            panic!("nodes with IPv4 addresses");
        };
        let [a, b, c, _] = node.octets();
        Self {
            page: text("docs/security.md"),
            nodes: format!("{a}.{b}.{c}.0/24"),
        }
    }

    /// A documented policy by its name, for the `OtelAgent` and the namespace of this name.
    fn read(&self, policy: &str, name: &str) -> Value {
        let line = format!("\n  name: {policy}\n");
        let blocks = yaml_blocks(&self.page);
        let block = blocks.iter().find(|block| block.contains(&line));
        let block = block.unwrap_or_else(|| panic!("docs/security.md has no policy {policy}"));
        let mut block = block
            .replace("otelagent-system.node", &format!("{PLATFORM}.{name}"))
            .replace("namespace: shop", &format!("namespace: {name}"))
            .replace("192.0.2.0/28", &self.nodes);
        if policy == "to-node-agents" && name == HOST_NETWORK.name {
            block = block.replace("4317", "4327").replace("4318", "4328");
        }
        let mut object = objects(&block).remove(0);
        if object["metadata"]["namespace"] == PLATFORM && !name.is_empty() {
            // Each OtelAgent has its own.
            object["metadata"]["name"] = format!("{name}.{policy}").into();
        }
        object
    }

    /// What is documented for one mode, but that agents may reach the upstream.
    fn of_case(&self, case: &Case) -> Vec<Value> {
        let name = case.name;
        match case.mode {
            "Sidecar" => vec![without_upstream(self.read("sidecars", name))],
            // No policy applies to agents on the nodes' network.
            "HostNetwork" => vec![self.read("to-node-agents", name)],
            _ => vec![
                self.read("to-node-agents", name),
                self.read("node-agents", name),
                without_upstream(self.read("node-agents-egress", name)),
            ],
        }
    }

    /// The policies by which agents may reach the upstream.
    fn upstream_rules(&self) -> Vec<Value> {
        let [node_local, host_port] = [&NODE_LOCAL, &HOST_PORT].map(|case| case.name);
        vec![
            self.read("node-agents-egress", node_local),
            self.read("node-agents-egress", host_port),
            self.read("sidecars", SIDECAR.name),
        ]
    }
}

/// The policy without the rule for the upstream.
fn without_upstream(mut policy: Value) -> Value {
    let rules = policy["spec"]["egress"].as_array_mut().unwrap();
    let before = rules.len();
    rules.retain(|rule| !rule.to_string().contains(ledger::NAMESPACE));
    assert_eq!(rules.len(), before - 1, "{rules:?}");
    policy
}

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// Denies everything in every namespace but what is not ours to document: the way from the upstream to the ledger, and from
/// the API server, by which this test asks the ledger.
fn close(world: &World) {
    let everything = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let behind = json!({
        "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": {}}]}, {"ports": [{"port": "query"}]}],
        "egress": [
            {"to": [{"podSelector": {}}]},
            {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
        ],
    });
    let mut all = vec![policy(ledger::NAMESPACE, "behind-the-upstream", &behind)];
    for namespace in CASES.map(|case| case.name) {
        all.push(programs::namespace(namespace, true));
    }
    let closed = [PLATFORM, ledger::NAMESPACE].into_iter();
    let closed = closed.chain(CASES.map(|case| case.name));
    all.extend(closed.map(|namespace| policy(namespace, "default-deny", &everything)));
    programs::apply(world, &all);
    for namespace in CASES.map(|case| case.name) {
        let label = ["label", "namespace", namespace, "telemetry=otelagent"];
        world.kubectl.run(&label).unwrap();
    }
}

/// New pods of the operator and of the upstream, which connect anew once they are closed: the API server is restarted.
fn operator_works_behind_its_policies(world: &World, bed: &Bed) {
    let policies = repository().join("manifests/network");
    world.kubectl.apply_kustomization(&policies).unwrap();
    for namespace in [PLATFORM, ledger::NAMESPACE] {
        apps::roll(&world.kubectl, namespace).unwrap();
    }
    restart_api_server(world, bed);
}

/// Every connection to it ends, and those that follow are new.
fn restart_api_server(world: &World, bed: &Bed) {
    // Until the newest pods are closed.
    sleep(Duration::from_secs(10));
    bed.stop_apiserver().unwrap();
    bed.start_apiserver().unwrap();
    // Kinds that are no part of the server are served a little later.
    until("the kind OtelAgent served", PATIENCE, || {
        let list = ["get", "otelagents", "--all-namespaces"];
        world.kubectl.run(&list).map(Seen::Done)
    })
    .unwrap();
}

/// Applications of one namespace, and the account of what arrived.
struct Load<'a> {
    world: &'a World,
    namespace: &'static str,
    follower: Follower,
}

impl<'a> Load<'a> {
    /// Two programs, two pods each, twenty of each signal per second and pod.
    fn start(world: &'a World, namespace: &'static str) -> Self {
        let apps = [App::rust_sdk(), App::go_sdk()].map(|mut app| {
            namespace.clone_into(&mut app.namespace);
            app.args.push("--signals=traces,metrics,logs".to_owned());
            app
        });
        apps::apply(&world.kubectl, &apps).unwrap();
        Self {
            world,
            namespace,
            follower: Follower::new(&world.kubectl, namespace),
        }
    }

    /// Waits until agents have taken spans and log records of every pod.
    fn until_acknowledged(&self) {
        let what = format!("agents that take what {} sends", self.namespace);
        until(&what, PATIENCE, || {
            let said = self.follower.said();
            let taken = said.values().filter(|said| {
                let report = said.report;
                report.exported > 0 && report.exported_logs > 0
            });
            Ok(Seen::check(taken.count() == 4, format!("{said:?}")))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    }

    fn account(&self, before: Account, patience: Duration) -> Account {
        let kubectl = &self.world.kubectl;
        settle(kubectl, self.namespace, &self.follower, before, patience).unwrap()
    }

    /// Everything that an agent acknowledged has arrived.
    fn check_nothing_acknowledged_is_lost(&self) {
        let has_all = |account: &Account| account.lost <= account.unacknowledged;
        let mut account = self.account(Account::default(), ARRIVAL / 10);
        if !has_all(&account) {
            account = self.account(Account::default(), ARRIVAL);
        }
        let (namespace, said) = (self.namespace, self.follower.said());
        println!("{namespace}: {account:?}");
        assert!(account.sent > 1000, "{namespace}: {account:?}");
        assert!(has_all(&account), "{namespace}: {account:?} {said:?}");
    }
}

/// Nothing is lost of what is sent while everything is open. Before, SDKs may have given up on what no agent took, since a
/// new pod is admitted only once the enforcer knows its address.
fn all_arrives(loads: &[Load<'_>]) {
    let account = |load: &Load<'_>| load.account(Account::default(), SENDING);
    let before: Vec<Account> = loads.iter().map(account).collect();
    sleep(SENDING);
    for (load, before) in loads.iter().zip(before) {
        let more = load.account(before, ARRIVAL) - before;
        println!("{} while open: {more:?}", load.namespace);
        assert!(more.sent > 1000, "{}: {more:?}", load.namespace);
        assert_eq!(more.lost, 0, "{}: {more:?}", load.namespace);
    }
}

/// New pods are served, and no pod was missed.
fn is_served(world: &World, case: &Case) {
    let agent = world.get(case.name);
    let status = &agent["status"];
    assert_eq!(status["mode"], case.mode, "{status:#}");
    for kind in ["Ready", "Injected"] {
        assert_eq!(condition(status, kind)["status"], "True", "{status:#}");
    }
    assert_eq!(status["pods"]["current"], 4, "{status:#}");
}

/// Pods of a namespace that no policy of agents admits. Nothing else holds them up.
fn strangers_are_refused(world: &World) {
    let service = format!("http://{}.{PLATFORM}.svc:4317", NODE_LOCAL.name);
    let endpoints = [
        ("stranger-node-local", service.as_str()),
        ("stranger-host-port", "http://$(HOST):4317"),
    ];
    programs::apply(world, &[programs::namespace("strangers", true)]);
    let pods = endpoints.map(|(name, endpoint)| {
        let mut container = RUST_GRPC.container(&["--count=3"]);
        let host =
            json!({"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}});
        let endpoint = json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": endpoint});
        let env = container["env"].as_array_mut().unwrap();
        env.extend([host, endpoint]);
        programs::pod("strangers", name, &programs::spec(&[container]))
    });
    programs::apply(world, &pods);
    for (name, _) in endpoints {
        world.until("its end", &["pod", name, "--namespace=strangers"], |pod| {
            pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
        });
        let report = apps::report(&world.kubectl, "strangers", name).unwrap();
        let report = report.expect("a report");
        assert_eq!((report.made, report.exported), (3, 0), "{name}");
    }
    world.end_namespace("strangers");
}

/// With the policy for those who know the addresses of the control plane.
fn webhook_works_behind_its_policy(world: &World, bed: &Bed, words: &Words) {
    let endpoints = ["endpointslice", "kubernetes", "--namespace=default"];
    let endpoints: Value = world.kubectl.get(&endpoints).unwrap();
    let address = endpoints["endpoints"][0]["addresses"][0].as_str().unwrap();
    let mut patch = words.read("otelagent-webhook", "");
    patch["spec"]["ingress"][0]["from"] = json!([{"ipBlock": {"cidr": format!("{address}/32")}}]);
    let object = "networkpolicy/otelagent-webhook";
    world.kubectl.patch(PLATFORM, object, &patch).unwrap();
    webhook::install(world);
    restart_api_server(world, bed);
    programs::apply(world, &[programs::namespace("hooked", true)]);
    world.agent("hooked", "hooked", "mode: Sidecar");
    world.until_serving("hooked", "Sidecar");
    webhook::create_injected(world);
}
