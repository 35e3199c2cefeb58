//! Which mode is advised, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Node;
use otelagent_api::OtelAgent;
use otelagent_core::advise::{
    Advised, ClusterFact, ClusterFacts, DataPlane, Effect, ModeReason, ModeVerdict, NodeAddresses,
    PodSecurityLevel, PodsPerNode, RULES, Seen, SeenPod, Teams, advise,
};
use otelagent_core::build::{
    Environment, IpFamily, OLDEST_SERVER, PREFER_SAME_NODE, ServerVersion, validate,
};
use otelagent_core::mode_option::ModeOption;
use proptest::option::of as maybe;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{agent_with, environment};

/// An `OtelAgent` of which only the mode is open. It asks for nothing that is for platform namespaces alone.
pub(crate) fn draft() -> OtelAgent {
    agent_with("shop", "mode: NodeLocal, workloads: {}")
}

fn server(minor: u32) -> ServerVersion {
    ServerVersion { major: 1, minor }
}

/// A cluster in which every mode is possible, and nothing special is wanted.
pub(crate) fn ordinary() -> ClusterFacts {
    ClusterFacts {
        server: Some(server(37)),
        data_plane: Some(DataPlane::KubeProxy),
        internal_traffic_policy: None,
        same_node_preference: None,
        host_ports: Some(true),
        node_addresses: Some(NodeAddresses::Same(IpFamily::V4)),
        nodes: Some(10),
        nodes_without_agents: Some(0),
        pods_without_agents: Some(0),
        taken_ports: Some(BTreeSet::new()),
        platform_namespace: Some(true),
        agents_level: Some(PodSecurityLevel::Privileged),
        teams: Some(Teams::One),
        // As many sidecars reserve more CPU and less memory.
        pods_per_node: PodsPerNode::of(vec![1; 15]),
        busiest_node_percent: Some(100),
        on_host_network: Some(false),
        host_metadata: Some(false),
        deliver_without_own_agent: Some(false),
        own_agents: Some(false),
        last_spans: Some(false),
    }
}

/// These facts, changed so that the rule with this reason applies.
pub(crate) fn applying(reason: ModeReason, facts: ClusterFacts) -> ClusterFacts {
    let mut facts = facts;
    match reason {
        ModeReason::ServerTooOld => facts.server = Some(server(32)),
        ModeReason::NoSameNodeRouting => facts.server = Some(server(33)),
        ModeReason::NoPlatformNamespace => facts.platform_namespace = Some(false),
        ModeReason::NoNodeRunsAgents => facts.nodes_without_agents = facts.nodes,
        ModeReason::SomeNodesRunNoAgents => facts.pods_without_agents = Some(1),
        ModeReason::InternalTrafficPolicyIgnored => {
            facts.data_plane = Some(DataPlane::Other("example".into()));
            facts.internal_traffic_policy = Some(false);
        }
        ModeReason::SameNodePreferenceIgnored => facts.same_node_preference = Some(false),
        ModeReason::HostPortsNotMapped => facts.host_ports = Some(false),
        ModeReason::NamespaceNotPrivileged => {
            facts.agents_level = Some(PodSecurityLevel::Baseline);
        }
        ModeReason::NodePortsTaken => facts.taken_ports = Some(BTreeSet::from([4317])),
        ModeReason::NodeAddressesDiffer => facts.node_addresses = Some(NodeAddresses::Mixed),
        ModeReason::NodeAddressesAreIpv6 => {
            facts.node_addresses = Some(NodeAddresses::Same(IpFamily::V6));
        }
        ModeReason::HostMetadataWanted => facts.host_metadata = Some(true),
        ModeReason::DeliveryWithoutOwnAgent => facts.deliver_without_own_agent = Some(true),
        ModeReason::OwnAgentsWanted => facts.own_agents = Some(true),
        ModeReason::LastSpansMatter => facts.last_spans = Some(true),
        ModeReason::OnHostNetwork => facts.on_host_network = Some(true),
        ModeReason::SeveralTeams => facts.teams = Some(Teams::Several),
        ModeReason::SidecarsReserveMore => facts.pods_per_node = PodsPerNode::of(vec![30; 10]),
        ModeReason::SidecarsReserveLess => facts.pods_per_node = PodsPerNode::of(vec![1]),
        ModeReason::LoadIsUneven => facts.busiest_node_percent = Some(400),
        ModeReason::StaysOnTheNode
        | ModeReason::CrossesNodes
        | ModeReason::RestrictedIsEnough
        | ModeReason::UpdatesHaveGaps
        | ModeReason::ChangesWithThePod
        | ModeReason::OneAgentPerPod => {}
    }
    facts
}

