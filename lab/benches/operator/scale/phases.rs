//! What is done, in order, and what is measured on the way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::agents::Agents;
use crate::load::{Created, Fate, Load};
use crate::measure::{Audit, Histogram, Requests};
use crate::operator::Operator;
use crate::report::{Table, ms, seconds};
use crate::world::{NODE_AGENTS, World, namespace};
use crate::{Args, Outcome, webhook};

/// The operator's own histogram.
const RECONCILE: &str = "otelagent_reconcile_duration_seconds";
/// The API server's histogram of all mutation by its built-in and policy plugins, by plugin.
const ADMISSION: &str = "apiserver_admission_controller_admission_duration_seconds";
const PLUGIN: &str = r#"name="MutatingAdmissionPolicy""#;
pub(crate) const LOAD_SECONDS: u32 = 60;
/// Into how many parts the load is cut where cases take turns.
const TURNS: u32 = 6;

pub(crate) async fn run(world: &World, args: &Args, before: &str) -> Outcome<String> {
    let begun = Instant::now();
    let _agents = Agents::start()?;
    let log = world.bed.audit_log().ok_or("no audit log")?;
    let say = |what: &str| eprintln!("scale: {:>4} s  {what}", begun.elapsed().as_secs());
    let operator_before = match &args.bed {
        Some(_) => None,
        None => Some(fill(world, args, &say).await?),
    };
    let filled = begun.elapsed();
    say("the operator starts anew");
    drop(operator_before);
    let mut audit = Audit::from_now(&log)?;
    let operator = Operator::start(world, &[])?;
    let mut table = Table::new();
    table.row(
        "start to all caches filled",
        "",
        &seconds(operator.synced_after),
        None,
    );

    until_quiet(&mut audit, &log).await?;
    let bar = if args.nodes > 1000 { 128 } else { 64 };
    memory(&mut table, &operator, bar, "RSS once it rests", "VmRSS:")?;
    memory(
        &mut table,
        &operator,
        bar,
        "peak RSS of the start",
        "VmHWM:",
    )?;
    say("at rest");
    let mut meter = Meter::start(operator, audit, log)?;
    rest(&mut meter, args, &mut table).await?;
    say("switch");
    switch(world, args, &mut table).await?;
    passes(&mut table, "of a switch", &meter.read()?.passes);
    say("pods come and go");
    come_and_go(world, args, &mut meter, &mut table).await?;
    memory(
        &mut table,
        &meter.operator,
        bar,
        "peak RSS, all of the above included",
        "VmHWM:",
    )?;
    say("admission");
    admission(world, args, &mut table).await?;
    say("the webhook in the place of policies");
    drop(meter);
    webhook::run(world, args, &mut table).await?;
    say("done");
    Ok(heading(args, filled, before) + &table.0)
}

/// Makes everything there is to be measured with; returns the operator that worked meanwhile.
async fn fill(world: &World, args: &Args, say: &impl Fn(&str)) -> Outcome<Operator> {
    say("namespaces");
    world.create_namespaces(args).await?;
    let operator = Operator::start(world, &[])?;
    say("OtelAgents");
    world.create_agents(args).await?;
    say("workloads");
    world.create_workloads(args).await?;
    Ok(operator)
}

/// The operator's own counter.
const ANSWERED: &str = r#"otelagent_delivery_polls_total{result="answered"}"#;
/// Every agent on a node is asked once in this time.
const ROUND_SECONDS: f64 = 30.0;

/// What is counted of the operator from one reading to the next.
struct Meter {
    operator: Operator,
    audit: Audit,
    log: PathBuf,
    passes: Histogram,
    answered: f64,
    cpu: f64,
}

/// What it did in between.
struct Reading {
    requests: Requests,
    passes: Histogram,
    /// Agents that were asked whether they deliver and answered.
    answered: f64,
    /// In seconds.
    cpu: f64,
}

impl Meter {
    fn start(operator: Operator, audit: Audit, log: PathBuf) -> Outcome<Self> {
        let mut meter = Self {
            passes: Histogram::default(),
            answered: 0.0,
            cpu: 0.0,
            operator,
            audit,
            log,
        };
        meter.read()?;
        Ok(meter)
    }

    fn read(&mut self) -> Outcome<Reading> {
        let (page, cpu) = (self.operator.metrics()?, self.operator.cpu()?);
        let passes = Histogram::parse(&page, RECONCILE);
        let answered = page.lines().find_map(|line| line.strip_prefix(ANSWERED));
        let answered = answered.map_or(Ok(0.0), |count| count.trim().parse())?;
        let reading = Reading {
            requests: self.audit.read(&self.log)?,
            passes: passes.since(&self.passes),
            answered: answered - self.answered,
            cpu: cpu - self.cpu,
        };
        (self.passes, self.answered, self.cpu) = (passes, answered, cpu);
        Ok(reading)
    }
}

