//! Two operators, a restarted API server, a recipe that fails verification.

use std::time::Duration;

use demo::steps::PLATFORM;
use demo::wait::{Seen, until};
use serde_json::{Value, json};

use super::{PATIENCE, World, condition, world};

#[test]
fn second_operator_takes_over_when_the_leader_is_killed() {
    let Some(world) = world("two operators") else {
        return;
    };
    let pods = operator_pods(&world);
    assert_eq!(
        pods["items"].as_array().map(Vec::len),
        Some(2),
        "two replicas run"
    );
    let first = holder(&world);
    assert!(
        super::names(&pods).contains(&first),
        "{first} is one of them"
    );
    let leaders = super::names(&pods)
        .iter()
        .filter(|pod| leads(&world, pod))
        .count();
    assert_eq!(leaders, 1, "one acts");

    world
        .kubectl
        .run(&[
            "delete",
            "pod",
            &first,
            "--namespace=otelagent-system",
            "--grace-period=0",
            "--force",
        ])
        .unwrap();
    world.agent("heir", "nobody", "mode: Sidecar");
    world.until_serving("heir", "Sidecar");
    assert_ne!(holder(&world), first, "another acts");
}

const OPERATOR: &str = "--selector=app.kubernetes.io/component=operator";

fn operator_pods(world: &World) -> Value {
    world
        .kubectl
        .get(&["pods", "--namespace=otelagent-system", OPERATOR])
        .unwrap()
}

/// The pod that holds the Lease.
fn holder(world: &World) -> String {
    let lease: Value = world
        .kubectl
        .get(&[
            "lease",
            "otelagent-operator",
            "--namespace=otelagent-system",
        ])
        .unwrap();
    lease["spec"]["holderIdentity"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Whether a replica reports that it leads.
fn leads(world: &World, pod: &str) -> bool {
    let path = format!("/api/v1/namespaces/otelagent-system/pods/{pod}:8080/proxy/metrics");
    let metrics = world.kubectl.run(&["get", "--raw", &path]).unwrap();
    metrics
        .lines()
        .any(|line| line.starts_with("otelagent_leader") && line.ends_with(" 1"))
}

/// The restarts of the operator's containers, in total.
fn restarts(world: &World) -> u64 {
    let pods = operator_pods(world);
    let pods = pods["items"].as_array().into_iter().flatten();
    let counts = pods.map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64());
    counts.flatten().sum()
}

#[test]
fn restarted_api_server_injects_its_first_pods() {
    let Some(world) = world("a restarted API server") else {
        return;
    };
    let Some(bed) = world.bed("a restarted API server", "restarting the API server") else {
        return;
    };
    world
        .kubectl
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: restarted}}")
        .unwrap();
    world.agent("restart", "restarted", "mode: Sidecar");
    world.until_serving("restart", "Sidecar");
    let (objects, before) = (world.cluster_objects(), restarts(&world));

    bed.stop_apiserver().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    bed.start_apiserver().unwrap();
    let first = "{apiVersion: v1, kind: Pod, metadata: {name: first, namespace: restarted}, \
                 spec: {containers: [{name: app, image: none}]}}";
    until("the first pod answered", PATIENCE, || {
        world.kubectl.apply(first).map(Seen::Done)
    })
    .unwrap();
    let pod: Value = world
        .kubectl
        .get(&["pod", "first", "--namespace=restarted"])
        .unwrap();
    assert_eq!(
        pod["metadata"]["labels"]["otelagent.dev/mode"], "Sidecar",
        "the very first is injected"
    );

    // Kinds that are no part of the server are served a little later.
    let change = json!({"spec": {"workloads": {"flushInterval": "1s"}}});
    until("the change taken", PATIENCE, || {
        let taken = world.kubectl.patch(PLATFORM, "otelagent/restart", &change);
        taken.map(Seen::Done)
    })
    .unwrap();
    world.until_status("restart", "the change carried out", |status| {
        status["pods"]["stale"] == 1
    });
    assert_ne!(world.cluster_objects(), objects, "a new policy stands");
    let since = restarts(&world).saturating_sub(before);
    println!("containers started again: {before} before, {since} since");
    assert!(
        since <= 2,
        "each of two at most once, no crash loop: {since}"
    );
    world.end_namespace("restarted");
}

#[test]
fn recipe_that_fails_verification_leaves_the_previous_one_active() {
    let Some(world) = world("a recipe that fails verification") else {
        return;
    };
    world
        .kubectl
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: verification}}")
        .unwrap();
    world.agent("verification", "verification", "mode: Sidecar");
    world.until_serving("verification", "Sidecar");
    let binding = || -> Value {
        let name = "otelagent.otelagent-system.verification";
        world
            .kubectl
            .get(&["mutatingadmissionpolicybinding", name])
            .unwrap()
    };
    let before = binding();
    // The schema takes it, the canary namespace's quota does not.
    world
        .kubectl
        .apply(
            "{apiVersion: v1, kind: LimitRange, metadata: {name: verification, namespace: otelagent-canary}, \
             spec: {limits: [{type: Container, max: {memory: 1Gi}}]}}",
        )
        .unwrap();
    world.patch(
        "verification",
        &json!({"spec": {"agent": {"resources": {"limits": {"memory": "2Gi"}}}}}),
    );
    let agent = world.until_status("verification", "the failed verification", |status| {
        condition(status, "Injected")["reason"] == "VerificationFailed"
    });
    let injected = condition(&agent["status"], "Injected");
    assert!(
        injected["message"]
            .as_str()
            .is_some_and(|message| message.contains("memory")),
        "{injected}"
    );
    assert_eq!(condition(&agent["status"], "Ready")["status"], "False");
    assert_eq!(
        binding()["spec"],
        before["spec"],
        "the previous policy stays bound"
    );
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: app, namespace: verification}, spec: {containers: [{name: app, image: none}]}}";
    world
        .kubectl
        .apply(pod)
        .expect("pods can be created all the while");
    let pod: Value = world
        .kubectl
        .get(&["pod", "app", "--namespace=verification"])
        .unwrap();
    assert_ne!(
        pod["spec"]["initContainers"][0]["resources"]["limits"]["memory"], "2Gi",
        "by the previous recipe"
    );

    world
        .kubectl
        .run(&[
            "delete",
            "limitrange",
            "verification",
            "--namespace=otelagent-canary",
        ])
        .unwrap();
    world.patch("verification", &json!({"spec": {"agent": null}}));
    world.until_status("verification", "active again", |status| {
        condition(status, "Ready")["status"] == "True"
    });
    world.end_namespace("verification");
}
