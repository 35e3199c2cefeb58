//! A crash between any two steps of a reconcile changes nothing. A model of the cluster executes the steps of every
//! switch, of a creation, of a changed configuration and of an end of injection. Each story is interrupted before and
//! after each of its steps, and must reach the same end as without the interruption.

mod agents;
mod preview;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{Engine, Environment, ValidAgent, build, validate};
use otelagent_core::inject::difference::Judgement;
use otelagent_core::inject::kinds::{ADMISSION_KINDS, BINDING, POLICY, WEBHOOK_CONFIGURATION};
use otelagent_core::inject::policy::{PolicyError, PolicyInput, Rendered};
use otelagent_core::names;
use otelagent_core::pods::{Coverage, LivePod, count};
use otelagent_core::reconcile::{
    Active, AdmissionObject, Engines, Intent, Observation, ObservedWorkload, Outcome, Plan,
    PolicyEngine, Render, Step, Subject, facts, injection, modes, plan, plan_refused,
};
use otelagent_core::status::InjectionState;
use otelagent_core::switching::{AgentPod, AgentWorkload, NodeState};
use serde_json::Value;

use super::{agent_with, environment};

const NODE: &str = "n1";

fn node() -> NodeState {
    let label = ("kubernetes.io/os".to_owned(), "linux".to_owned());
    NodeState {
        ready: true,
        labels: BTreeMap::from([label]),
        ..NodeState::default()
    }
}

/// A cluster of one node, on which agents are ready as soon as they are made.
#[derive(Clone)]
struct World {
    agent: OtelAgent,
    valid: ValidAgent,
    now: Timestamp,
    objects: BTreeMap<(&'static str, String), Value>,
    /// Labels of the pods that run.
    pods: Vec<BTreeMap<String, String>>,
    environment: Environment,
}

impl World {
    fn of(mode: Mode) -> Self {
        let agent = agent(mode, "workloads: {namespaceSelector: {}}");
        Self {
            valid: validate(&agent, &environment()).expect("a valid OtelAgent"),
            agent,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            objects: BTreeMap::new(),
            pods: Vec::new(),
            environment: environment(),
        }
    }

    fn change(&mut self, agent: &OtelAgent) {
        self.valid = validate(agent, &self.environment).expect("a valid OtelAgent");
        self.agent = agent.clone();
    }

    fn active(&self) -> Active {
        let own = names::cluster_object("otelagent-system", "node", None);
        let Some(binding) = self.objects.get(&(BINDING, own)) else {
            return Active::default();
        };
        let annotations = binding["metadata"]["annotations"].clone();
        let annotations: BTreeMap<String, String> = serde_json::from_value(annotations).unwrap();
        Active::read(&annotations, binding["spec"]["policyName"].as_str())
    }

    /// The agent workload of a mode.
    fn workload(&self, mode: Mode) -> Option<&Value> {
        let name = names::agent_workload("node", mode.kebab());
        self.objects.get(&("DaemonSet", name))
    }

    fn observed_workload(&self, mode: Mode) -> Option<(Mode, ObservedWorkload)> {
        let object = self.workload(mode)?;
        let template = object["spec"]["template"]["metadata"]["labels"][names::LABEL_TEMPLATE]
            .as_str()
            .map(str::to_owned);
        let since = &object["metadata"]["annotations"][names::ANNOTATION_UNUSED_SINCE];
        let pod = AgentPod {
            name: "a".into(),
            node: Some(NODE.into()),
            ready: true,
            waits_for: None,
            template: template.clone(),
        };
        let observed = ObservedWorkload {
            object: object.clone(),
            workload: AgentWorkload {
                observed: true,
                desired: 1,
                template: template.unwrap_or_default(),
                pods: vec![pod],
                ..AgentWorkload::default()
            },
            unused_since: since.as_str().map(|since| since.parse().unwrap()),
            written_by: None,
        };
        Some((mode, observed))
    }

