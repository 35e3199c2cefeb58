//! A preview says what the operator then does, and what would keep it from that.

use std::fmt::Write as _;

use otelagent_api::OtelAgentSpec;
use otelagent_core::advise::{ClusterFacts, Effect, ModeReason, advise};
use otelagent_core::build::{NodePorts, PortUser};
use otelagent_core::inject::Selection;
use otelagent_core::mode_option::ModeOption::{self, HostNetwork, HostPort};
use otelagent_core::pods::Controller;
use otelagent_core::preview::{
    Course, Gap, ObjectName, Obstacle, Preview, PreviewInput, RestartEffect, preview,
};
use proptest::prelude::*;

use super::super::advise::{facts, installation};
use super::*;

const SELECTED: &str = "workloads: {namespaceSelector: {}}";

/// What else a preview is made from.
struct Circumstances<'a> {
    facts: ClusterFacts,
    port_users: &'a [PortUser],
    engines: Engines<'a>,
    refusal: Option<&'a str>,
}

impl Default for Circumstances<'_> {
    fn default() -> Self {
        Self {
            facts: ClusterFacts::default(),
            port_users: &[],
            engines: Ok(&PolicyEngine),
            refusal: None,
        }
    }
}

fn previewed_in(
    observation: &Observation<'_>,
    before: &OtelAgentSpec,
    environment: &Environment,
    circumstances: &Circumstances<'_>,
) -> Preview {
    preview(&PreviewInput {
        observation,
        before: Some(before),
        environment,
        canary_namespace: "otelagent-canary",
        installation: None,
        engines: &circumstances.engines,
        facts: &circumstances.facts,
        port_users: circumstances.port_users,
        refusal: circumstances.refusal,
    })
}

impl World {
    /// Settled in one mode, with pods that were created in it.
    fn settled(mode: Mode, pods: usize) -> Self {
        let mut world = Self::of(mode);
        settle(&mut world, |_, _, _| {});
        (0..pods).for_each(|_| world.create_pod());
        settle(&mut world, |_, _, _| {});
        world
    }

    fn previewed(&self, changed: &OtelAgent, circumstances: &Circumstances<'_>) -> Preview {
        let observation = Observation {
            agent: changed,
            ..self.observe()
        };
        previewed_in(
            &observation,
            &self.agent.spec,
            &self.environment,
            circumstances,
        )
    }

    fn course(&self, changed: &OtelAgent) -> Course {
        let preview = self.previewed(changed, &Circumstances::default());
        preview.course.expect("a course")
    }

    /// Its objects as a preview names them.
    fn names(&self) -> BTreeMap<ObjectName, Value> {
        let objects = self.objects.iter().map(|((kind, name), object)| {
            let is_cluster_scoped = ADMISSION_KINDS.contains(kind);
            let name = ObjectName {
                kind: (*kind).to_owned(),
                namespace: (!is_cluster_scoped).then(|| "otelagent-system".to_owned()),
                name: name.clone(),
            };
            (name, object.clone())
        });
        objects.collect()
    }
}

#[test]
fn preview_of_the_spec_that_stands_has_no_change() {
    for mode in Mode::ALL {
        for pods in [0, 3] {
            let world = World::settled(mode, pods);
            let preview = world.previewed(&world.agent, &Circumstances::default());
            let course = preview.course.as_ref().expect("a course");
            assert!(course.is_empty(), "{mode}: {course:?}");
            assert!(course.staying.is_empty(), "{mode}: {course:?}");
            assert_eq!(preview.obstacles, [], "{mode}");
            assert_eq!(preview.from, Some(preview.to));
        }
    }
}

/// A change of the spec, small or large.
fn changed() -> impl Strategy<Value = OtelAgent> {
    let mode = proptest::sample::select(Mode::ALL.to_vec());
    let rest = proptest::sample::select(vec![
        SELECTED,
        "workloads: {namespaceSelector: {}, flushInterval: 2s}",
        "workloads: {namespaceSelector: {}, startGate: {type: Wait}}",
        "workloads: {namespaceSelector: {}}, batch: {flushInterval: 3s}",
        "workloads: {namespaceSelector: {}}, nodeLocal: {routing: Prefer}",
        "workloads: {namespaceSelector: {}}, buffer: {disk: {size: 1Gi}}",
        "switchover: {holdOld: 5m}",
    ]);
    (mode, rest).prop_map(|(mode, rest)| agent(mode, rest))
}

