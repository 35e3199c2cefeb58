//! The controller sees an old view: watches that lag, break or lose events, a pod that it does not see, and lists of an
//! earlier time at its start (the stale and unobserved states of Sieve, OSDI'22).

use std::time::Duration;

use futures::StreamExt;
use tokio::time::sleep;

use super::run::{Outcome, REPLICAS, Reference, Run, Story, run};
use super::sample::drawn;
use super::topology::{ALL, Topology};
use super::views::{Release, Snapshot};
use crate::test_scale::is_wanted;

/// Runs at once.
const AT_ONCE: usize = 12;
/// Runs drawn in `make test`.
const SAMPLE: usize = 8;
/// How long an old view is shown: longer than an old route is held, and than an older policy is kept.
const LONG: Duration = Duration::from_secs(30);
/// How long the old route is held for a pod that comes late: time enough to create it on a busy machine, and less
/// than [`LONG`], so that the route would go meanwhile.
const HELD: &str = "20s";
/// How long a controller that may not see a change gets to act on it.
const A_WHILE: Duration = Duration::from_secs(8);

const INJECTION: [&str; 4] = crate::status_checker::end_state::ADMISSION;

/// The kinds with an old view, as plurals.
const KINDS: [&[&str]; 9] = [
    &["pods"],
    &["configmaps"],
    &["daemonsets"],
    &["services"],
    &["nodes"],
    &["otelagents"],
    &INJECTION,
    &["otelagents", INJECTION[0], INJECTION[1]],
    &[
        "pods",
        "configmaps",
        "daemonsets",
        "services",
        "nodes",
        "otelagents",
        INJECTION[0],
        INJECTION[1],
        INJECTION[2],
        INJECTION[3],
    ],
];

/// The old view, and when the controller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// Nothing of these kinds from before the switch until long after it.
    Lags(&'static [&'static str], Release),
    /// Everything, over watches that are ended every other second.
    Breaks(Release),
    /// Not the pod that comes on the old route once no other pod uses that any more.
    Misses(&'static [&'static str]),
    /// After a switch there and back, to a controller that starts then: these kinds as they were in between.
    Returns(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug)]
struct StaleTrial {
    from: Topology,
    to: Topology,
    view: View,
}

impl StaleTrial {
    /// What it ends in.
    fn last(self) -> Topology {
        match self.view {
            View::Returns(_) => self.from,
            _ => self.to,
        }
    }
}

impl std::fmt::Display for StaleTrial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}: {:?}", self.from.name, self.to.name, self.view)
    }
}

/// Every topology once as the old one and once as the new one, with every view.
fn trials() -> Vec<StaleTrial> {
    let mut trials = Vec::new();
    for (at, from) in ALL.into_iter().enumerate() {
        let to = ALL[(at + 1) % ALL.len()];
        let releases = [Release::Late, Release::Cut, Release::Gone];
        for (nth, kinds) in KINDS.into_iter().enumerate() {
            let release = releases[(at + nth) % releases.len()];
            trials.push((from, to, View::Lags(kinds, release)));
            trials.push((from, to, View::Returns(kinds)));
        }
        for release in [Release::Cut, Release::Gone] {
            trials.push((from, to, View::Breaks(release)));
        }
        if from.mode != "Sidecar" {
            for kinds in [KINDS[0], KINDS[7]] {
                trials.push((from, to, View::Misses(kinds)));
            }
        }
    }
    let trials = trials.into_iter();
    trials
        .map(|(from, to, view)| StaleTrial { from, to, view })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_cache_removes_no_route_in_use_and_converges() {
    if !testbed::skip_unless_possible("old views") {
        return;
    }
    let mut trials = trials();
    trials.retain(|trial| is_wanted(&trial.to_string()));
    assert!(!trials.is_empty(), "no run begins so");
    let trials = drawn(trials, SAMPLE);
    let mut ends: Vec<Topology> = Vec::new();
    for trial in &trials {
        if !ends.contains(&trial.last()) {
            ends.push(trial.last());
        }
    }
    let fresh: Vec<(Topology, Reference)> = futures::stream::iter(ends)
        .map(|topology| async move {
            let reported = run(Story::Create(topology), None, None).await;
            (topology, reported.unwrap().expect("a run without a plan"))
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let fresh = &fresh;
    let outcomes: Vec<(StaleTrial, Outcome<()>)> = futures::stream::iter(trials)
        .map(|trial| async move {
            let end = fresh.iter().find(|(topology, _)| *topology == trial.last());
            let mut run = Run::start().await;
            let outcome = tell(&mut run, trial, &end.expect("a fresh object").1).await;
            run.end().await;
            match &outcome {
                Ok(()) => println!("{trial}: passed"),
                Err(wrong) => println!("{trial}: FAILED ({wrong})"),
            }
            (trial, outcome)
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failed: Vec<String> = outcomes
        .iter()
        .filter_map(|(trial, outcome)| Some(format!("{trial}\n    {}", outcome.as_ref().err()?)))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {}:\n{}",
        failed.len(),
        outcomes.len(),
        failed.join("\n")
    );
}

async fn tell(run: &mut Run, trial: StaleTrial, fresh: &Reference) -> Outcome<()> {
    let StaleTrial { from, to, view } = trial;
    run.create(from).await?;
    run.until_serving(from).await?;
    run.applications().await?;
    run.until_settled(from).await?;
    match view {
        View::Lags(kinds, release) => {
            run.views().hold(kinds, run.snapshot(kinds).await?);
            run.want(to).await?;
            sleep(A_WHILE).await;
            run.roll().await?;
            sleep(A_WHILE).await;
            // The next one begins with the same old view.
            run.restart(|_| ()).await;
            sleep(A_WHILE).await;
            run.views().release(release);
            run.until_serving(to).await?;
            run.roll().await?;
        }
        View::Breaks(release) => {
            run.want(to).await?;
            for round in 0..8 {
                sleep(Duration::from_secs(2)).await;
                run.views().end(release);
                if round == 4 {
                    run.roll().await?;
                }
            }
            run.until_serving(to).await?;
            run.roll().await?;
        }
        View::Misses(kinds) => {
            run.hold_old(HELD).await?;
            run.want(to).await?;
            run.until_serving(to).await?;
            run.scale(0).await?;
            run.until_counted(0).await?;
            // While the route is held.
            run.views().hold(kinds, Snapshot::default());
            run.late_pod(from.mode).await?;
            sleep(LONG).await;
            run.views().release(Release::Late);
            run.hold_old(Run::HOLD_OLD).await?;
            run.end_late_pod().await?;
            run.scale(REPLICAS).await?;
        }
        View::Returns(kinds) => {
            run.want(to).await?;
            run.until_serving(to).await?;
            run.roll().await?;
            run.until_counted(REPLICAS).await?;
            let old = run.snapshot(kinds).await?;
            run.want(from).await?;
            run.until_serving(from).await?;
            run.scale(0).await?;
            run.until_counted(0).await?;
            run.restart(|run| run.views().hold(kinds, old)).await;
            sleep(LONG).await;
            run.scale(REPLICAS).await?;
            sleep(A_WHILE).await;
            run.views().release(Release::Late);
        }
    }
    if matches!(view, View::Lags(..) | View::Returns(_)) && run.views().given() == 0 {
        return Err("nothing old was shown, so this verifies nothing".into());
    }
    let last = trial.last();
    run.until_settled(last).await?;
    run.judge(Some(last), Some(&fresh.end)).await.map(drop)
}
