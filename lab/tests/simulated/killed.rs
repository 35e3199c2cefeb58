//! The real process, killed (SIGKILL) at any moment of a switch and restarted under the same name, as a kubelet does;
//! or paused past its lease, with a second one beside it.
//!
//! No layer here sees its writes. Versions of objects that do not change show that it writes nothing at rest.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use super::cluster::whole_cluster;
use super::process::OperatorProcess;
use super::run::{Outcome, Run};
use super::topology::ALL;
use crate::test_scale::{is_full, seed};

/// How long after a change of the spec the process is killed at the latest: a switch takes about as long.
const SWITCH: u64 = 6000;
/// Kills in a full run, and otherwise.
const KILLS: (usize, usize) = (10, 3);
/// Longer than a lease, which is taken over meanwhile.
const PAUSE: Duration = Duration::from_secs(25);
/// How long nothing may be written.
const QUIET: Duration = Duration::from_secs(5);

/// When the n-th kill comes, in milliseconds after the change: drawn by the seed.
fn moment(nth: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed(), nth).hash(&mut hasher);
    hasher.finish() % SWITCH
}

#[tokio::test(flavor = "multi_thread")]
async fn process_killed_or_paused_past_its_lease_leaves_nothing_behind() {
    if !testbed::skip_unless_possible("the operator's process killed") {
        return;
    }
    let cluster = whole_cluster().await;
    let kubeconfig = tokio::task::spawn_blocking(|| cluster.operator_kubeconfig());
    let kubeconfig = kubeconfig.await.unwrap();
    let mut run = Run::start_on(cluster).await;
    run.without_controller().await;
    let outcome = tell(&run, &kubeconfig).await;
    run.end().await;
    outcome.unwrap_or_else(|wrong| panic!("{wrong}"));
}

async fn tell(run: &Run, kubeconfig: &Path) -> Outcome<()> {
    let mut process = OperatorProcess::start(kubeconfig, run, "one");
    run.create(ALL[0]).await?;
    run.until_serving(ALL[0]).await?;
    run.applications().await?;
    run.until_settled(ALL[0]).await?;
    let kills = if is_full() { KILLS.0 } else { KILLS.1 };
    for nth in 1..=kills {
        let to = ALL[nth % ALL.len()];
        run.want(to).await?;
        let after = moment(nth);
        sleep(Duration::from_millis(after)).await;
        drop(process);
        println!("killed {after} ms after the change to {}", to.name);
        process = OperatorProcess::start(kubeconfig, run, "one");
        run.until_serving(to).await?;
        run.roll().await?;
    }
    let last = ALL[kills % ALL.len()];
    run.until_settled(last).await?;

    let paused_at = ALL[(kills + 1) % ALL.len()];
    let second = OperatorProcess::start(kubeconfig, run, "two");
    run.want(paused_at).await?;
    sleep(Duration::from_millis(moment(0) / 2)).await;
    process.signal("-STOP");
    sleep(PAUSE).await;
    run.want(last).await?;
    run.until_serving(last).await?;
    process.signal("-CONT");
    process.until_it_ends().await?;
    run.roll().await?;
    run.until_settled(last).await?;
    run.judge(Some(last), None).await?;
    let before = written(run);
    sleep(QUIET).await;
    let after = written(run);
    drop(second);
    if before == after {
        Ok(())
    } else {
        Err(format!("written at rest: {:?}", &after[before.len()..]))
    }
}

/// Changes of the objects that the operator writes, as the independent watcher saw them.
fn written(run: &Run) -> Vec<(u64, &'static str)> {
    let events = run.cluster.recorder.events(&run.namespace);
    let events = events.iter().filter(|seen| seen.kind != "Pod");
    events.map(|seen| (seen.revision, seen.kind)).collect()
}