fn advised(facts: &ClusterFacts) -> Advised {
    advise(facts, &draft(), &environment())
}

fn best(facts: &ClusterFacts) -> Option<ModeOption> {
    advised(facts).recommended().map(|best| best.option)
}

#[test]
fn ordinary_cluster_gets_the_mode_of_the_documentation() {
    let advised = advised(&ordinary());
    assert_eq!(best(&ordinary()), Some(ModeOption::NodeLocalRequire));
    assert!(advised.unknown.is_empty(), "{:?}", advised.unknown);
    let possible = advised
        .options
        .iter()
        .filter(|option| option.verdict != ModeVerdict::NotPossible);
    assert_eq!(possible.count(), ModeOption::ALL.len());
}

#[test]
fn recommended_mode_follows_what_a_cluster_lacks() {
    use ModeReason::{
        HostPortsNotMapped, InternalTrafficPolicyIgnored, NamespaceNotPrivileged,
        NoPlatformNamespace, NodePortsTaken, ServerTooOld,
    };
    for (lacks, expected) in [
        (
            &[InternalTrafficPolicyIgnored] as &[_],
            Some(ModeOption::HostPort),
        ),
        (
            &[InternalTrafficPolicyIgnored, HostPortsNotMapped],
            Some(ModeOption::HostNetwork),
        ),
        (
            &[InternalTrafficPolicyIgnored, NamespaceNotPrivileged],
            Some(ModeOption::Sidecar),
        ),
        (
            &[InternalTrafficPolicyIgnored, NodePortsTaken],
            Some(ModeOption::Sidecar),
        ),
        (
            &[NodePortsTaken, NamespaceNotPrivileged],
            Some(ModeOption::NodeLocalRequire),
        ),
        (&[NoPlatformNamespace], Some(ModeOption::Sidecar)),
        (&[ServerTooOld], None),
    ] {
        let facts = lacks
            .iter()
            .fold(ordinary(), |facts, reason| applying(*reason, facts));
        assert_eq!(best(&facts), expected, "{lacks:?}");
    }
}

#[test]
fn versions_in_sentences_are_those_that_are_compared() {
    for (reason, oldest) in [
        (ModeReason::ServerTooOld, OLDEST_SERVER),
        (ModeReason::NoSameNodeRouting, PREFER_SAME_NODE),
    ] {
        let sentence = reason.to_string();
        let named = format!("older than Kubernetes 1.{oldest}");
        assert!(sentence.contains(&named), "{sentence}");
    }
}

#[test]
fn wish_that_cannot_be_met_gives_way_and_is_named() {
    let wishes = [
        ModeReason::DeliveryWithoutOwnAgent,
        ModeReason::HostMetadataWanted,
    ];
    let facts = wishes
        .iter()
        .fold(ordinary(), |facts, reason| applying(*reason, facts));
    let advised = advised(&facts);
    let best = advised.recommended().unwrap();
    assert_eq!(best.option, ModeOption::NodeLocalRequire);
    let against: Vec<_> = best.with_effect(Effect::Against).collect();
    assert_eq!(against, [ModeReason::DeliveryWithoutOwnAgent]);
}

#[test]
fn draft_that_the_operator_would_refuse_makes_no_mode_possible() {
    let mut draft = draft();
    draft.spec.export.endpoint = "http://c.o.svc:4318/v1/traces".into();
    let advised = advise(&ordinary(), &draft, &environment());
    assert_eq!(advised.recommended(), None);
    let mut options = advised.options.iter();
    assert!(options.all(|option| option.problems[0].message.contains("/v1/traces")));
}