    fn observe(&self) -> Observation<'_> {
        let (none, outline) = (BTreeMap::new(), "{}".into());
        let pods = self.pods.iter().map(|labels| LivePod {
            namespace: "otelagent-system",
            namespace_labels: &none,
            labels,
            name: "app",
            node: Some(NODE),
            controller: None,
            terminating: false,
            ready: true,
            outline: &outline,
        });
        let label = names::agent_label("otelagent-system", "node");
        let admission = |((kind, name), object): (&(&'static str, String), &Value)| {
            ADMISSION_KINDS.contains(kind).then(|| AdmissionObject {
                kind,
                name: name.clone(),
                uid: Some("u".into()),
                is_ours: true,
                object: object.clone(),
            })
        };
        Observation {
            now: self.now,
            agent: &self.agent,
            active: self.active(),
            exclusions: Vec::new(),
            preceding: Vec::new(),
            nodes: Arc::new(BTreeMap::from([(NODE.to_owned(), Arc::new(node()))])),
            workloads: Mode::ALL
                .into_iter()
                .filter_map(|mode| self.observed_workload(mode))
                .collect(),
            service: self.objects.get(&("Service", "node".into())).cloned(),
            pods: count(
                &label,
                self.valid.selection.as_ref(),
                &[],
                &Coverage::default(),
                |_, _| true,
                pods,
            ),
            selects_namespaces: true,
            namespace_limits: Vec::new(),
            admission: self.objects.iter().filter_map(admission).collect(),
            unconfirmed: BTreeSet::new(),
            used: BTreeMap::new(),
        }
    }

    fn plan(&self) -> Plan {
        self.plan_with(&Ok(&PolicyEngine))
    }

    fn plan_with(&self, engines: &Engines<'_>) -> Plan {
        let observation = self.observe();
        let subject = Subject {
            valid: &self.valid,
            environment: &self.environment,
            canary_namespace: "otelagent-canary",
            installation: None,
        };
        let desired = build(
            &self.valid,
            &self.environment,
            modes(&observation, &subject),
        );
        plan(&observation, &subject, &desired, engines)
    }

    fn store(&mut self, intent: &Intent) {
        let key = (intent.kind, intent.name.clone());
        self.objects.insert(key, intent.body.clone());
    }

    /// What a step does to the cluster.
    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Apply(intent) | Step::WritePolicy(intent) => self.store(intent),
            Step::Verify(verification) => self.store(&verification.canary),
            Step::CutOver(_) | Step::Confirm(_) => {}
            Step::Activate(activation) => {
                self.store(&activation.at(self.now).0);
                activation
                    .warnings
                    .iter()
                    .for_each(|warning| self.store(warning));
            }
            Step::Retire(retirement) => {
                for object in &retirement.objects {
                    self.objects.remove(&(object.kind, object.name.clone()));
                }
            }
            Step::Withdraw(objects) => {
                for object in objects {
                    self.objects.remove(&(object.kind, object.name.clone()));
                }
            }
            Step::Remove(removal) => {
                for (kind, object) in &removal.objects {
                    let name = object["metadata"]["name"].as_str().unwrap();
                    self.objects.remove(&(*kind, name.to_owned()));
                }
            }
        }
        self.check();
    }

    /// What holds at every moment.
    fn check(&self) {
        let active = self.active();
        if let Some(policy) = &active.policy {
            let exists = self.objects.keys().any(|(_, name)| name == policy);
            assert!(exists, "the active binding points to nothing: {policy}");
        }
        let used = self.pods.iter().filter_map(|labels| {
            let mode = labels.get(names::LABEL_MODE)?;
            Mode::parse(mode)
        });
        for mode in used.chain(active.mode).filter(|mode| mode.on_nodes()) {
            assert!(
                self.workload(mode).is_some(),
                "{mode} is used and has no agents"
            );
        }
    }

    /// A pod that is created now.
    fn create_pod(&mut self) {
        let active = self.active();
        let (mode, recipe) = (active.mode.unwrap(), active.recipe.unwrap());
        let agent = names::agent_label("otelagent-system", "node");
        self.pods.push(BTreeMap::from([
            (names::LABEL_AGENT.to_owned(), agent),
            (names::LABEL_MODE.to_owned(), mode.to_string()),
            (names::LABEL_CONFIG.to_owned(), recipe),
        ]));
    }

    /// What must be the same after any interruption of a story.
    fn end_state(
        &self,
    ) -> (
        BTreeSet<(&'static str, String)>,
        Option<Mode>,
        Option<String>,
    ) {
        let active = self.active();
        let objects = self.objects.keys().cloned().collect();
        (objects, active.mode, active.recipe)
    }
}

