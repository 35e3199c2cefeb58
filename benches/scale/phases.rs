//! What is done, in order, and what is measured on the way.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::measure::{Audit, Histogram, Requests};
use crate::operator::Operator;
use crate::report::{Table, ms, seconds};
use crate::world::{Load, NODE_AGENTS, World, namespace};
use crate::{Args, Outcome};

/// The operator's own histogram.
const RECONCILE: &str = "otelagent_reconcile_duration_seconds";
/// The API server's histogram of all mutation by its built-in and policy plugins, by plugin.
const ADMISSION: &str = "apiserver_admission_controller_admission_duration_seconds";
const PLUGIN: &str = r#"name="MutatingAdmissionPolicy""#;
const CHURN_SECONDS: u32 = 60;

pub(crate) async fn run(world: &World, args: &Args) -> Outcome<String> {
    let begun = Instant::now();
    let log = world.bed.audit_log().ok_or("no audit log")?;
    let say = |what: &str| eprintln!("scale: {:>4} s  {what}", begun.elapsed().as_secs());
    say("namespaces");
    world.create_namespaces(args).await?;
    let first = Operator::start(world)?;
    say("OtelAgents");
    world.create_agents(args).await?;
    say("workloads");
    world.create_workloads(args).await?;
    let filled = begun.elapsed();
    say("the operator starts anew");
    drop(first);
    let mut audit = Audit::from_now(&log)?;
    let operator = Operator::start(world)?;
    let mut table = Table::new();
    table.row(
        "start to all caches filled",
        "",
        &seconds(operator.synced_after),
        None,
    );

    until_quiet(&mut audit, &log).await?;
    say("at rest");
    tokio::time::sleep(Duration::from_mins(1)).await;
    at_rest(&mut table, &audit.read(&log)?);
    let rest = operator.memory("VmRSS:")?;
    table.row(
        "RSS at rest",
        "< 64 MiB",
        &format!("{rest:.1} MiB"),
        Some(rest < 64.0),
    );

    say("switch");
    let before = Histogram::parse(&operator.metrics()?, RECONCILE);
    switch(world, args, &mut table).await?;
    say("churn");
    churn(world, &operator, &mut audit, &log, &mut table).await?;
    let reconciles = Histogram::parse(&operator.metrics()?, RECONCILE).since(&before);
    let p99 = reconciles
        .quantile(0.99)
        .map_or("none".into(), |p99| format!("{:.0} ms", p99 * 1e3));
    table.row(
        &format!(
            "reconcile p99, {:.0} passes during switch and churn",
            reconciles.count()
        ),
        "",
        &p99,
        None,
    );
    let most = operator.memory("VmHWM:")?;
    table.row(
        "peak RSS, start, switch and churn included",
        "< 64 MiB",
        &format!("{most:.1} MiB"),
        Some(most < 64.0),
    );
    say("admission");
    admission(world, args, &mut table).await?;
    say("done");
    Ok(heading(args, filled) + &table.0)
}

fn heading(args: &Args, filled: Duration) -> String {
    let mut text = format!("Command: `{}`\n\n", args.command);
    let (nodes, pods, agents) = (args.nodes, args.pods, args.agents);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let _ = writeln!(
        text,
        "{nodes} simulated nodes, {pods} pods, {agents} OtelAgents ({NODE_AGENTS} of node modes), {} namespaces; \
         {cores} cores shared with the API server, the controllers and the simulator; load average at the end: {load}; \
         the cluster took {} to fill.\n",
        args.namespaces,
        seconds(filled),
    );
    text
}

/// Waits until the operator has written nothing for half a minute.
async fn until_quiet(audit: &mut Audit, log: &std::path::Path) -> Outcome<()> {
    let begun = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        if begun.elapsed() > Duration::from_mins(5) {
            return Err("the operator does not come to rest".into());
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let requests = audit.read(log)?;
        quiet = if requests.all_writes() == 0 {
            quiet + 1
        } else {
            0
        };
    }
    Ok(())
}

fn at_rest(table: &mut Table, minute: &Requests) {
    let writes = minute.all_writes();
    let shown = if writes == 0 {
        "0".into()
    } else {
        format!("{writes}: {:?}", minute.writes)
    };
    table.row(
        "writes a minute at rest, without the Lease",
        "0",
        &shown,
        Some(writes == 0),
    );
    let reads: usize = minute.reads.values().sum();
    let shown = if reads == 0 {
        "0".into()
    } else {
        format!("{reads}: {:?}", minute.reads)
    };
    table.row(
        "reads a minute at rest that are no watches",
        "0",
        &shown,
        Some(reads == 0),
    );
    let others = format!(
        "{} watches renewed, {} for the Lease, {} dry runs",
        minute.watches, minute.lease, minute.dry_runs
    );
    table.row("other requests a minute at rest", "", &others, None);
}

