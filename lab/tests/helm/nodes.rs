//! A release on nodes.

use demo::images;
use serde_json::{Value, json};

use super::bed::{HelmBed, Release, until};
use super::program::{chart, each};
use crate::test_scale::is_full;

const RELEASE: Release = Release {
    name: "otelagent",
    namespace: "otelagent-system",
};
const WAIT: [&str; 3] = ["--wait", "--timeout=4m", "--set=webhook.enabled=true"];

/// With `make test-full`: it needs images on nodes.
#[test]
fn helm_waits_until_a_release_runs_on_nodes() {
    if !is_full() {
        return;
    }
    for helm in each("a release on nodes") {
        let images = images::ensure_all().expect("images");
        let world = HelmBed::start_with_nodes("helm-nodes", helm, 1);
        for image in images {
            world.bed.load_image(&image).expect("an image on the node");
        }
        world.install(RELEASE, &chart(), &WAIT);
        assert_eq!(available(&world), [2, 2]);
        world.apply(&json!({
            "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
            "metadata": {"name": "node", "namespace": RELEASE.namespace},
            "spec": {"mode": "NodeLocal", "export": {"endpoint": "http://c.o.svc:4317"}},
        }));
        until("the agent is ready", || {
            let agent = world
                .find(RELEASE.namespace, "otelagent/node")
                .unwrap_or_default();
            let conditions = agent["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let is_ready = |found: &Value| found["type"] == "Ready" && found["status"] == "True";
            conditions
                .any(is_ready)
                .then_some(())
                .ok_or(agent["status"].to_string())
        });
        let change = ["--set-string=podAnnotations.release=2"];
        world.install(RELEASE, &chart(), &[&WAIT[..], &change].concat());
        assert_eq!(available(&world), [2, 2]);
        world.helm(
            RELEASE,
            &["uninstall", RELEASE.name, "--wait", "--timeout=4m"],
        );
        assert!(
            world
                .find(RELEASE.namespace, "deployment/otelagent-operator")
                .is_none()
        );
        world.end();
    }
}

/// Of the operator and the webhook.
fn available(world: &HelmBed) -> [u64; 2] {
    ["operator", "webhook"].map(|component| {
        let what = format!("deployment/otelagent-{component}");
        let found = world.find(RELEASE.namespace, &what).unwrap_or_default();
        let replicas = &found["status"]["availableReplicas"];
        replicas.as_u64().unwrap_or_default()
    })
}
