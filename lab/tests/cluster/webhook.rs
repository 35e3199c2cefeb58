//! The webhook engine on real nodes: two replicas behind their Service, a lost replica, and a CA that expires.

use std::time::{Duration, Instant};

use demo::apps::{self, App};
use demo::repository;
use demo::steps;
use serde_json::{Value, json};

use super::{World, names, world};

/// Of one CA; the next is made at two thirds, and signs a twenty-fourth later.
const LIFE: Duration = Duration::from_secs(150);

#[test]
fn webhook_injects_while_a_replica_or_the_ca_is_replaced() {
    let Some(world) = world("the webhook engine on two real nodes") else {
        return;
    };
    install(&world);
    world.agent("hooked", "hooked", "mode: Sidecar");
    world.until_serving("hooked", "Sidecar");
    let app = App {
        namespace: "hooked".into(),
        ..App::go_sdk()
    };
    apps::apply(&world.kubectl, &[app]).unwrap();
    let is_all_injected =
        |status: &Value| status["pods"]["current"] == 2 && status["pods"]["missed"] == 0;
    world.until_status("hooked", "both pods injected", is_all_injected);
    let objects = world.cluster_objects();
    assert!(objects.contains(&"otelagent.otelagent-system.hooked".to_owned()));

    let made = Instant::now();
    let replicas = replicas(&world);
    assert_eq!(replicas.len(), 2, "{replicas:?}");
    let gone = format!("pod/{}", replicas[0]);
    let delete = [
        "delete",
        &gone,
        "--namespace",
        steps::PLATFORM,
        "--wait=false",
    ];
    world.kubectl.run(&delete).unwrap();
    apps::roll(&world.kubectl, "hooked").unwrap();
    let mut last = trusted(&world);
    let (mut created, mut changes) = (0, 0);
    // Until the next CA has come and the one before has ended.
    while changes < 2 {
        create_injected(&world);
        created += 1;
        let now = trusted(&world);
        if now != last {
            (last, changes) = (now, changes + 1);
        }
        assert!(made.elapsed() < LIFE * 2, "the CA did not change");
    }
    apps::roll(&world.kubectl, "hooked").unwrap();
    world.until_status("hooked", "both pods injected again", is_all_injected);
    println!("{created} pods were created while the CA changed");

    world.end_all_agents();
    world.end_namespace("hooked");
    uninstall(&world);
}

/// As docs/injection.md says, with a CA that expires fast.
pub(super) fn install(world: &World) {
    let manifests = repository().join("manifests/webhook");
    world.kubectl.apply_kustomization(&manifests).unwrap();
    let arguments = json!({"spec": {"template": {"spec": {"containers": [{"name": "operator", "args": [
        "controller", "--leader-elect", "--injection-engine=webhook",
        format!("--webhook-ca-seconds={}", LIFE.as_secs()),
    ]}]}}}});
    let patch = arguments.to_string();
    let operator = "deployment/otelagent-operator";
    let words = [
        "patch",
        operator,
        "--namespace",
        steps::PLATFORM,
        "--patch",
        &patch,
    ];
    world.kubectl.run(&words).unwrap();
    rolled_out(world, operator);
    rolled_out(world, "deployment/otelagent-webhook");
}

/// Leaves the cluster as it was found.
fn uninstall(world: &World) {
    let manifests = repository().join("manifests/webhook");
    let directory = manifests.to_str().unwrap();
    let words = ["delete", "--kustomize", directory, "--timeout=90s"];
    world.kubectl.run(&words).unwrap();
    steps::install(&world.kubectl).unwrap();
    rolled_out(world, "deployment/otelagent-operator");
}

fn rolled_out(world: &World, deployment: &str) {
    let words = [
        "rollout",
        "status",
        deployment,
        "--namespace",
        steps::PLATFORM,
        "--timeout=2m",
    ];
    world.kubectl.run(&words).unwrap();
}

fn replicas(world: &World) -> Vec<String> {
    let label = "app.kubernetes.io/component=webhook";
    let words = ["pods", "--namespace", steps::PLATFORM, "--selector", label];
    names(&world.kubectl.get(&words).unwrap())
}

/// Creates a pod by dry run; it must be injected.
pub(super) fn create_injected(world: &World) {
    let pod = world.dry_run_pod("hooked").unwrap();
    assert_eq!(
        pod["metadata"]["labels"]["otelagent.dev/agent"], "otelagent-system.hooked",
        "{pod:#}"
    );
    assert_eq!(
        pod["spec"]["initContainers"][0]["name"], "otelagent",
        "{pod:#}"
    );
}

/// The CA bundle of the webhook configuration.
fn trusted(world: &World) -> Value {
    let name = "otelagent.otelagent-system.hooked";
    let words = ["mutatingwebhookconfiguration", name];
    let configuration: Value = world.kubectl.get(&words).unwrap();
    configuration["webhooks"][0]["clientConfig"]["caBundle"].clone()
}
