//! API servers stop, start and join, and lag behind each other.

use std::time::{Duration, Instant};

use serde_json::json;
use testbed::Component;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::creator::{Creator, How, Outcomes};
use super::world::{OutageBed, PATIENCE, PLATFORM, Process, client, until};
use crate::test_scale::is_full;

const AGENT: (&str, &str) = (PLATFORM, "node");
/// Between two pods of one creator.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one API server lags at a cut-over: longer than the operator waits before it restarts anything, shorter
/// than it keeps the old policy.
const BEHIND: Duration = Duration::from_secs(6);

/// Longer than the operator takes to recover from an outage, shorter than its periodic reconcile.
const SOON: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn no_pod_is_missed_while_api_servers_restart_join_or_lag() {
    if !testbed::skip_unless_possible("API servers that come and go") {
        return;
    }
    let world = OutageBed::start("servers").await;
    let mut operator = world.serve_shop(AGENT).await;

    let first = Creator::start(&world.admin, "shop", How::DryRun, 1, PAUSE);
    first.until_more(20).await;
    for _ in 0..if is_full() { 10 } else { 2 } {
        block_in_place(|| world.bed.stop_apiserver()).unwrap();
        block_in_place(|| world.bed.start_apiserver()).unwrap();
        first.until_more(20).await;
    }
    what_went_unseen_is_made_again(&world, &operator).await;
    first.until_more(20).await;
    let second = join(&world).await;
    second.until_more(20).await;
    cut_over(&world, &first, &second).await;

    operator.must_run();
    for (server, creator) in [("the first", first), ("the second", second)] {
        let outcome = creator.end().await;
        println!("{} pods by {server} server", outcome.answered.len());
        judge(server, &outcome);
    }
    world.check_status(AGENT).await;
    drop(operator);
    world.end();
}

/// An object of the operator is deleted while the operator is disconnected. A new API server, which never had the
/// object in its watch cache, replaces the old one, so only a new list can show the loss.
async fn what_went_unseen_is_made_again(world: &OutageBed, operator: &Process) {
    operator.pause();
    for binding in world.warnings(AGENT).await.unwrap() {
        world.delete(&binding).await;
    }
    block_in_place(|| world.bed.stop_apiserver()).unwrap();
    block_in_place(|| world.bed.start_apiserver()).unwrap();
    operator.resume();
    until("made again", SOON, async || {
        let found = world.warnings(AGENT).await?;
        (found.len() == 1)
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await;
}

/// A second server joins; even the first pod that it admits must be injected.
async fn join(world: &OutageBed) -> Creator {
    let bed = &world.bed;
    let kubeconfig = block_in_place(|| bed.start_second_apiserver()).unwrap();
    bed.kill_process(Component::SecondApiServer).unwrap();
    let direct = client(&kubeconfig).await;
    let creator = Creator::start(&direct, "shop", How::DryRun, 1, PAUSE);
    block_in_place(|| bed.start_second_apiserver()).unwrap();
    creator
}

/// The mode changes while the second server is disconnected. When it continues it still has the old mode, whose
/// policy exists until long after.
async fn cut_over(world: &OutageBed, first: &Creator, second: &Creator) {
    world.bed.pause_process(Component::SecondApiServer).unwrap();
    world
        .want(AGENT.0, AGENT.1, json!({"mode": "HostPort"}))
        .await;
    world.until_serving(AGENT, "HostPort").await;
    let served = Instant::now();
    sleep(BEHIND).await;
    let policies = world.policies(AGENT).await;
    assert_eq!(policies, Ok(2), "the old policy stays for who is behind");
    world
        .bed
        .resume_process(Component::SecondApiServer)
        .unwrap();
    for creator in [first, second] {
        until("given HostPort", PATIENCE, async || {
            let last = creator.last();
            let is_new = last.as_ref().is_some_and(|last| {
                last.begun > served && last.mode.as_deref() == Some("HostPort")
            });
            is_new.then_some(()).ok_or_else(|| format!("{last:?}"))
        })
        .await;
    }
    until("without the old policy", PATIENCE, async || {
        let left = world.policies(AGENT).await?;
        (left == 1).then_some(()).ok_or_else(|| format!("{left}"))
    })
    .await;
    for creator in [first, second] {
        creator.until_more(20).await;
    }
}

/// Every created pod is injected, and no server returns to the old mode.
fn judge(server: &str, outcome: &Outcomes) {
    let missed = outcome.missed();
    assert!(missed.is_empty(), "by {server} server: {missed:?}");
    let modes = outcome.modes();
    assert!(
        modes == ["NodeLocal", "HostPort"],
        "by {server} server pods were given {modes:?}"
    );
}