fn memory(table: &mut Table, operator: &Operator, bar: u16, what: &str, line: &str) -> Outcome<()> {
    let figure = operator.memory(line)?;
    table.row(
        what,
        &format!("< {bar} MiB"),
        &format!("{figure:.1} MiB"),
        Some(figure < f64::from(bar)),
    );
    Ok(())
}

fn passes(table: &mut Table, when: &str, histogram: &Histogram) {
    table.row(
        &format!(
            "reconcile {when}: p50 / p99 of {:.0} reconciles",
            histogram.count()
        ),
        "",
        &quantiles(histogram),
        None,
    );
}

/// Median and 99th percentile, as far as the buckets tell.
fn quantiles(histogram: &Histogram) -> String {
    let quantile = |share| {
        let found = histogram.quantile(share);
        found.map_or("none".into(), |found| format!("{:.1} ms", found * 1e3))
    };
    format!("{} / {}", quantile(0.5), quantile(0.99))
}

/// The load average of the last minute.
pub(crate) fn load_average() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

fn heading(args: &Args, filled: Duration, before: &str) -> String {
    let mut text = format!("Command: `{}`\n\n", args.command);
    let (nodes, pods, agents) = (args.nodes, args.pods, args.agents);
    let load = load_average();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let filled = match &args.bed {
        None => format!("the cluster took {} to fill", seconds(filled)),
        Some(_) => "an earlier run had filled the cluster".to_owned(),
    };
    let _ = writeln!(
        text,
        "{nodes} simulated nodes, {pods} pods, {agents} OtelAgents ({NODE_AGENTS} of node modes), {} namespaces; \
         {cores} cores shared with the API server, the controllers and the simulator; load average {before} before anything was started, {load} at the end; \
         {filled}.\n",
        args.namespaces,
    );
    text
}

