//! Pods of all kinds, counted.

use std::sync::LazyLock;

use super::*;
use crate::inject::Namespaces;
use otelagent_api::Selector;

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    let owned = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    owned.into()
}

/// Labels of a pod that this agent injected.
fn created(mode: &'static str, recipe: &'static str) -> [(&'static str, &'static str); 3] {
    [
        (names::LABEL_AGENT, "a.b"),
        (names::LABEL_MODE, mode),
        (names::LABEL_CONFIG, recipe),
    ]
}

fn controller(kind: &str, name: &str) -> Controller {
    Controller {
        kind: kind.into(),
        name: name.into(),
        api_version: "apps/v1".into(),
    }
}

static NONE: BTreeMap<String, String> = BTreeMap::new();
static PLAIN: LazyLock<Arc<str>> = LazyLock::new(|| "{}".into());
static ON_THE_HOST_NETWORK: LazyLock<Arc<str>> =
    LazyLock::new(|| r#"{"spec":{"hostNetwork":true}}"#.into());

fn pod<'a>(
    labels: &'a BTreeMap<String, String>,
    controller: Option<&'a Controller>,
) -> LivePod<'a> {
    LivePod {
        namespace: "shop",
        namespace_labels: &NONE,
        labels,
        name: "cart-7d4b9-x",
        node: Some("n1"),
        controller,
        terminating: false,
        ready: true,
        outline: &PLAIN,
    }
}

fn everything() -> Selection {
    Selection {
        namespaces: Namespaces::Labelled(Selector::default()),
        pods: Selector::default(),
    }
}

/// Every `OtelAgent` exists but those that are called gone.
fn exists(agent: &str, _: &str) -> bool {
    agent != "a.gone"
}

fn count_one<const N: usize>(pod_labels: [(&str, &str); N], terminating: bool) -> PodReport {
    let pod_labels = labels(pod_labels);
    let deployment = controller("Deployment", "cart");
    let pod = LivePod {
        terminating,
        ..pod(&pod_labels, Some(&deployment))
    };
    let coverage = covered_on("n1", &[Mode::HostPort, Mode::NodeLocal]);
    let all = everything();
    let tally = count("a.b", Some(&all), &[], &coverage, exists, [pod]);
    tally.report(Some((Mode::HostPort, "r2")), None)
}

/// The report on one Deployment's pod with this label and outline, while new pods get a sidecar.
fn missed(agent: Option<&str>, outline: &Arc<str>, selection: Option<&Selection>) -> PodReport {
    let labels = agent.map(|agent| (names::LABEL_AGENT.to_owned(), agent.to_owned()));
    let labels = labels.into_iter().collect();
    let deployment = controller("Deployment", "cart");
    let pod = LivePod {
        outline,
        ..pod(&labels, Some(&deployment))
    };
    let coverage = Coverage::default();
    let tally = count("a.b", selection, &[], &coverage, exists, [pod]);
    tally.report(None, Some(&Recipe::of_mode(Mode::Sidecar)))
}

#[test]
fn pod_of_a_deleted_agent_is_orphaned_for_the_one_that_selects_it() {
    let report = missed(Some("a.gone"), &PLAIN, Some(&everything()));
    assert_eq!((report.counts.missed, report.counts.orphaned), (1, 1));
    let cart = WorkloadRef::of_shop("Deployment", "cart");
    assert_eq!(report.orphaned.owners, BTreeMap::from([(cart.clone(), 1)]));
    assert_eq!(
        report.orphaned.agents,
        BTreeSet::from(["a.gone".to_owned()])
    );
    assert_eq!(report.to_restart(), BTreeSet::from([cart]));
    assert_eq!(missed(Some("a.gone"), &PLAIN, None).counts.missed, 0);
}

#[test]
fn pod_of_an_existing_agent_is_missed_by_the_one_that_takes_precedence() {
    let report = missed(Some("a.other"), &PLAIN, Some(&everything()));
    assert_eq!((report.counts.missed, report.counts.orphaned), (1, 0));
    assert_eq!(
        report.of_others.agents,
        BTreeSet::from(["a.other".to_owned()])
    );
    assert_eq!(report.to_restart().len(), 1);
}

#[test]
fn pod_that_cannot_be_injected_is_missed_with_its_reason_and_not_restarted() {
    for agent in [None, Some("a.gone"), Some("a.other")] {
        let report = missed(agent, &ON_THE_HOST_NETWORK, Some(&everything()));
        let counts = &report.counts;
        assert_eq!((counts.missed, counts.uninjectable), (1, 1));
        assert_eq!(counts.orphaned, i32::from(agent == Some("a.gone")));
        let cart = WorkloadRef::of_shop("Deployment", "cart");
        let expected = BTreeMap::from([(cart, (1, Reason::HostNetwork))]);
        assert_eq!(report.uninjectable, expected);
        assert_eq!(report.to_restart(), BTreeSet::new(), "{agent:?}");
    }
}

