//! Uninstalling leaves nothing and never hangs, with running objects and in any order.

use demo::repository;
use demo::wait::{Seen, until};

use super::{PATIENCE, world};

#[test]
fn uninstalling_leaves_nothing_and_pods_can_be_created() {
    let Some(world) = world("uninstalling") else {
        return;
    };
    world
        .kubectl
        .apply("{apiVersion: v1, kind: Namespace, metadata: {name: after}}")
        .unwrap();
    world.agent("last", "after", "mode: NodeLocal");
    world.agent("side", "after", "mode: Sidecar");
    world.until_serving("last", "NodeLocal");
    world.until_serving("side", "Sidecar");

    let manifests = repository().join("manifests/default");
    world
        .kubectl
        .run(&[
            "delete",
            "--kustomize",
            manifests.to_str().unwrap(),
            // Else it has not ended by itself, which is an error.
            "--timeout=180s",
        ])
        .unwrap();
    until("nothing left", PATIENCE, || {
        let left = world.cluster_objects();
        Ok(Seen::check(left.is_empty(), format!("{left:?}")))
    })
    .unwrap();
    for kind in ["crd", "clusterrole", "clusterrolebinding", "namespace"] {
        let left = super::names(&world.kubectl.get(&[kind]).unwrap());
        let ours: Vec<&String> = left
            .iter()
            .filter(|name| name.contains("otelagent"))
            .collect();
        assert!(ours.is_empty(), "{kind}: {ours:?}");
    }
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: plain, namespace: after}, spec: {containers: [{name: app, image: none}]}}";
    world.kubectl.apply(pod).unwrap();
    let pod: serde_json::Value = world
        .kubectl
        .get(&["pod", "plain", "--namespace=after"])
        .unwrap();
    assert!(
        !pod.to_string().contains("otelagent.dev/"),
        "left alone: {pod}"
    );
    world.end_namespace("after");
}