proptest! {
    // A case makes dozens of reconciles.
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The objects that a preview names are exactly those that the reconciles then make, change and remove.
    #[test]
    fn operator_does_what_the_preview_says(from in 0usize..4, pods in 0usize..3, once in changed(), then in changed()) {
        let mut world = World::settled(Mode::ALL[from], pods);
        // A first change may leave pods on an older route.
        for change in [once, then] {
            let course = world.course(&change);
            let before = world.names();
            world.change(&change);
            settle(&mut world, |_, _, _| {});
            let after = world.names();
            let current = world.active();
            let stale = world.pods.iter().filter(|labels| {
                labels.get(names::LABEL_MODE) != current.mode.map(|mode| mode.to_string()).as_ref()
                    || labels.get(names::LABEL_CONFIG) != current.recipe.as_ref()
            });
            let stale = if course.changes_new_pods { stale.count() } else { 0 };
            let mut end = world.clone();
            end.pods.clear();
            settle(&mut end, |_, _, _| {});
            let end = end.names();
            let named = |all: &BTreeMap<ObjectName, Value>, is: &dyn Fn(&ObjectName) -> bool| {
                all.keys().filter(|name| is(name)).cloned().collect::<Vec<_>>()
            };
            let objects = &course.objects;
            prop_assert_eq!(&objects.made, &named(&after, &|name| !before.contains_key(name)));
            prop_assert_eq!(&objects.changed, &named(&after, &|name| before.get(name).is_some_and(|old| *old != after[name])));
            prop_assert_eq!(&objects.removed, &named(&before, &|name| !after.contains_key(name)));
            prop_assert_eq!(&objects.kept, &named(&after, &|name| !end.contains_key(name)));
            let staying: usize = course.staying.iter().map(|staying| staying.pods).sum();
            prop_assert_eq!(staying, stale);
        }
    }

    /// What a preview calls impossible is never advised, and the other way round.
    #[test]
    fn preview_prevents_exactly_what_is_not_advised(facts in facts(), from in 0usize..4) {
        let mut world = World::settled(Mode::ALL[from], 1);
        world.environment = installation(&facts);
        for option in advise(&facts, &world.agent, &world.environment).options {
            let known = Circumstances { facts: facts.clone(), ..Circumstances::default() };
            let preview = world.previewed(&option.manifest, &known);
            let prevented = preview.obstacles.iter().filter_map(|obstacle| match obstacle {
                Obstacle::Prevented(reason) => Some(*reason),
                _ => None,
            });
            let prevented: Vec<ModeReason> = prevented.collect();
            let advised: Vec<ModeReason> = option.with_effect(Effect::Prevents).collect();
            let is_refused = preview.course.is_none();
            if !is_refused {
                prop_assert_eq!(&prevented, &advised, "{}", option.option);
            }
            prop_assert_eq!(preview.is_possible(), advised.is_empty() && option.problems.is_empty(), "{}: {:?}", option.option, preview.obstacles);
        }
    }
}

#[test]
fn switch_names_the_measured_losses_of_what_it_contains() {
    let gap = |from, to| Gap { from, to };
    let world = World::settled(Mode::HostPort, 1);
    let gaps = |rest: &str, mode| world.course(&agent(mode, rest)).gaps;
    assert_eq!(
        gaps(SELECTED, Mode::HostNetwork),
        [gap(HostPort, HostNetwork)]
    );
    // A changed configuration also updates the agents that run.
    let with_more = "workloads: {namespaceSelector: {}}, batch: {flushInterval: 3s}";
    assert_eq!(
        gaps(with_more, Mode::HostNetwork),
        [gap(HostPort, HostPort), gap(HostPort, HostNetwork)]
    );
    assert!(gaps(with_more, Mode::HostPort)[0].loses());
    let node_local = World::settled(Mode::NodeLocal, 1);
    let prefer = agent(
        Mode::NodeLocal,
        "workloads: {namespaceSelector: {}}, nodeLocal: {routing: Prefer}",
    );
    let expected = [gap(
        ModeOption::NodeLocalRequire,
        ModeOption::NodeLocalPrefer,
    )];
    assert_eq!(node_local.course(&prefer).gaps, expected);
}