/// The owners to which a restart would do no good, of pods that HostPort was given to, with these outlines, while new
/// pods get a sidecar.
fn unrepeatable(
    outlines: &[&Arc<str>],
    selection: &Selection,
    missed: bool,
) -> BTreeMap<WorkloadRef, (usize, NotAgain)> {
    let (injected, bare) = (labels(created("HostPort", "r1")), BTreeMap::new());
    let deployment = controller("Deployment", "cart");
    let pods = outlines.iter().copied().map(|outline| LivePod {
        outline,
        ..pod(&injected, Some(&deployment))
    });
    let missed = missed.then(|| pod(&bare, Some(&deployment)));
    let coverage = covered_on("n1", &[Mode::HostPort]);
    let pods = pods.chain(missed);
    let tally = count("a.b", Some(selection), &[], &coverage, exists, pods);
    let recipe = Recipe::of_mode(Mode::Sidecar);
    let report = tally.report(Some((Mode::Sidecar, "r2")), Some(&recipe));
    assert_eq!(report.counts.stale, number(outlines.len()));
    let cart = WorkloadRef::of_shop("Deployment", "cart");
    assert_eq!(report.to_restart(), BTreeSet::from([cart]));
    report.unrepeatable
}

#[test]
fn owner_whose_new_pods_would_not_be_injected_is_told_with_the_reason() {
    let cart =
        |pods, why| BTreeMap::from([(WorkloadRef::of_shop("Deployment", "cart"), (pods, why))]);
    let (plain, on_host) = (&*PLAIN, &*ON_THE_HOST_NETWORK);
    let of = |outlines: &[&Arc<str>]| unrepeatable(outlines, &everything(), false);
    let why = NotAgain::Uninjectable(Reason::HostNetwork);
    assert_eq!(of(&[on_host, on_host]), cart(2, why));
    assert_eq!(of(&[plain]), BTreeMap::new());
    assert_eq!(of(&[on_host, plain]), BTreeMap::new(), "it is rolling");
    let with_missed = unrepeatable(&[on_host], &everything(), true);
    assert_eq!(with_missed, BTreeMap::new(), "the missed pod is repaired");

    let others = Selection {
        pods: Selector {
            match_labels: labels([("app", "till")]),
            ..Selector::default()
        },
        ..everything()
    };
    let unselected = unrepeatable(&[plain], &others, false);
    assert_eq!(unselected, cart(1, NotAgain::NotSelected));
}

#[test]
fn restart_is_in_vain_for_pods_that_are_only_where_no_agent_runs() {
    let injected = labels(created("HostPort", "r2"));
    let set = controller("StatefulSet", "db");
    let on = |nodes: &[&'static str], recipe| {
        let pods = nodes.iter().map(|node| LivePod {
            node: Some(*node),
            ..pod(&injected, Some(&set))
        });
        let coverage = Coverage {
            nodes: ["n1", "n2", "vk"].map(str::to_owned).into(),
            ..covered_on("n1", &[Mode::HostPort])
        };
        let all = everything();
        let tally = count("a.b", Some(&all), &[], &coverage, exists, pods);
        let report = tally.report(Some((Mode::HostPort, recipe)), None);
        let left_out = BTreeMap::from([("vk".to_owned(), "its taint".to_owned())]);
        let found = report.in_vain(&left_out).into_iter();
        found.map(|(_, why)| why).collect::<Vec<_>>()
    };
    let why = "its pods are where no agent runs, and new ones may be, too: node vk: its taint";
    assert_eq!(on(&["n1", "vk", "vk"], "r2"), [why]);
    assert!(on(&["n2", "vk"], "r2").is_empty(), "n2 may get an agent");
    assert!(on(&["n1"], "r2").is_empty(), "it is covered");
    assert!(on(&["vk"], "r3").is_empty(), "it is stale, too");
}

#[test]
fn owner_of_current_and_covered_pods_only_is_not_told() {
    let current = labels(created("Sidecar", "r2"));
    let deployment = controller("Deployment", "cart");
    let pod = pod(&current, Some(&deployment));
    let coverage = Coverage::default();
    let tally = count("a.b", None, &[], &coverage, exists, [pod]);
    let report = tally.report(Some((Mode::Sidecar, "r2")), None);
    assert_eq!(report.unrepeatable, BTreeMap::new());
}

#[test]
fn pod_with_the_serving_mode_and_recipe_is_current() {
    let counts = count_one(created("HostPort", "r2"), false).counts;
    assert_eq!(
        (counts.injected, counts.current, counts.stale, counts.missed),
        (1, 1, 0, 0)
    );
}