#[test]
fn cost_is_that_of_the_requests_that_are_rendered() {
    let facts = ClusterFacts {
        nodes: Some(100),
        nodes_without_agents: Some(0),
        pods_per_node: PodsPerNode::of(vec![40; 100]),
        ..ordinary()
    };
    let of = |draft: &OtelAgent, option: ModeOption| {
        let advised = advise(&facts, draft, &environment());
        let found = advised
            .options
            .into_iter()
            .find(|found| found.option == option);
        let cost = found.unwrap().cost.unwrap();
        (cost.agents, cost.all.cpu_millicores, cost.all.memory >> 20)
    };
    // As docs/sizing.md has it.
    assert_eq!(
        of(&draft(), ModeOption::NodeLocalRequire),
        (100, 5_000, 9_600)
    );
    assert_eq!(of(&draft(), ModeOption::Sidecar), (4_000, 200_000, 192_000));
    let sized = agent_with(
        "otelagent-system",
        "mode: NodeLocal, agent: {resources: {requests: {cpu: 100m, memory: 128Mi}}}",
    );
    assert_eq!(of(&sized, ModeOption::HostNetwork), (100, 10_000, 12_800));
}

/// What may be known of what forwards traffic, and of addresses.
fn network() -> impl Strategy<Value = ClusterFacts> {
    let flag = || maybe(any::<bool>());
    let data_plane = proptest::sample::select(vec![
        DataPlane::KubeProxy,
        DataPlane::CiliumWithKubeProxy,
        DataPlane::Cilium,
        DataPlane::Other("x".into()),
    ]);
    let addresses = proptest::sample::select(vec![
        NodeAddresses::Same(IpFamily::V4),
        NodeAddresses::Same(IpFamily::V6),
        NodeAddresses::Mixed,
    ]);
    let ports = proptest::sample::subsequence(vec![4317u16, 8888, 9], 0..3);
    let all = (
        maybe(data_plane),
        flag(),
        flag(),
        flag(),
        maybe(addresses),
        maybe(ports),
    );
    all.prop_map(|all| ClusterFacts {
        data_plane: all.0,
        internal_traffic_policy: all.1,
        same_node_preference: all.2,
        host_ports: all.3,
        node_addresses: all.4,
        taken_ports: all.5.map(|ports| ports.into_iter().collect()),
        ..ClusterFacts::default()
    })
}

/// Facts of which any may be unknown.
pub(crate) fn facts() -> impl Strategy<Value = ClusterFacts> {
    let flag = || maybe(any::<bool>());
    let level = proptest::sample::select(vec![
        PodSecurityLevel::Restricted,
        PodSecurityLevel::Baseline,
        PodSecurityLevel::Privileged,
    ]);
    let teams = proptest::sample::select(vec![Teams::One, Teams::Several]);
    let few = || maybe(0usize..5);
    let pods = maybe(proptest::collection::vec(0usize..50, 0..6));
    let of_cluster = (maybe(30u32..39), maybe(level), maybe(teams), flag(), flag());
    let nodes = (few(), few(), few(), pods, maybe(0u32..500));
    let wishes = (flag(), flag(), flag(), flag());
    (network(), of_cluster, nodes, wishes).prop_map(|(network, of_cluster, nodes, wishes)| {
        ClusterFacts {
            server: of_cluster.0.map(server),
            agents_level: of_cluster.1,
            teams: of_cluster.2,
            platform_namespace: of_cluster.3,
            on_host_network: of_cluster.4,
            nodes: nodes.0,
            nodes_without_agents: nodes.1,
            pods_without_agents: nodes.2,
            pods_per_node: nodes.3.and_then(PodsPerNode::of),
            busiest_node_percent: nodes.4,
            host_metadata: wishes.0,
            deliver_without_own_agent: wishes.1,
            own_agents: wishes.2,
            last_spans: wishes.3,
            ..network
        }
    })
}

/// The installation that these facts describe, with what is unknown as it is best.
pub(crate) fn installation(facts: &ClusterFacts) -> Environment {
    let mut environment = environment();
    environment.server = facts.server.unwrap_or(environment.server);
    if facts.platform_namespace == Some(false) {
        environment.platform_namespaces.clear();
    } else {
        environment.platform_namespaces.insert("shop".into());
    }
    environment
}

