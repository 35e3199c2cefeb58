//! etcd is restored to an older snapshot, and counts revisions again from there.

use std::time::Duration;

use otelagent_api::Mode;
use otelagent_core::names;
use serde_json::json;
use tokio::task::block_in_place;

use super::creator::{Creator, How};
use super::world::{OutageBed, PATIENCE, PLATFORM, agent_path, client, until};
use crate::status_checker::get;
use crate::status_checker::log::{Recorder, violations};

const AGENT: (&str, &str) = (PLATFORM, "node");
const REPLICAS: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn operator_restarts_after_an_etcd_restore_and_removes_nothing_used() {
    if !testbed::skip_unless_possible("etcd set back to a snapshot") {
        return;
    }
    let world = OutageBed::start("store").await;
    let mut operator = world.serve_shop(AGENT).await;
    world.deployment("shop", "web", REPLICAS).await;
    until_all_use(&world, "NodeLocal").await;

    block_in_place(|| world.bed.save_etcd()).unwrap();
    what_will_be_forgotten(&world).await;
    block_in_place(|| world.bed.restore_etcd()).unwrap();

    let admin = client(world.bed.kubeconfig()).await;
    let recorder = Recorder::start(&admin);
    let agent = get(&admin, &agent_path(AGENT.0, AGENT.1)).await.unwrap();
    assert_eq!(agent["spec"]["mode"], "NodeLocal", "it was set back");
    // It exits instead of acting on caches of two histories; a kubelet restarts it.
    operator.until_it_ends().await;
    let mut operator = world.operator(&[]);
    until_all_use(&world, "NodeLocal").await;
    world.check_status(AGENT).await;

    // It acts on what happens from now on, though versions are below those that it has seen.
    world
        .want(AGENT.0, AGENT.1, json!({"mode": "HostPort"}))
        .await;
    world.until_serving(AGENT, "HostPort").await;
    let creator = Creator::start(&admin, "shop", How::DryRun, 1, Duration::from_millis(50));
    creator.until_more(20).await;
    let missed = creator.end().await;
    assert!(missed.missed().is_empty(), "{:?}", missed.missed());
    world.check_status(AGENT).await;
    let wrong = violations(&recorder.events(AGENT.0), AGENT.0, AGENT.1, true);
    assert!(wrong.is_empty(), "{wrong:#?}");
    operator.must_run();
    drop(operator);
    world.end();
}

/// A switch that removes the old route, and another `OtelAgent`.
async fn what_will_be_forgotten(world: &OutageBed) {
    world
        .want(AGENT.0, AGENT.1, json!({"mode": "HostPort"}))
        .await;
    world.until_serving(AGENT, "HostPort").await;
    let spec = json!({"mode": "Sidecar", "workloads": {}});
    world.agent("default", "late", spec).await;
    world.until_serving(("default", "late"), "Sidecar").await;
    world.roll("shop", "web");
    until_all_use(world, "HostPort").await;
    let workload = names::agent_workload(AGENT.1, Mode::NodeLocal.kebab());
    let path = format!("/apis/apps/v1/namespaces/{PLATFORM}/daemonsets/{workload}");
    until("without the old route", PATIENCE, async || {
        let left = get(&world.admin, &path).await?;
        left.is_null().then_some(()).ok_or_else(|| left.to_string())
    })
    .await;
}

async fn until_all_use(world: &OutageBed, mode: &str) {
    let what = format!("{REPLICAS} pods that use {mode}");
    world
        .until_status(AGENT, &what, |status| {
            status["mode"] == mode
                && status["pods"]["injected"] == REPLICAS
                && status["pods"]["current"] == REPLICAS
        })
        .await;
}