/// The pods of a shop, as they are counted for an `OtelAgent`.
fn shop(world: &World, selection: Option<&Selection>) -> otelagent_core::pods::PodTally {
    let active = world.active();
    let agent = names::agent_label("otelagent-system", "node");
    let labels = |recipe: &str, inject: &str| {
        BTreeMap::from([
            (names::LABEL_AGENT.to_owned(), agent.clone()),
            (
                names::LABEL_MODE.to_owned(),
                active.mode.unwrap().to_string(),
            ),
            (names::LABEL_CONFIG.to_owned(), recipe.to_owned()),
            (names::LABEL_INJECT.to_owned(), inject.to_owned()),
        ])
    };
    let recipe = active.recipe.clone().unwrap();
    let of = |kind: &str, name: &str, opted_out: bool| {
        let controller = Controller {
            api_version: if kind == "Job" { "batch/v1" } else { "apps/v1" }.into(),
            kind: kind.into(),
            name: name.into(),
        };
        (
            controller,
            labels(&recipe, if opted_out { "false" } else { "true" }),
        )
    };
    let pods = [
        of("StatefulSet", "cart", false),
        of("StatefulSet", "cart", false),
        of("Job", "report", false),
        of("DaemonSet", "left", true),
    ];
    let (none, outline) = (BTreeMap::new(), "{}".into());
    let live = pods.iter().map(|(controller, labels)| LivePod {
        namespace: "shop",
        namespace_labels: &none,
        labels,
        name: "app",
        node: Some(NODE),
        controller: Some(controller),
        terminating: false,
        ready: true,
        outline: &outline,
    });
    count(
        &agent,
        selection,
        &[],
        &Coverage::default(),
        |_, _| true,
        live,
    )
}

#[test]
fn staying_pods_are_named_with_what_a_restart_does() {
    let world = World::settled(Mode::NodeLocal, 1);
    let changed = agent(Mode::Sidecar, SELECTED);
    let valid = validate(&changed, &world.environment).unwrap();
    let observation = Observation {
        agent: &changed,
        pods: shop(&world, valid.selection.as_ref()),
        ..world.observe()
    };
    let circumstances = Circumstances::default();
    let preview = previewed_in(
        &observation,
        &world.agent.spec,
        &world.environment,
        &circumstances,
    );
    let staying = preview.course.unwrap().staying;
    let named: Vec<_> = staying
        .iter()
        .map(|staying| {
            (
                staying.owner.to_string(),
                staying.pods,
                staying.restart.clone(),
            )
        })
        .collect();
    let in_vain = "its new pods would not be injected: this OtelAgent does not select it any more";
    let expected = [
        (
            "DaemonSet shop/left",
            1,
            RestartEffect::InVain(in_vain.into()),
        ),
        ("Job shop/report", 1, RestartEffect::CannotRestart),
        ("StatefulSet shop/cart", 2, RestartEffect::Moves),
    ];
    let expected = expected.map(|(owner, pods, restart)| (owner.to_owned(), pods, restart));
    assert_eq!(named, expected);
}

/// What a preview of a switch to a mode names, in these circumstances.
fn obstacles(mode: Mode, circumstances: &Circumstances<'_>) -> Vec<Obstacle> {
    let world = World::settled(Mode::NodeLocal, 1);
    let preview = world.previewed(&agent(mode, SELECTED), circumstances);
    preview.obstacles
}

#[test]
fn obstacle_is_named_with_what_to_do_and_nothing_else_is() {
    let other = PortUser {
        created: "2026-01-01T00:00:00Z".into(),
        namespace: "x".into(),
        name: "a".into(),
        wanted: NodePorts::wanted(&agent(Mode::HostPort, SELECTED).spec),
        running: Vec::new(),
    };
    let with_ports = Circumstances {
        port_users: &[other],
        ..Circumstances::default()
    };
    let [Obstacle::Refused(problem)] = &obstacles(Mode::HostPort, &with_ports)[..] else {
        panic!("a refusal");
    };
    assert_eq!(problem.reason, "PortInUse");
    assert_eq!(obstacles(Mode::Sidecar, &with_ports), []);

    let without_engine = Circumstances {
        engines: Err(("WebhookNotInstalled", "install it".into())),
        ..Circumstances::default()
    };
    let expected = [Obstacle::NotInjected(
        "WebhookNotInstalled",
        "install it".into(),
    )];
    assert_eq!(obstacles(Mode::Sidecar, &without_engine), expected);

    let refused = Circumstances {
        refusal: Some("ports cannot change"),
        ..Circumstances::default()
    };
    let expected = [Obstacle::RefusedByServer("ports cannot change".into())];
    assert_eq!(obstacles(Mode::Sidecar, &refused), expected);
}