proptest! {
    // A case renders every mode.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_mode_gets_a_verdict_and_at_most_one_is_recommended(facts in facts()) {
        let advised = advised(&facts);
        let options: Vec<ModeOption> = advised.options.iter().map(|option| option.option).collect();
        prop_assert_eq!(options, ModeOption::ALL);
        let with = |verdict| advised.options.iter().filter(|option| option.verdict == verdict).count();
        let possible = with(ModeVerdict::Possible) + with(ModeVerdict::Recommended);
        prop_assert_eq!(with(ModeVerdict::Recommended), possible.min(1));
    }

    #[test]
    fn mode_is_possible_exactly_where_nothing_prevents_it(facts in facts()) {
        for option in advised(&facts).options {
            let is_prevented = option.with_effect(Effect::Prevents).next().is_some();
            prop_assert!(option.problems.is_empty());
            prop_assert_eq!(option.verdict == ModeVerdict::NotPossible, is_prevented);
            for reason in option.with_effect(Effect::Prevents) {
                prop_assert!(reason.remedy().is_some(), "{:?}", reason);
            }
        }
    }

    /// What is advised is accepted, by the operator's own rules.
    #[test]
    fn manifest_of_a_possible_mode_is_valid_in_the_installation_with_these_facts(facts in facts()) {
        let environment = installation(&facts);
        for option in advised(&facts).options {
            if option.verdict != ModeVerdict::NotPossible {
                prop_assert!(validate(&option.manifest, &environment).is_ok(), "{:?}", option.option);
                prop_assert_eq!(ModeOption::of(&option.manifest.spec), option.option);
            }
        }
    }

    /// A fact that becomes known makes nothing possible that was not, and takes itself off the list.
    #[test]
    fn known_fact_is_not_listed_as_unknown(facts in facts()) {
        let unknown = advised(&facts).unknown;
        let known = [
            (ClusterFact::Server, facts.server.is_some()),
            (ClusterFact::AgentsLevel, facts.agents_level.is_some()),
            (ClusterFact::TakenPorts, facts.taken_ports.is_some()),
            (ClusterFact::HostMetadata, facts.host_metadata.is_some()),
            (ClusterFact::Teams, facts.teams.is_some()),
        ];
        for (fact, is_known) in known {
            prop_assert!(!(is_known && unknown.contains(&fact)), "{:?}", fact);
        }
    }
}

/// The advice as text, with every sentence that it has.
fn shown(facts: &ClusterFacts) -> String {
    let advised = advised(facts);
    let mut text = String::new();
    for option in &advised.options {
        writeln!(text, "{}: {:?}", option.option, option.verdict).unwrap();
        for (effect, reason) in &option.reasons {
            writeln!(text, "  {effect:?}: {reason}").unwrap();
            if let (Effect::Prevents | Effect::Against, Some(remedy)) = (effect, reason.remedy()) {
                writeln!(text, "    {remedy}").unwrap();
            }
        }
        if let Some(cost) = option.cost {
            let (cpu, memory) = (cost.all.cpu_millicores, cost.all.memory >> 20);
            writeln!(text, "  {} agents: {cpu}m, {memory}Mi", cost.agents).unwrap();
        }
    }
    for fact in &advised.unknown {
        writeln!(text, "it is not known {fact}").unwrap();
    }
    text
}

#[test]
fn advice_reads_as_the_golden_texts() {
    insta::assert_snapshot!(
        "advice_where_nothing_is_known",
        shown(&ClusterFacts::default())
    );
    let everything = RULES
        .iter()
        .fold(ordinary(), |facts, rule| applying(rule.reason, facts));
    insta::assert_snapshot!("advice_where_everything_is_wrong", shown(&everything));
    let virtual_nodes = [
        ModeReason::SomeNodesRunNoAgents,
        ModeReason::SidecarsReserveMore,
    ]
    .iter()
    .fold(ordinary(), |facts, reason| applying(*reason, facts));
    insta::assert_snapshot!("advice_beside_virtual_nodes", shown(&virtual_nodes));
}

/// A node of the usual kind, changed.
fn node(name: &str, change: impl Fn(&mut Value)) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    });
    change(&mut node);
    serde_json::from_value(node).unwrap()
}

