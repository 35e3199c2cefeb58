//! Steps that write agents.

use super::*;

#[test]
fn agents_are_applied_where_injection_is_impossible() {
    let mut world = World::of(Mode::NodeLocal);
    settle(&mut world, |_, _, _| ());
    world.objects.remove(&("Service", "node".into()));
    let away: Engines<'_> = Err(("WebhookNotInstalled", "apply manifests/webhook".into()));
    for (engines, expected) in [
        (Ok(&TooLarge as &dyn Render), "PolicyTooLarge"),
        (away, "WebhookNotInstalled"),
    ] {
        let plan = world.plan_with(&engines);
        let kinds: Vec<&str> = plan.steps.iter().map(kind).collect();
        assert_eq!(kinds, ["Apply"], "{expected}");
        let InjectionState::Failed { reason, .. } = plan.injection else {
            panic!("{expected}: {:?}", plan.injection);
        };
        assert_eq!(reason, expected);
    }
}

#[test]
fn upgrade_is_told_once_the_agents_template_is_applied() {
    let mut world = World::of(Mode::NodeLocal);
    settle(&mut world, |_, _, _| {});
    let mut observation = world.observe();
    let found = observation.workloads.get_mut(&Mode::NodeLocal).unwrap();
    found.written_by = Some("0.0.1".into());
    found.workload.template = "older".into();
    let subject = Subject {
        valid: &world.valid,
        environment: &world.environment,
        canary_namespace: "otelagent-canary",
        installation: None,
    };
    let needed = modes(&observation, &subject);
    let desired = build(&world.valid, &world.environment, needed);
    let plan = plan(&observation, &subject, &desired, &Ok(&PolicyEngine));
    let mut outcome = Outcome::before(&observation, &plan);
    let told = |outcome: &Outcome| facts(&observation, &subject, &desired, &plan, outcome).upgrade;
    assert_eq!(told(&outcome), None);
    let name = names::agent_workload("node", Mode::NodeLocal.kebab());
    outcome.applied.insert(name);
    let told = told(&outcome).map(|upgrade| (upgrade.before, upgrade.modes));
    assert_eq!(told, Some(("0.0.1".to_owned(), vec![Mode::NodeLocal])));
}