fn agent(mode: Mode, rest: &str) -> OtelAgent {
    agent_with("otelagent-system", &format!("mode: {mode}, {rest}"))
}

/// What [`kind`] can say.
const KINDS: [&str; 9] = [
    "Apply",
    "CutOver",
    "WritePolicy",
    "Verify",
    "Activate",
    "Confirm",
    "Retire",
    "Withdraw",
    "Remove",
];

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Apply(_) => "Apply",
        Step::CutOver(_) => "CutOver",
        Step::WritePolicy(_) => "WritePolicy",
        Step::Verify(_) => "Verify",
        Step::Activate(_) => "Activate",
        Step::Confirm(_) => "Confirm",
        Step::Retire(_) => "Retire",
        Step::Withdraw(_) => "Withdraw",
        Step::Remove(_) => "Remove",
    }
}

/// Whether a step changes anything that is stored.
fn writes(step: &Step) -> bool {
    !matches!(step, Step::CutOver(_) | Step::Confirm(_))
}

/// One step of a story: its kind, the part of the story, and the cluster before and after it.
struct Moment {
    kind: &'static str,
    part: usize,
    before: World,
    after: World,
}

/// Reconciles until nothing is left to do; `see` is shown every step.
fn settle(world: &mut World, mut see: impl FnMut(&Step, &World, &World)) {
    for _ in 0..40 {
        let plan = world.plan();
        for step in &plan.steps {
            let before = world.clone();
            world.carry_out(step);
            see(step, &before, world);
        }
        let is_idle = plan.steps.iter().all(|step| !writes(step));
        if is_idle && plan.requeue_after.is_none() {
            return;
        }
        let waited = plan.requeue_after.unwrap_or(Duration::from_secs(1));
        world.now = world.now.checked_add(waited).unwrap();
    }
    panic!("{} does not settle", world.agent.spec.mode);
}

/// What happens between two settled states.
const PARTS: usize = 4;

fn happen(part: usize, world: &mut World, change: &OtelAgent) {
    match part {
        0 => {}
        1 => world.create_pod(),
        2 => world.change(change),
        _ => world.pods.clear(),
    }
}

/// From creation in one mode, with a pod, over a change of the spec, until the pod is gone.
fn tell(from: Mode, change: &OtelAgent) -> (World, Vec<Moment>) {
    let mut world = World::of(from);
    let mut moments = Vec::new();
    for part in 0..PARTS {
        happen(part, &mut world, change);
        settle(&mut world, |step, before, after| {
            moments.push(Moment {
                kind: kind(step),
                part,
                before: before.clone(),
                after: after.clone(),
            });
        });
    }
    (world, moments)
}

/// Goes on with a story after a crash in one of its parts.
fn go_on(mut world: World, part: usize, change: &OtelAgent) -> World {
    settle(&mut world, |_, _, _| {});
    for part in part + 1..PARTS {
        happen(part, &mut world, change);
        settle(&mut world, |_, _, _| {});
    }
    world
}