#[test]
fn pod_with_an_older_mode_or_recipe_is_stale() {
    for (mode, recipe) in [("NodeLocal", "r2"), ("HostPort", "r1")] {
        let report = count_one(created(mode, recipe), false);
        let counts = (report.counts.current, report.counts.stale);
        assert_eq!(counts, (0, 1), "{mode} {recipe}");
        let owner = WorkloadRef::of_shop("Deployment", "cart");
        assert_eq!(report.stale, BTreeMap::from([(owner, 1)]));
    }
}

#[test]
fn selected_pod_without_label_is_missed_unless_opted_out_or_terminating() {
    assert_eq!(count_one([], false).counts.missed, 1);
    let opted_out = (names::LABEL_INJECT, "false");
    assert_eq!(count_one([opted_out], false).counts.missed, 0);
    assert_eq!(count_one([], true).counts.missed, 0);
}

#[test]
fn owner_is_the_deployment_behind_the_replica_set() {
    let hashed = labels([("pod-template-hash", "7d4b9")]);
    let name = |controller: Option<&Controller>| owner(&pod(&hashed, controller)).to_string();
    let replica_set = controller("ReplicaSet", "cart-7d4b9");
    assert_eq!(name(Some(&replica_set)), "Deployment shop/cart");
    let stateful_set = controller("StatefulSet", "db");
    assert_eq!(name(Some(&stateful_set)), "StatefulSet shop/db");
    assert_eq!(name(None), "Pod shop/cart-7d4b9-x");
}

#[test]
fn owner_of_another_kind_is_named_and_is_not_the_operators_to_restart() {
    for (label, controller_kind, controller_name, expected) in [
        (
            ("rollouts-pod-template-hash", "x"),
            "ReplicaSet",
            "cart-x",
            "Rollout shop/cart",
        ),
        (
            ("deploymentconfig", "cart"),
            "ReplicationController",
            "cart-3",
            "DeploymentConfig shop/cart",
        ),
        (
            ("serving.knative.dev/service", "cart"),
            "ReplicaSet",
            "cart-00001-deployment-x",
            "Service shop/cart",
        ),
        (
            ("app", "cart"),
            "ReplicaSet",
            "cart-6d8f9c7b5d",
            "Workload shop/cart",
        ),
        (("app", "cart"), "Job", "cart-29834567", "CronJob shop/cart"),
    ] {
        let (labels, controller) = (
            labels([label]),
            controller(controller_kind, controller_name),
        );
        let found = owner(&pod(&labels, Some(&controller)));
        assert_eq!(found.to_string(), expected);
        assert!(!crate::restart::is_restartable(&found), "{found}");
    }
}

/// Agents of these modes are ready on one of two Ready nodes.
fn covered_on(node: &str, modes: &[Mode]) -> Coverage {
    let ready = BTreeSet::from([node.to_owned()]);
    Coverage {
        nodes: ["n1", "n2"].map(str::to_owned).into(),
        ready: modes.iter().map(|mode| (*mode, ready.clone())).collect(),
        anywhere: BTreeSet::new(),
    }
}

#[test]
fn pod_is_uncovered_where_no_agent_of_its_own_mode_is_ready() {
    let coverage = covered_on("n1", &[Mode::HostPort, Mode::NodeLocal]);
    assert!(coverage.covers(Mode::HostPort, "n1"));
    assert!(!coverage.covers(Mode::HostPort, "n2"), "on another node");
    assert!(!coverage.covers(Mode::HostNetwork, "n1"), "of another mode");
    assert!(coverage.covers(Mode::Sidecar, "n2"), "it has its own");
    assert!(coverage.covers(Mode::HostPort, "n3"), "down: no pod sends");
}

#[test]
fn any_nodes_agent_covers_pods_when_the_service_may_leave_the_node() {
    let mut coverage = covered_on("n1", &[Mode::NodeLocal]);
    coverage.anywhere.insert(Mode::NodeLocal);
    assert!(coverage.covers(Mode::NodeLocal, "n2"));
    coverage.ready.clear();
    assert!(!coverage.covers(Mode::NodeLocal, "n2"));
}

#[test]
fn uncovered_pod_counts_as_current_or_stale_too() {
    let injected = labels(created("HostPort", "r2"));
    let set = controller("StatefulSet", "db");
    let pods = [Some("n1"), Some("n2"), None].map(|node| LivePod {
        node,
        ..pod(&injected, Some(&set))
    });
    let coverage = covered_on("n1", &[Mode::HostPort]);
    let tally = count("a.b", None, &[], &coverage, exists, pods);
    let report = tally.report(Some((Mode::HostPort, "r2")), None);
    assert_eq!((report.counts.current, report.counts.uncovered), (3, 1));
    let owner = WorkloadRef::of_shop("StatefulSet", "db");
    assert_eq!(report.uncovered, BTreeMap::from([(owner, 1)]));
    assert_eq!(report.uncovered_nodes, BTreeSet::from(["n2".to_owned()]));
}