/// Waits until the operator has written nothing for half a minute.
async fn until_quiet(audit: &mut Audit, log: &std::path::Path) -> Outcome<()> {
    let begun = Instant::now();
    let mut quiet = 0;
    while quiet < 3 {
        if begun.elapsed() > Duration::from_mins(30) {
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

/// Long enough that every object is looked at once though nothing changed.
async fn rest(meter: &mut Meter, args: &Args, table: &mut Table) -> Outcome<()> {
    meter.read()?;
    tokio::time::sleep(Duration::from_secs(args.rest_seconds)).await;
    let Reading {
        requests,
        passes: looks,
        answered,
        cpu,
    } = meter.read()?;
    let seconds = args.rest_seconds;
    let shown = |all: usize, by: &BTreeMap<String, usize>| match all {
        0 => "0".to_owned(),
        some => format!("{some}: {by:?}"),
    };
    let writes = requests.all_writes();
    table.row(
        &format!("writes in {seconds} s at rest, without the Lease"),
        "0",
        &shown(writes, &requests.writes),
        Some(writes == 0),
    );
    let reads = requests.all_reads();
    table.row(
        "reads of objects meanwhile other than watches",
        "0",
        &shown(reads, &requests.reads),
        Some(reads == 0),
    );
    let a_minute = |count: usize| format!("{:.1}", count as f64 * 60.0 / seconds as f64);
    let others = format!(
        "watch {}, create by dry run {}, get and update of the Lease {}, version and kinds of the server {}",
        a_minute(requests.watches),
        a_minute(requests.dry_runs),
        a_minute(requests.lease),
        a_minute(requests.discovery),
    );
    table.row("other requests a minute meanwhile", "", &others, None);
    passes(table, "at rest", &looks);
    table.row("CPU at rest", "", &share(cpu, seconds as f64), None);
    polls(table, args, answered, cpu);
    Ok(())
}

/// How many agents the operator asks, and at what cost.
fn polls(table: &mut Table, args: &Args, answered: f64, cpu: f64) {
    let seconds = args.rest_seconds;
    let a_round = answered * ROUND_SECONDS / seconds as f64;
    let wanted = NODE_AGENTS * usize::from(args.nodes);
    // The operator asks at most 200 agents a second; a round of more than 6,000 takes longer.
    let is_bound = wanted <= 6000;
    let bar = if is_bound {
        format!("≥ {wanted}, all on nodes")
    } else {
        format!("all on nodes are {wanted}")
    };
    // A round need not end with the measurement.
    let met = is_bound.then_some(a_round >= 0.95 * wanted as f64);
    table.row(
        "agents that said in half a minute whether they deliver",
        &bar,
        &format!("{a_round:.0}"),
        met,
    );
    let of_thousand = cpu * 1000.0 / a_round.max(1.0);
    table.row(
        "all CPU at rest, for each 1,000 of them",
        "< 2 %",
        &share(of_thousand, seconds as f64),
        Some(of_thousand / (seconds as f64) < 0.02),
    );
}

fn share(cpu: f64, seconds: f64) -> String {
    format!("{:.1} % of a core", 100.0 * cpu / seconds)
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
        if now > Duration::from_mins(30) {
            return Err(format!("never switched: {status:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Namespaces of both kinds: with a sidecar object of their own, and selected by one of a node mode.
pub(crate) fn selected(args: &Args) -> Vec<String> {
    let sidecars = args.agents.saturating_sub(NODE_AGENTS).min(args.namespaces);
    let of_nodes = sidecars..args.namespaces;
    let some = (0..sidecars).take(20).chain(of_nodes.take(20));
    some.map(namespace).collect()
}

/// Real pods are created and deleted; none of them is anything but current, so little is to be written.
async fn come_and_go(
    world: &World,
    args: &Args,
    meter: &mut Meter,
    table: &mut Table,
) -> Outcome<()> {
    until_quiet(&mut meter.audit, &meter.log).await?;
    meter.read()?;
    let places = selected(args);
    let objects = places.len().min(20) + NODE_AGENTS;
    let load = Load {
        rate: 100,
        seconds: LOAD_SECONDS,
        fate: Fate::Live {
            nodes: (1..=args.nodes).map(|node| format!("sim{node}")).collect(),
            lifetime: Duration::from_secs(3),
        },
        places,
    };
    let created = load.run(&world.client).await?;
    // The last are still being deleted.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let Reading {
        requests,
        passes: looks,
        cpu,
        ..
    } = meter.read()?;
    let pods = created.took.len();
    table.row(
        &format!(
            "pods created and deleted a second, of {} wanted, in {objects} OtelAgents",
            load.rate
        ),
        "",
        &format!("{:.0}", created.rate()),
        None,
    );
    passes(table, "meanwhile", &looks);
    let writes = requests.status_writes();
    let bound = 2.0 * objects as f64 * (created.span.as_secs_f64() + 5.0);
    table.row(
        "status writes meanwhile",
        "≤ 2 a second and OtelAgent",
        &writes.to_string(),
        Some(writes as f64 <= bound),
    );
    let others = requests.all_writes() - writes;
    table.row(
        "other writes meanwhile",
        "0",
        &others.to_string(),
        Some(others == 0),
    );
    let all = requests.all_writes() + requests.all_reads() + requests.dry_runs + requests.watches;
    table.row(
        "requests of the operator per pod created",
        "",
        &format!("{:.3}", all as f64 / pods as f64),
        None,
    );
    table.row(
        "CPU meanwhile",
        "",
        &share(cpu, created.span.as_secs_f64() + 5.0),
        None,
    );
    Ok(())
}

/// Policies in the API server inject, so what is measured is that server's time. The cases take turns,
/// so that both see the same machine.
async fn admission(world: &World, args: &Args, table: &mut Table) -> Outcome<()> {
    // An earlier run on this bed may have made it.
    let known = ["get", "namespace", "unselected", "--ignore-not-found"];
    if world.kubectl(&known)?.is_empty() {
        world.kubectl(&["create", "namespace", "unselected"])?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut cases = [
        ("not selected", vec!["unselected".to_owned()]),
        ("injected", selected(args)),
    ]
    .map(|(what, places)| {
        let load = Load {
            places,
            rate: 100,
            seconds: LOAD_SECONDS / TURNS,
            fate: Fate::DryRun,
        };
        (what, load, Created::default(), Histogram::default())
    });
    for _ in 0..TURNS {
        for (_, load, created, policy) in &mut cases {
            let before = policy_engine(world)?;
            created.add(load.run(&world.client).await?);
            policy.add(&policy_engine(world)?.since(&before));
        }
    }
    for (what, _, created, policy) in cases {
        let calls = format!("{:.0} calls as the server counts them", policy.count());
        admitted(table, what, &created, ("policy engine", &calls), &policy);
    }
    Ok(())
}

/// Two rows: what the creator of pods sees, and what the engine takes of it, in so many of its
/// own calls.
pub(crate) fn admitted(
    table: &mut Table,
    what: &str,
    created: &Created,
    (engine, calls): (&str, &str),
    took: &Histogram,
) {
    let (median, worst) = (created.percentile(50), created.percentile(99));
    let rate = created.rate();
    table.row(
        &format!("pod created by dry run, {rate:.0} a second, {what}: whole request, p50 / p99"),
        "",
        &format!("{} / {}", ms(median), ms(worst)),
        None,
    );
    let p99 = took.quantile(0.99).unwrap_or(f64::INFINITY);
    table.row(
        &format!("the same: {engine}, p50 / p99 of {calls}"),
        "p99 < 5 ms",
        &quantiles(took),
        Some(p99 < 0.005),
    );
}

/// The server's time in its policy engine, of creations.
fn policy_engine(world: &World) -> Outcome<Histogram> {
    let metrics = world.kubectl(&["get", "--raw", "/metrics"])?;
    let creations: String = metrics
        .lines()
        .filter(|line| line.contains(PLUGIN) && line.contains("operation=\"CREATE\""))
        .fold(String::new(), |text, line| text + line + "\n");
    Ok(Histogram::parse(&creations, ADMISSION))
}