fn stories() -> Vec<(Mode, OtelAgent)> {
    let mut stories = Vec::new();
    for from in Mode::ALL {
        let others = Mode::ALL.into_iter().filter(|to| *to != from);
        stories.extend(others.map(|to| (from, agent(to, "workloads: {namespaceSelector: {}}"))));
        let changed =
            "workloads: {namespaceSelector: {}, flushInterval: 2s}, batch: {flushInterval: 3s}";
        stories.push((from, agent(from, changed)));
        let unselected = agent_with("otelagent-system", &format!("mode: {from}"));
        stories.push((from, unselected));
    }
    stories
}

#[test]
fn story_interrupted_at_any_step_reaches_the_same_end() {
    let mut seen = BTreeSet::new();
    for (from, change) in stories() {
        let (reference, moments) = tell(from, &change);
        let expected = reference.end_state();
        for moment in moments {
            let what = format!("{from} to {}: {}", change.spec.mode, moment.kind);
            for world in [moment.before, moment.after] {
                let end = go_on(world, moment.part, &change);
                assert_eq!(end.end_state(), expected, "{what}");
            }
            seen.insert(moment.kind);
        }
    }
    assert_eq!(seen, KINDS.into(), "each kind of step was interrupted");
}

/// What is done once the namespace of a settled `OtelAgent` is no platform namespace any more.
fn plan_when_revoked(workloads: &str) -> Plan {
    let mut world = World::of(Mode::NodeLocal);
    world.environment.operator_namespace = "operator".into();
    world.change(&agent(Mode::NodeLocal, workloads));
    settle(&mut world, |_, _, _| {});
    world.environment.platform_namespaces.clear();
    plan_refused(&world.observe(), &world.environment)
}

#[test]
fn revoked_platform_namespace_keeps_injection_into_its_own_pods_only() {
    let elsewhere = plan_when_revoked("workloads: {namespaceSelector: {}}");
    let kinds: Vec<&str> = elsewhere.steps.iter().map(kind).collect();
    assert_eq!(kinds, ["Withdraw"]);
    assert_eq!(elsewhere.injection, InjectionState::Revoked);
    let own = plan_when_revoked("workloads: {}");
    let kinds: Vec<&str> = own.steps.iter().map(kind).collect();
    assert_eq!(kinds, ["Confirm"]);
}

#[test]
fn settled_object_needs_no_write() {
    for mode in Mode::ALL {
        let mut world = World::of(mode);
        settle(&mut world, |_, _, _| {});
        let left: Vec<&str> = world.plan().steps.iter().map(kind).collect();
        assert_eq!(left, ["Confirm"], "{mode}");
    }
}

/// `build` is the only place that renders, and renders a mode once: so it is called with the modes that exist
/// or come to exist, and with no other.
#[test]
fn reconcile_renders_each_mode_that_exists_and_no_other() {
    for from in Mode::ALL {
        for to in Mode::ALL {
            let mut world = World::of(from);
            settle(&mut world, |_, _, _| {});
            world.create_pod();
            world.change(&agent(to, "workloads: {namespaceSelector: {}}"));
            let subject = Subject {
                valid: &world.valid,
                environment: &world.environment,
                canary_namespace: "otelagent-canary",
                installation: None,
            };
            let rendered = modes(&world.observe(), &subject);
            assert_eq!(rendered, BTreeSet::from([from, to]), "{from} to {to}");
        }
    }
}

