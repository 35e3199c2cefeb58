//! Steps that write the configuration of agents on nodes.

use otelagent_api::Protocol;
use otelagent_core::delivery::ConfigurationWord;
use otelagent_core::reconcile::{Mount, Precondition};
use serde_json::json;

use super::*;

fn selecting(rest: &str) -> OtelAgent {
    agent(
        Mode::NodeLocal,
        &format!("workloads: {{namespaceSelector: {{}}}}, {rest}"),
    )
}

fn settled() -> World {
    let mut world = World::of(Mode::NodeLocal);
    settle(&mut world, |_, _, _| {});
    world
}

/// The plan for agents that are otherwise than the world has them.
fn plan_with_agents(world: &World, change: impl FnOnce(&mut AgentWorkload)) -> Plan {
    let mut observation = world.observe();
    let found = observation.workloads.get_mut(&Mode::NodeLocal).unwrap();
    change(&mut found.workload);
    let subject = Subject {
        valid: &world.valid,
        environment: &world.environment,
        canary_namespace: "otelagent-canary",
        installation: None,
    };
    let needed = modes(&observation, &subject);
    let desired = build(&world.valid, &world.environment, needed);
    plan(&observation, &subject, &desired, &Ok(&PolicyEngine))
}

/// What a plan applies, and the pods that mount it, in order.
fn written(plan: &Plan) -> Vec<String> {
    let steps = plan.steps.iter().filter_map(|step| match step {
        Step::Apply(intent) => Some(intent.kind.to_owned()),
        Step::Mount(mount) => Some(format!("mounted by {}", mount.pods.join(","))),
        _ => None,
    });
    steps.collect()
}

fn keys(plan: &Plan) -> BTreeSet<String> {
    let mut applied = plan.steps.iter().filter_map(|step| match step {
        Step::Apply(intent) if intent.kind == "ConfigMap" => Some(&intent.body["data"]),
        _ => None,
    });
    let data = applied.next().expect("the ConfigMap is applied");
    data.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn changed_settings_that_are_live_are_written_and_mounted_and_replace_no_agent() {
    let mut world = settled();
    assert!(written(&world.plan()).is_empty());
    let template = world.workload(Mode::NodeLocal).unwrap()["spec"].clone();
    world.change(&selecting("batch: {flushInterval: 3s}"));
    assert_eq!(written(&world.plan()), ["ConfigMap", "mounted by a"]);
    settle(&mut world, |_, _, _| {});
    assert_eq!(world.workload(Mode::NodeLocal).unwrap()["spec"], template);
}

#[test]
fn agent_that_runs_the_new_configuration_already_is_left_alone() {
    let mut world = settled();
    world.change(&selecting("batch: {flushInterval: 3s}"));
    let mounts = |plan: Plan| -> Vec<Mount> {
        let steps = plan.steps.into_iter();
        let mounts = steps.filter_map(|step| match step {
            Step::Mount(mount) => Some(mount),
            _ => None,
        });
        mounts.collect()
    };
    let new = mounts(world.plan()).remove(0).configuration;
    for (runs, expected) in [("older".to_owned(), 1), (new, 0)] {
        let plan = plan_with_agents(&world, |workload| {
            workload.pods[0].word = Some(ConfigurationWord {
                runs,
                refuses: None,
            });
        });
        assert_eq!(mounts(plan).len(), expected);
    }
}

#[test]
fn settings_that_agents_read_at_their_start_replace_them_and_older_agents_keep_theirs() {
    let mut world = settled();
    let before = world.config_map(Mode::NodeLocal).unwrap()["data"].clone();
    let (old_key, old_text) = before.as_object().unwrap().iter().next().unwrap();
    let mut changed = world.agent.clone();
    changed.spec.export.protocol = Protocol::Http;
    world.change(&changed);
    assert_eq!(written(&world.plan()), ["ConfigMap", "DaemonSet"]);
    assert_eq!(keys(&world.plan()).len(), 2, "the template has the old one");
    for step in world.plan().steps {
        world.carry_out(&step);
    }
    let old_pod = |workload: &mut AgentWorkload| {
        let template = old_key.trim_end_matches(".yaml").to_owned();
        workload.pods.push(AgentPod {
            name: "older".into(),
            template: Some(template),
            ..AgentPod::default()
        });
    };
    let kept = plan_with_agents(&world, old_pod);
    assert!(written(&kept).is_empty(), "an older agent may restart");
    let stored = &world.config_map(Mode::NodeLocal).unwrap()["data"];
    assert_eq!(stored[old_key], *old_text);
    let unobserved = plan_with_agents(&world, |workload| workload.observed = false);
    assert!(written(&unobserved).is_empty(), "one may still be made");
    let gone = world.plan();
    assert_eq!(written(&gone), ["ConfigMap"]);
    assert!(!keys(&gone).contains(old_key));
}

#[test]
fn configuration_goes_after_the_agents_that_mount_it_also_when_an_operator_ended_between() {
    let mut world = settled();
    world.change(&agent(Mode::HostPort, "workloads: {namespaceSelector: {}}"));
    let mut removed = Vec::new();
    settle(&mut world, |step, _, _| {
        if let Step::Remove(removal) = step {
            removed.extend(removal.objects.iter().map(|(kind, _)| *kind));
        }
    });
    assert_eq!(removed, ["Service", "DaemonSet", "ConfigMap"]);
    let name = names::agent_configuration("node", Mode::NodeLocal.kebab());
    let left = json!({"metadata": {"name": name, "ownerReferences": [{"uid": "u"}]}});
    world.objects.insert(("ConfigMap", name.clone()), left);
    let steps = world.plan().steps;
    let removal = steps.iter().find_map(|step| match step {
        Step::Remove(removal) => Some(removal),
        _ => None,
    });
    let kinds: Vec<&str> = removal
        .unwrap()
        .objects
        .iter()
        .map(|(kind, _)| *kind)
        .collect();
    assert_eq!(kinds, ["ConfigMap"]);
    let unused = Precondition::Unused(Mode::NodeLocal);
    assert!(
        steps
            .iter()
            .any(|step| step.preconditions().contains(&unused))
    );
    let foreign = json!({"metadata": {"name": name}});
    world.objects.insert(("ConfigMap", name), foreign);
    assert!(
        !world
            .plan()
            .steps
            .iter()
            .any(|step| matches!(step, Step::Remove(_)))
    );
}