#[test]
fn stale_pods_of_the_serving_mode_are_outdated() {
    assert_eq!(
        count_one(created("HostPort", "r1"), false).outdated.len(),
        1
    );
    assert_eq!(
        count_one(created("NodeLocal", "r1"), false).outdated.len(),
        0
    );
}

#[test]
fn terminating_pod_still_uses_its_route() {
    let report = count_one(created("NodeLocal", "r1"), true);
    assert_eq!(report.users, BTreeMap::from([(Mode::NodeLocal, 1)]));
    assert_eq!(report.counts.injected, 0);
}

/// Pods of five workloads: current and stale, uncovered, missed, orphaned, and one that cannot be injected.
fn mixed() -> PodTally {
    let own = |mode, recipe| labels(created(mode, recipe));
    let of = |agent: &str| labels([(names::LABEL_AGENT, agent)]);
    let all = [
        ("cart", own("HostPort", "r2"), &*PLAIN),
        ("cart", own("HostPort", "r1"), &PLAIN),
        ("till", own("NodeLocal", "r1"), &PLAIN),
        ("old", labels([]), &PLAIN),
        ("old", of("a.gone"), &PLAIN),
        ("cni", of("a.gone"), &ON_THE_HOST_NETWORK),
        ("other", of("a.other"), &PLAIN),
    ];
    let deployments = all
        .iter()
        .map(|(name, _, _)| controller("Deployment", name));
    let deployments: Vec<Controller> = deployments.collect();
    let pods = all.iter().zip(&deployments);
    let pods = pods.map(|((_, labels, outline), deployment)| LivePod {
        outline,
        ..pod(labels, Some(deployment))
    });
    let coverage = covered_on("n1", &[Mode::HostPort]);
    count("a.b", Some(&everything()), &[], &coverage, exists, pods)
}

#[test]
fn workloads_add_up_to_the_counts_of_the_status() {
    let (serving, recipe) = (Some((Mode::HostPort, "r2")), Recipe::of_mode(Mode::Sidecar));
    let tally = mixed();
    let counts = tally.report(serving, Some(&recipe)).counts;
    let workloads = tally.workloads(serving, Some(&recipe), &BTreeMap::new());
    let sum = |of: fn(&WorkloadPods) -> usize| number(workloads.values().map(of).sum());
    assert_eq!(sum(WorkloadPods::injected), counts.injected);
    assert_eq!(sum(|pods| pods.current.unwrap()), counts.current);
    assert_eq!(sum(|pods| pods.stale().unwrap()), counts.stale);
    assert_eq!(sum(|pods| pods.missed.values().sum()), counts.missed);
    assert_eq!(sum(|pods| pods.orphaned), counts.orphaned);
    assert_eq!(sum(|pods| pods.uncovered), counts.uncovered);
    assert_eq!((counts.injected, counts.missed), (3, 4));
}

#[test]
fn workload_says_why_its_pods_were_missed_and_whether_a_restart_helps() {
    let serving = Some((Mode::HostPort, "r2"));
    let recipe = Recipe::of_mode(Mode::Sidecar);
    let workloads = mixed().workloads(serving, Some(&recipe), &BTreeMap::new());
    let of = |name| &workloads[&WorkloadRef::of_shop("Deployment", name)];
    let cart = of("cart");
    assert_eq!((cart.current, cart.stale()), (Some(1), Some(1)));
    assert_eq!(cart.restart, RestartAdvice::Helps);
    let why: Vec<String> = of("old").missed.keys().map(ToString::to_string).collect();
    let gone = "it was injected for OtelAgent a.gone, which does not exist";
    assert_eq!(why, ["no OtelAgent injected it", gone]);
    assert_eq!(of("old").restart, RestartAdvice::Helps);
    let RestartAdvice::InVain(why) = &of("cni").restart else {
        panic!("a restart that helps")
    };
    assert!(why.starts_with("it is on the host network"), "{why}");
    assert_eq!((of("cni").orphaned, of("till").uncovered), (1, 1));
    assert_eq!(of("till").restart, RestartAdvice::Helps);
    let as_it_is = Some((Mode::NodeLocal, "r1"));
    let workloads = mixed().workloads(as_it_is, Some(&recipe), &BTreeMap::new());
    let till = &workloads[&WorkloadRef::of_shop("Deployment", "till")];
    assert_eq!(till.restart, RestartAdvice::MayHelp);
}

#[test]
fn without_what_serves_nothing_is_current_or_stale() {
    let workloads = mixed().workloads(None, None, &BTreeMap::new());
    let cart = &workloads[&WorkloadRef::of_shop("Deployment", "cart")];
    assert_eq!((cart.injected(), cart.stale()), (2, None));
    assert_eq!(cart.restart, RestartAdvice::NotNeeded);
}
