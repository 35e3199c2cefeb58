//! A switch keeps the old agent workload until its last user is gone, even if the operator is killed.

use demo::apps::{self, App};
use demo::wait::{Seen, until};
use serde_json::{Value, json};

use super::{PATIENCE, World, condition, world};

const NAMESPACE: &str = "switching";

#[test]
fn switch_keeps_the_old_workload_when_the_operator_is_killed() {
    let Some(world) = world("a switch with the operator killed") else {
        return;
    };
    world.agent("move", NAMESPACE, "mode: NodeLocal");
    world.until_serving("move", "NodeLocal");
    apps::apply(
        &world.kubectl,
        &[App {
            namespace: NAMESPACE.into(),
            ..App::go_sdk()
        }],
    )
    .unwrap();
    world.until_status("move", "two users of NodeLocal", |status| {
        status["pods"]["byMode"]["NodeLocal"] == 2
    });

    world.patch("move", &json!({"spec": {"mode": "HostPort"}}));
    kill_operator(&world);
    world.until_serving("move", "HostPort");
    let status = world.until_status("move", "the old route in use", |status| {
        condition(status, "Switching")["reason"] == "OldRouteInUse" && status["pods"]["stale"] == 2
    });
    let message = condition(&status["status"], "Switching")["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        message.contains("2 of 2 pods still use NodeLocal (Deployment switching/go-sdk: 2)"),
        "{message}"
    );
    assert_eq!(
        world.names("daemonsets"),
        ["move-host-port", "move-node-local"]
    );

    kill_operator(&world);
    apps::roll(&world.kubectl, NAMESPACE).unwrap();
    kill_operator(&world);
    world.until_status("move", "the end of the switch", |status| {
        condition(status, "Switching")["status"] == "False"
            && status["pods"]["byMode"] == json!({"HostPort": 2})
    });
    assert_eq!(world.names("daemonsets"), ["move-host-port"]);
    assert_eq!(
        world.names("services"),
        Vec::<String>::new(),
        "the old route's Service is gone too"
    );
    world.end_namespace(NAMESPACE);
}

#[test]
fn mode_that_never_becomes_ready_leaves_the_old_one_serving() {
    let Some(world) = world("a switch that cannot end") else {
        return;
    };
    world.agent("stuck", "nobody", "mode: NodeLocal");
    world.until_serving("stuck", "NodeLocal");
    // An image that no node has.
    world.patch("stuck", &json!({"spec": {"mode": "HostPort", "agent": {"image": "otelagent-test/none:1", "imagePullPolicy": "Never"}}}));
    let agent = world.until_status("stuck", "a named reason", |status| {
        let switching = condition(status, "Switching");
        switching["reason"] == "AgentsNotReady"
            && switching["message"]
                .as_str()
                .is_some_and(|message| message.contains("ErrImageNeverPull"))
    });
    assert_eq!(
        agent["status"]["mode"], "NodeLocal",
        "the old mode serves on"
    );
    world.patch(
        "stuck",
        &json!({"spec": {"mode": "NodeLocal", "agent": null}}),
    );
    world.until_status("stuck", "back at once", |status| {
        status["mode"] == "NodeLocal"
            && condition(status, "Ready")["reason"] == "Serving"
            && condition(status, "Switching")["status"] == "False"
    });
    assert_eq!(world.names("daemonsets"), ["stuck-node-local"]);
}

/// Kills both replicas at once.
pub(super) fn kill_operator(world: &World) {
    let operator = [
        "--namespace=otelagent-system",
        "--selector=app.kubernetes.io/component=operator",
    ];
    let before: Value = world
        .kubectl
        .get(&[&["pods"], &operator[..]].concat())
        .unwrap();
    let gone = super::names(&before);
    world
        .kubectl
        .run(
            &[
                &["delete", "pods", "--grace-period=0", "--force"],
                &operator[..],
            ]
            .concat(),
        )
        .unwrap();
    until("new operator pods", PATIENCE, || {
        let now: Value = world.kubectl.get(&[&["pods"], &operator[..]].concat())?;
        let names = super::names(&now);
        Ok(Seen::check(
            !names.is_empty() && names.iter().all(|name| !gone.contains(name)),
            format!("{names:?}"),
        ))
    })
    .unwrap();
}