async fn switch(world: &World, args: &Args, table: &mut Table) -> Outcome<()> {
    let begun = Instant::now();
    let generation = world.switch("agent-0", "HostPort").await?;
    let (mut observed, mut agents) = (None, None);
    loop {
        let status = world.agent_status("agent-0").await?;
        let now = begun.elapsed();
        if observed.is_none() && status.observed_generation == Some(generation) {
            observed = Some(now);
        }
        if status.mode.is_some_and(|mode| mode.as_str() == "HostPort") {
            table.row(
                "switch: patch to observedGeneration",
                "",
                &seconds(observed.unwrap_or(now)),
                None,
            );
            let all = format!("switch: patch to the last of {} agents ready", args.nodes);
            table.row(&all, "", &seconds(agents.unwrap_or(now)), None);
            table.row(
                "switch: patch to the new mode in status",
                "",
                &seconds(now),
                None,
            );
            return Ok(());
        }
        if agents.is_none()
            && world.ready_agents("agent-0-host-port").await? == i32::from(args.nodes)
        {
            agents = Some(begun.elapsed());
        }
        if now > Duration::from_mins(10) {
            return Err(format!("never switched: {status:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn churn(
    world: &World,
    operator: &Operator,
    audit: &mut Audit,
    log: &std::path::Path,
    table: &mut Table,
) -> Outcome<()> {
    until_quiet(audit, log).await?;
    let cpu = operator.cpu()?;
    let places: Vec<String> = (0..20).map(namespace).collect();
    let _ = world
        .create_pods(&places, 20, CHURN_SECONDS, Load::Churn)
        .await?;
    let requests = audit.read(log)?;
    let spent = operator.cpu()? - cpu;
    table.row(
        "status writes a minute while 20 pods a second come and go, in 20 OtelAgents",
        "bounded: ≤ 2 a second and OtelAgent",
        &requests.status_writes().to_string(),
        Some(requests.status_writes() <= 2 * places.len() * CHURN_SECONDS as usize),
    );
    let others = requests.all_writes() - requests.status_writes();
    table.row(
        "other writes meanwhile",
        "0",
        &others.to_string(),
        Some(others == 0),
    );
    let share = 100.0 * spent / f64::from(CHURN_SECONDS);
    table.row(
        "CPU meanwhile",
        "",
        &format!("{share:.0} % of a core"),
        None,
    );
    Ok(())
}

/// There is no webhook: policies in the API server inject. So what is measured is that server's time.
async fn admission(world: &World, args: &Args, table: &mut Table) -> Outcome<()> {
    world.kubectl(&["create", "namespace", "unselected"])?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sidecars = args.agents.saturating_sub(NODE_AGENTS).clamp(1, 20);
    let selected: Vec<String> = (0..sidecars).map(namespace).collect();
    for (what, places) in [
        ("not selected", vec!["unselected".to_owned()]),
        ("injected", selected),
    ] {
        let read = || -> Outcome<Histogram> {
            let metrics = world.kubectl(&["get", "--raw", "/metrics"])?;
            let pods: String = metrics
                .lines()
                .filter(|line| line.contains(PLUGIN) && line.contains("operation=\"CREATE\""))
                .fold(String::new(), |text, line| text + line + "\n");
            Ok(Histogram::parse(&pods, ADMISSION))
        };
        let before = read()?;
        let mut took = world.create_pods(&places, 100, 20, Load::DryRun).await?;
        let policy = read()?.since(&before);
        took.sort_unstable();
        let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)];
        table.row(
            &format!("pod created by dry run, 100 a second, {what}: whole request, p50 / p99"),
            "",
            &format!("{} / {}", ms(at(50)), ms(at(99))),
            None,
        );
        let quantile = |share| {
            policy
                .quantile(share)
                .map_or("none".into(), |q| format!("{:.1} ms", q * 1e3))
        };
        let p99 = policy.quantile(0.99).unwrap_or(f64::INFINITY);
        table.row(
            &format!(
                "the same: policy engine, p50 / p99 of {:.0} as the server counts them",
                policy.count()
            ),
            "p99 < 5 ms",
            &format!("{} / {}", quantile(0.5), quantile(0.99)),
            Some(p99 < 0.005),
        );
    }
    Ok(())
}