#[test]
fn facts_are_read_from_the_objects_of_a_cluster() {
    let taints = json!([{"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"}]);
    let nodes = [
        node("n1", |_| {}),
        node("n2", |_| {}),
        node("v1", |node| node["spec"]["taints"] = taints.clone()),
    ];
    let none = BTreeMap::new();
    let pod = |node: &'static str| SeenPod {
        namespace: "shop",
        namespace_labels: &none,
        labels: &none,
        node: Some(node),
        on_host_network: false,
        node_ports: BTreeSet::new(),
        is_own_agent: false,
    };
    let port = |port: u16, is_own_agent| SeenPod {
        namespace: "kube-system",
        node_ports: BTreeSet::from([port]),
        is_own_agent,
        ..pod("n1")
    };
    let pods = [
        pod("n1"),
        pod("n1"),
        pod("v1"),
        port(8888, false),
        port(4317, true),
    ];
    let system = BTreeSet::from(["kube-proxy-x1".to_owned(), "coredns".to_owned()]);
    let level = (PodSecurityLevel::LABEL.to_owned(), "baseline".to_owned());
    let namespace_labels = BTreeMap::from([level]);
    let seen = Seen {
        nodes: Some(&nodes),
        pods: Some(&pods),
        system: Some(&system),
        cilium: None,
        namespace_labels: Some(&namespace_labels),
    };
    let found = ClusterFacts::of(&seen, &draft(), &environment());
    let expected = ClusterFacts {
        server: Some(server(37)),
        data_plane: Some(DataPlane::KubeProxy),
        node_addresses: Some(NodeAddresses::Same(IpFamily::V4)),
        nodes: Some(3),
        nodes_without_agents: Some(1),
        pods_without_agents: Some(1),
        taken_ports: Some(BTreeSet::from([8888])),
        platform_namespace: Some(false),
        agents_level: Some(PodSecurityLevel::Baseline),
        pods_per_node: PodsPerNode::of(vec![2, 0, 1]),
        on_host_network: Some(false),
        ..ClusterFacts::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn facts_of_what_may_not_be_read_are_unknown() {
    let nothing = ClusterFacts::of(&Seen::default(), &draft(), &environment());
    let expected = ClusterFacts {
        server: Some(server(37)),
        platform_namespace: Some(false),
        ..ClusterFacts::default()
    };
    assert_eq!(nothing, expected);
}

#[test]
fn data_plane_is_recognized_by_what_runs_and_by_ciliums_settings() {
    let recognized = |names: &[&str], replaces: Option<&str>| {
        let names = names.iter().map(ToString::to_string).collect();
        let settings = replaces.map(|value| {
            let key = "kube-proxy-replacement".to_owned();
            BTreeMap::from([(key, value.to_owned())])
        });
        DataPlane::recognize(&names, settings.as_ref())
    };
    let replaced = Some(DataPlane::Cilium);
    assert_eq!(recognized(&["cilium"], Some("true")), replaced);
    assert_eq!(
        recognized(&["cilium", "kube-proxy"], Some("true")),
        replaced
    );
    let beside = Some(DataPlane::CiliumWithKubeProxy);
    assert_eq!(recognized(&["cilium", "kube-proxy"], Some("false")), beside);
    assert_eq!(recognized(&["cilium", "kube-proxy"], None), beside);
    let proxy = Some(DataPlane::KubeProxy);
    assert_eq!(recognized(&["kube-proxy", "calico-node"], None), proxy);
    assert_eq!(recognized(&["calico-node"], None), None);
    assert_eq!(recognized(&["cilium"], Some("false")), None);
}

#[test]
fn draft_for_platform_namespaces_alone_is_refused_elsewhere_in_every_mode() {
    let facts = applying(ModeReason::NoPlatformNamespace, ordinary());
    let draft = agent_with("shop", "mode: Sidecar, workloads: {namespaceSelector: {}}");
    let advised = advise(&facts, &draft, &environment());
    assert_eq!(advised.recommended(), None);
    let sidecar = advised.options.last().unwrap();
    assert_eq!(sidecar.problems[0].reason, "NotAPlatformNamespace");
}
