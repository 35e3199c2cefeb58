//! The pages that one follows step by step, followed as they are written: [`page`] reads their commands and files. With
//! `make test-full`, since they wait as a user would.
//!
//! `tests/book/commands.rs` checks that no command of these pages is left out.

mod moving;
mod page;

use demo::apps::{self, App};
use demo::repository;
use demo::wait::{Seen, until};
use serde_json::Value;

use super::{PATIENCE, World, world};
use crate::test_scale::is_full;
use page::{Page, Reader, Tool};

#[test]
fn getting_started_and_operations_work_as_written_with_kubectl() {
    newcomer(Tool::Kubectl);
}

#[test]
fn getting_started_and_operations_work_as_written_with_helm() {
    newcomer(Tool::Helm);
}

fn newcomer(tool: Tool) {
    if !is_full() {
        return;
    }
    let Some(world) = world("the commands of the documentation") else {
        return;
    };
    uninstall(&world);
    apps::apply(&world.kubectl, &[App::rust_sdk(), App::go_sdk()]).unwrap();
    let reader = Reader::new(&world, tool);
    let page = Page::read("getting-started.md");
    reader.section(&page, "2. ");
    reader.section(&page, "3. ");
    let said = reader.section(&page, "4. ");
    assert!(said.contains("\"spans\""), "{said}");
    until_injected_for(&world, "NodeLocal");
    reader.section(&page, "5. ");
    until_injected_for(&world, "HostPort");

    let page = Page::read("operations.md");
    reader.section(&page, "Upgrade");
    if tool == Tool::Helm {
        reader.section(&page, "Roll back");
    }
    reader.section(&page, "Uninstall");
    let left = world.cluster_objects();
    assert!(left.is_empty(), "{left:?}");
    for object in ["deployment", "service", "configmap"] {
        let delete = [
            "delete",
            object,
            "otel-debug",
            "--namespace=observability",
            "--ignore-not-found",
        ];
        world.kubectl.run(&delete).unwrap();
    }
    end_shop(&world);
}

/// As a cluster is before somebody begins to read. Every other test installs what it needs.
fn uninstall(world: &World) {
    let manifests = repository().join("manifests/default");
    let delete = [
        "delete",
        "--kustomize",
        manifests.to_str().unwrap(),
        "--ignore-not-found",
        "--timeout=180s",
    ];
    world.kubectl.run(&delete).unwrap();
    until("nothing of otelagent", PATIENCE, || {
        let left = world.cluster_objects();
        Ok(Seen::check(left.is_empty(), format!("{left:?}")))
    })
    .unwrap();
    end_shop(world);
}

/// The namespace of the pages' applications, and all in it.
fn end_shop(world: &World) {
    let delete = [
        "delete",
        "namespace",
        apps::NAMESPACE,
        "--ignore-not-found",
        "--timeout=180s",
    ];
    world.kubectl.run(&delete).unwrap();
}

/// Waits until every pod of the applications, and no other, was created for a mode.
fn until_injected_for(world: &World, mode: &str) {
    until(&format!("pods of {mode}"), PATIENCE, || {
        let pods = apps::pods(&world.kubectl, apps::NAMESPACE)?;
        let is_of = |labels: &Value| labels["otelagent.dev/mode"] == mode;
        let all = !pods.is_empty() && pods.iter().all(|pod| is_of(&pod.labels));
        Ok(Seen::check(all, format!("{pods:?}")))
    })
    .unwrap_or_else(|error| panic!("{error}"));
}