#[test]
fn pods_that_others_refuse_bind_no_policy_and_end_no_injection() {
    let mut world = World::of(Mode::NodeLocal);
    let refused = || Judgement::Refused("not today".into());
    let verified = |world: &World, judgement| {
        injection::after_verification(&world.observe(), "canaries", judgement)
    };
    assert_eq!(verified(&world, Judgement::AsExpected), None);
    for (judgement, expected) in [
        (refused(), "CanaryRefused"),
        (Judgement::Wrong("x".into()), "VerificationFailed"),
    ] {
        let Some(InjectionState::Failed { reason, message }) = verified(&world, judgement) else {
            panic!("{expected} binds nothing");
        };
        assert_eq!(reason, expected);
        assert!(message.contains("nothing is injected yet"), "{message}");
    }
    settle(&mut world, |_, _, _| ());
    let Some(InjectionState::Failed { message, .. }) = verified(&world, refused()) else {
        panic!("the previous policy stays");
    };
    for part in [
        "the previous one stays active",
        "namespace canaries",
        "not today",
    ] {
        assert!(message.contains(part), "{message}");
    }

    let confirmed = |world: &World, judgement| {
        injection::after_confirmation(&world.observe(), "canaries", judgement)
    };
    assert_eq!(
        confirmed(&world, Judgement::AsExpected),
        InjectionState::Active
    );
    let wrong = confirmed(&world, Judgement::Wrong("x".into()));
    assert!(matches!(
        wrong,
        InjectionState::Failed {
            reason: "NotActive",
            ..
        }
    ));
    for (reason, expected) in [("PodsMissed", true), ("CanaryRefused", false)] {
        let condition = serde_json::json!({"type": "Injected", "status": "False", "reason": reason,
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = serde_json::json!({"conditions": [condition]});
        world.agent.status = Some(serde_json::from_value(status).unwrap());
        let InjectionState::Unconfirmed { was_active, .. } = confirmed(&world, refused()) else {
            panic!("nothing is known");
        };
        assert_eq!(was_active, expected, "{reason}");
    }
}

/// What the steps of a plan remove, by kind.
fn retired(world: &World) -> Vec<&'static str> {
    let steps = world.plan().steps.into_iter();
    let objects = steps.flat_map(|step| match step {
        Step::Retire(retirement) => retirement.objects,
        _ => Vec::new(),
    });
    objects.map(|object| object.kind).collect()
}

#[test]
fn engine_before_stays_for_a_day_unless_it_injects_something_else() {
    let own = names::cluster_object("otelagent-system", "node", None);
    let day = Duration::from_hours(24);
    for is_same in [true, false] {
        let mut world = World::of(Mode::NodeLocal);
        settle(&mut world, |_, _, _| ());
        let mut annotations =
            world.objects[&(BINDING, own.clone())]["metadata"]["annotations"].clone();
        if !is_same {
            annotations[names::ANNOTATION_RECIPE] = "other".into();
        }
        let before = serde_json::json!({"metadata": {"name": own, "annotations": annotations}});
        let stale = serde_json::json!({"metadata": {"name": "otelagent.otelagent-system.node.x"}});
        world
            .objects
            .insert((WEBHOOK_CONFIGURATION, own.clone()), before);
        world
            .objects
            .insert((POLICY, "otelagent.otelagent-system.node.x".into()), stale);
        let bound_at = world.active().bound_at.unwrap();
        world.now = bound_at + Duration::from_secs(31);
        let early = if is_same {
            vec![POLICY]
        } else {
            vec![WEBHOOK_CONFIGURATION, POLICY]
        };
        assert_eq!(retired(&world), early, "{is_same}");
        world
            .objects
            .remove(&(POLICY, "otelagent.otelagent-system.node.x".into()));
        world.now = bound_at + day - Duration::from_secs(1);
        let late = if is_same {
            vec![]
        } else {
            vec![WEBHOOK_CONFIGURATION]
        };
        assert_eq!(retired(&world), late, "{is_same}");
        world.now = bound_at + day;
        assert_eq!(retired(&world), [WEBHOOK_CONFIGURATION], "{is_same}");
    }
}

/// Nothing fits.
struct TooLarge;

impl Render for TooLarge {
    fn engine(&self) -> Engine {
        Engine::Policy
    }

    fn render(&self, _: &PolicyInput) -> Result<Rendered, PolicyError> {
        Err(PolicyError::TooLargeForAnnotations { bytes: 1 })
    }
}
