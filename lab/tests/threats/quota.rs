//! Thousands of `OtelAgent`s of one tenant, which must not affect other tenants.
//!
//! The test has its own bed. `make test` makes one thousand, `OTELAGENT_FULL` ten thousand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use otelagent_core::build::MAX_PER_NAMESPACE;
use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use serde_json::json;
use tokio::task::JoinSet;

use super::bed::{
    ADMISSION, Caller, PLATFORM, ThreatBed, agents_of, condition, is_possible, settings, sidecar,
    until, until_within,
};
use crate::test_scale::is_full;

const NAMESPACE: &str = "t-quota";
/// Concurrent creations.
const AT_A_TIME: usize = 16;

/// The longest time in which a pod is created meanwhile, on a busy machine too: admission asks no operator.
const POD: Duration = Duration::from_secs(30);

/// The longest time in which a latecomer and a change of the platform's are served, on a busy machine too. It finds
/// work that grows with every object over the quota; whether these have turns of their own shows in the time printed.
const LATECOMER: Duration = Duration::from_mins(3);

fn total() -> usize {
    if is_full() { 10_000 } else { 1_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_over_quota_stop_and_delay_no_other_tenant() {
    if !is_possible("ten thousand OtelAgents of one tenant") {
        return;
    }
    let world = tokio::task::spawn_blocking(|| {
        let world = ThreatBed::start("quota", |bed| bed);
        world.run_operator(settings(InjectionSettings::default()));
        world
    });
    let world = Arc::new(world.await.unwrap());
    let admin = world.admin().await;
    admin.namespace("t-shared", json!({"shared": "yes"})).await;
    let selected = json!({"workloads": {"namespaceSelector": {"matchLabels": {"shared": "yes"}}}});
    assert!(
        admin
            .agent(PLATFORM, "shared", &sidecar(&selected))
            .await
            .is_ok()
    );
    admin.until_injecting(PLATFORM, "shared").await;
    let tenant = Arc::new(world.tenant(NAMESPACE).await);

    let begun = Instant::now();
    let made = Arc::new(AtomicUsize::new(0));
    let mut makers = JoinSet::new();
    for _ in 0..AT_A_TIME {
        makers.spawn(make(tenant.clone(), made.clone()));
    }
    // While they come: pods are injected, and a neighbour that comes meanwhile is served.
    let neighbour = world.tenant("t-neighbour").await;
    assert!(
        neighbour
            .agent("t-neighbour", "own", &sidecar(&json!({})))
            .await
            .is_ok()
    );
    let mut slowest = Duration::ZERO;
    while !makers.is_empty() {
        let asked = Instant::now();
        let by = admin.injected_by("t-shared").await;
        assert_eq!(by, Some(format!("{PLATFORM}.shared")));
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
        while makers.try_join_next().is_some() {}
    }
    let all_made = begun.elapsed();
    neighbour.until_injecting("t-neighbour", "own").await;
    // And so is one that comes afterwards, and the platform's when it is changed.
    let late = Instant::now();
    let latecomer = world.tenant("t-latecomer").await;
    assert!(
        latecomer
            .agent("t-latecomer", "own", &sidecar(&json!({})))
            .await
            .is_ok()
    );
    latecomer.until_injecting("t-latecomer", "own").await;
    let changed = json!({"resourceAttributes": {"changed": "yes"}});
    assert!(admin.change(PLATFORM, "shared", &changed).await.is_ok());
    admin.until_injecting(PLATFORM, "shared").await;
    let served = late.elapsed();
    println!(
        "{} OtelAgents in {all_made:?}; the slowest pod meanwhile took {slowest:?}; who came afterwards was served within {served:?}",
        total()
    );
    assert!(slowest < POD && served < LATECOMER, "too late");
    everybody_is_told(&tenant).await;
    println!(
        "all of them were judged {:?} after the first was made",
        begun.elapsed()
    );
    let kinds = [
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
    ];
    for kind in kinds {
        until("few objects of the cluster", async || {
            let objects = admin.list(&format!("{ADMISSION}/{kind}")).await;
            let owned = objects.iter().filter(|object| {
                let owner = object["metadata"]["labels"][names::LABEL_OWNER].as_str();
                owner.is_some_and(|owner| owner.starts_with(NAMESPACE))
            });
            // Some were among the oldest for a moment, and keep what they had; older policies go later.
            let count = owned.count();
            let few = count <= 2 * MAX_PER_NAMESPACE;
            few.then_some(()).ok_or_else(|| format!("{count} {kind}"))
        })
        .await;
    }
}

/// Each selects other pods, which is the worst case for every agent that must leave them alone.
async fn make(tenant: Arc<Caller>, made: Arc<AtomicUsize>) {
    loop {
        let number = made.fetch_add(1, Ordering::Relaxed);
        if number >= total() {
            return;
        }
        let selector =
            json!({"matchLabels": {"app": format!("app-{number}"), "more": "x".repeat(60)}});
        let spec = sidecar(&json!({"workloads": {"podSelector": selector}}));
        let answer = tenant.agent(NAMESPACE, &format!("a{number}"), &spec).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
}

/// The operator refuses all but the oldest, with the reason; of ten thousand, the last after a while.
async fn everybody_is_told(tenant: &Caller) {
    let patience = Duration::from_mins(if is_full() { 30 } else { 5 });
    until_within(patience, "every agent reported", async || {
        let agents = tenant.list(&agents_of(NAMESPACE)).await;
        let accepted = |agent: &serde_json::Value| condition(&agent["status"], "Accepted");
        let refused = agents
            .iter()
            .filter(|agent| accepted(agent)["reason"] == "TooManyInNamespace")
            .count();
        let taken = agents
            .iter()
            .filter(|agent| accepted(agent)["status"] == "True")
            .count();
        if refused == total() - MAX_PER_NAMESPACE && taken == MAX_PER_NAMESPACE {
            return Ok(());
        }
        // Thousands are a long list, which the server had better not be asked for all the time.
        tokio::time::sleep(Duration::from_secs(5)).await;
        Err(format!("{taken} taken, {refused} refused"))
    })
    .await;
}
