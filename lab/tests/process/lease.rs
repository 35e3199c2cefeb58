//! Leader election: never two leaders at once, even if the connection breaks.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Config};
use otelagent_operator::runtime::lease::{LEASE_DURATION, RENEW_DEADLINE};
use otelagent_operator::runtime::{Fence, Leadership, LeaseSettings, Metrics, Term, client};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::cluster;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);
/// Longer than a candidate that waits needs to notice a lease that is free, and shorter than one takes to expire.
const SOON: Duration = Duration::from_secs(14);
/// Longer than a leader takes to renew, and shorter than its term lasts without that.
const RENEWAL: Duration = Duration::from_secs(9);
/// How much later than its end the end of a term is seen on a busy machine; half of what lies between that and the
/// beginning of another.
const LATE: Duration = Duration::from_millis(2500);

struct Candidate {
    leadership: Leadership,
    fence: Fence,
}

fn stand(config: Config, lease: &str, identity: &str) -> Candidate {
    let fence = Fence::closed();
    let client = client::connect(config, &Fence::open()).unwrap();
    let settings = LeaseSettings {
        namespace: "default".into(),
        name: lease.into(),
        identity: identity.into(),
    };
    let leadership = Leadership::campaign(&client, settings, &fence, &Metrics::new());
    Candidate { leadership, fence }
}

impl Candidate {
    async fn elected(&self, within: Duration) -> Term {
        timeout(within, self.leadership.wait_until_leader())
            .await
            .expect("not elected in time")
    }

    fn acts(&self) -> bool {
        self.leadership.is_leader() || self.fence.is_open()
    }
}

async fn leases() -> Api<Lease> {
    let client = client::connect(cluster::config().await, &Fence::open()).unwrap();
    Api::namespaced(client, "default")
}

async fn change(lease: &str, change: Value) {
    let parameters = PatchParams::default();
    leases()
        .await
        .patch(lease, &parameters, &Patch::Merge(change))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leads_and_a_released_lease_passes_at_once() {
    if !testbed::skip_unless_possible("leader election") {
        return;
    }
    let config = cluster::config().await;
    let first = stand(config.clone(), "handover", "first");
    first.elected(PATIENCE).await;
    let second = stand(config, "handover", "second");
    sleep(Duration::from_secs(3)).await;
    assert!(first.acts() && !second.acts());

    first.leadership.release().await;
    assert!(!first.fence.is_open());
    second.elected(SOON).await;
    assert!(second.acts());
    let spec = leases().await.get("handover").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("second"));
    assert_eq!(spec.lease_transitions, Some(1));
    second.leadership.release().await;
    let spec = leases().await.get("handover").await.unwrap().spec.unwrap();
    assert_eq!(spec.holder_identity, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn disconnected_leader_stops_before_another_starts() {
    if !testbed::skip_unless_possible("leader election, cut off") {
        return;
    }
    let (config, swallows) = cluster::black_hole().await;
    let first = stand(config, "cut-off", "first");
    let term = first.elected(PATIENCE).await;
    let second = stand(cluster::config().await, "cut-off", "second");
    sleep(Duration::from_secs(3)).await;
    assert!(first.acts() && !second.acts());

    let cut = Instant::now();
    swallows.send_replace(true);
    // When it was seen to act last: a test that is not scheduled for a while must not see an end later than it was.
    let (mut acted, mut started) = (Duration::ZERO, None);
    while started.is_none() && cut.elapsed() < LEASE_DURATION + PATIENCE {
        let now = cut.elapsed();
        if first.acts() {
            acted = now;
        }
        if second.acts() {
            started = Some(cut.elapsed());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let started = started.expect("the second never started");
    assert!(!first.acts(), "the first never stopped");
    assert!(acted <= RENEW_DEADLINE + LATE, "{acted:?}");
    assert!(started > acted, "{acted:?} {started:?}");
    timeout(PATIENCE, term.lost())
        .await
        .expect("the first did not notice");

    swallows.send_replace(false);
    // Time itself is tested: the first one is back, and must still not act after several renewals of the second.
    sleep(Duration::from_secs(5)).await;
    assert!(!first.acts() && second.acts());
}

#[tokio::test(flavor = "multi_thread")]
async fn annotated_lease_keeps_its_leader() {
    if !testbed::skip_unless_possible("leader election, lease annotated") {
        return;
    }
    let leader = stand(cluster::config().await, "note", "leader");
    let term = leader.elected(PATIENCE).await;
    change("note", json!({"metadata": {"annotations": {"note": "x"}}})).await;
    assert!(timeout(RENEWAL, term.lost()).await.is_err());
    assert!(leader.acts());
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_taken_by_hand_ends_the_leaders_term() {
    if !testbed::skip_unless_possible("leader election, lease taken") {
        return;
    }
    let leader = stand(cluster::config().await, "taken", "leader");
    let term = leader.elected(PATIENCE).await;
    change("taken", json!({"spec": {"holderIdentity": "somebody"}})).await;
    timeout(RENEWAL, term.lost())
        .await
        .expect("still believes to lead");
    assert!(!leader.acts());
    sleep(Duration::from_secs(3)).await;
    assert!(!leader.acts(), "took it back before it ran out");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_process_of_the_same_name_resumes_its_lease() {
    if !testbed::skip_unless_possible("leader election, started anew") {
        return;
    }
    let config = cluster::config().await;
    let killed = stand(config.clone(), "anew", "pod-0");
    killed.elected(PATIENCE).await;
    drop(killed.leadership);
    assert!(!killed.fence.is_open());
    stand(config, "anew", "pod-0").elected(SOON).await;
}