#[test]
fn object_of_somebody_else_with_a_needed_name_is_a_blocker() {
    let world = World::settled(Mode::Sidecar, 1);
    let changed = agent(Mode::NodeLocal, SELECTED);
    let foreign =
        serde_json::json!({"metadata": {"name": "node", "namespace": "otelagent-system"}});
    let observation = Observation {
        agent: &changed,
        service: Some(foreign),
        ..world.observe()
    };
    let (before, none) = (&world.agent.spec, Circumstances::default());
    let preview = previewed_in(&observation, before, &world.environment, &none);
    let taken = Obstacle::NameTaken {
        kind: "Service".into(),
        name: "node".into(),
    };
    assert_eq!(preview.obstacles, [taken]);
}

#[test]
fn change_of_a_running_mode_waits_only_for_agents_that_are_not_ready() {
    let world = World::settled(Mode::NodeLocal, 1);
    let changed = agent(
        Mode::NodeLocal,
        "workloads: {namespaceSelector: {}}, batch: {flushInterval: 3s}",
    );
    let none = Circumstances::default();
    assert_eq!(world.previewed(&changed, &none).obstacles, []);
    let mut observation = Observation {
        agent: &changed,
        ..world.observe()
    };
    let found = observation.workloads.get_mut(&Mode::NodeLocal).unwrap();
    found.workload.pods[0].ready = false;
    let preview = previewed_in(&observation, &world.agent.spec, &world.environment, &none);
    let [Obstacle::AgentsNotReady(why)] = &preview.obstacles[..] else {
        panic!("{:?}", preview.obstacles);
    };
    assert!(why.contains("node n1"), "{why}");
    assert!(preview.is_possible());
}

#[test]
fn mode_whose_agents_no_node_takes_would_never_serve() {
    let world = World::settled(Mode::Sidecar, 1);
    let changed = agent(
        Mode::NodeLocal,
        "workloads: {namespaceSelector: {}}, agent: {nodeSelector: {pool: none}}",
    );
    let preview = world.previewed(&changed, &Circumstances::default());
    let [Obstacle::NeverServes(why)] = &preview.obstacles[..] else {
        panic!("{:?}", preview.obstacles);
    };
    assert!(why.contains("no node matches"), "{why}");
    // Nothing is known of nodes: nothing is said of them.
    let observation = Observation {
        agent: &changed,
        nodes: Arc::default(),
        ..world.observe()
    };
    let none = Circumstances::default();
    let preview = previewed_in(&observation, &world.agent.spec, &world.environment, &none);
    assert_eq!(preview.obstacles, []);
}

/// A preview with every sentence that it has.
fn shown(preview: &Preview) -> String {
    let from = preview
        .from
        .map_or_else(|| "nothing".to_owned(), |from| from.to_string());
    let mut text = format!("from {from} to {}\n", preview.to);
    for obstacle in &preview.obstacles {
        let kind = if obstacle.is_blocker() {
            "blocker"
        } else {
            "warning"
        };
        writeln!(text, "{kind}: {obstacle}").unwrap();
    }
    for fact in &preview.unknown {
        writeln!(text, "it is not known {fact}").unwrap();
    }
    let Some(course) = &preview.course else {
        return text;
    };
    let objects = &course.objects;
    for (what, all) in [
        ("made", &objects.made),
        ("changed", &objects.changed),
        ("removed", &objects.removed),
        ("kept while in use", &objects.kept),
    ] {
        for name in all {
            writeln!(text, "{what}: {name}").unwrap();
        }
    }
    for staying in &course.staying {
        writeln!(text, "on the old route: {staying}").unwrap();
    }
    for gap in &course.gaps {
        writeln!(text, "{gap}").unwrap();
    }
    writeln!(text, "old route kept for {:?} more", course.hold_old).unwrap();
    text
}

#[test]
fn preview_reads_as_the_golden_texts() {
    let mut world = World::settled(Mode::HostPort, 2);
    let facts = ClusterFacts {
        taken_ports: Some(BTreeSet::from([13133])),
        ..ClusterFacts::default()
    };
    let circumstances = Circumstances {
        facts,
        ..Circumstances::default()
    };
    let changed = agent(Mode::HostNetwork, SELECTED);
    let preview = world.previewed(&changed, &circumstances);
    insta::assert_snapshot!("preview_of_a_switch", shown(&preview));
    world.environment.platform_namespaces.clear();
    let refused = world.previewed(&changed, &circumstances);
    insta::assert_snapshot!("preview_of_a_refused_spec", shown(&refused));
}
