//! Every switch between two topologies, and every update of an agent, under load, with what became of the
//! telemetry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use demo::account::{Account, longest_gaps, settle};
use demo::apps::{self, App};
use demo::follow::Follower;
use demo::ledger::Client;
use demo::report::{self, Row, Setting};
use demo::steps::{self, Topology};
use demo::tour::every_pair;
use demo::{Error, Kubectl, Result, images};
use serde_json::json;
use testbed::{Bed, Cluster};

use crate::show::Show;

const BED: &str = "switch-matrix";
const NODES: u8 = 2;
/// How long telemetry may take from an application to the ledger before it counts as lost.
const ARRIVAL: Duration = Duration::from_secs(20);
/// So that a gap shows what the switch did, not how long an SDK collects.
const EXPORT_INTERVAL_MS: u32 = 500;

/// What is measured.
#[derive(Args)]
pub(crate) struct Options {
    /// Spans, log records and counts per second and pod, each.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Make only this many switches.
    #[arg(long)]
    first: Option<usize>,
    /// Measure no updates of the agents.
    #[arg(long)]
    no_updates: bool,
    /// The Markdown file whose tables are written anew.
    #[arg(long)]
    document: Option<PathBuf>,
}

/// Makes all switches.
pub(crate) fn matrix(show: &Show, options: &Options) -> Result<()> {
    let tars = show.step("images built", images::ensure_all)?;
    let cluster = show.step("cluster", || {
        Ok(Cluster::from_env_or_bed(
            Bed::builder().name(BED).nodes(NODES),
        )?)
    })?;
    show.step("images on every node", || images::load_all(&cluster, &tars))?;
    let kubectl = Kubectl::new(&cluster.kubectl()?);
    let nodes = cluster.node_names()?.len();
    let tour = every_pair(&Topology::ALL);
    prepare(show, &kubectl, tour[0], options.rate)?;
    let mut measurement = Measurement {
        show,
        follower: Follower::new(&kubectl, apps::NAMESPACE),
        kubectl,
        nodes,
        before: Account::default(),
        heard: BTreeMap::new(),
    };
    measurement.warm_up()?;
    let (mut switches, mut updates) = (Vec::new(), Vec::new());
    let steps = tour.len() - 1;
    let mut visited = Vec::new();
    for step in tour.windows(2).take(options.first.unwrap_or(steps)) {
        let &[from, to] = step else { continue };
        if !options.no_updates && !visited.contains(&from) {
            updates.push(measurement.update(from, visited.len() + 1)?);
            visited.push(from);
        }
        switches.push(measurement.switch(from, to)?);
    }
    let setting = Setting {
        rate: options.rate,
        nodes,
        pods: apps::pods(&measurement.kubectl, apps::NAMESPACE)?.len(),
        export_interval_ms: EXPORT_INTERVAL_MS,
    };
    let tables = [
        ("switches", report::switches(&setting, &switches)),
        ("updates", report::updates(&updates)),
    ];
    for (_, table) in &tables {
        println!("\n{table}");
    }
    if let Some(document) = &options.document {
        report::write(document, &tables)?;
    }
    let by_switches = switches.iter().map(|row| row.account.lost);
    let by_updates = updates.iter().map(Row::unexplained);
    let items: u64 = by_switches.chain(by_updates).sum();
    if items > 0 {
        return Err(Error::Lost { items });
    }
    Ok(())
}

fn prepare(show: &Show, kubectl: &Kubectl, first: Topology, rate: u32) -> Result<()> {
    show.step("operator, collector and ledger", || {
        steps::install(kubectl)?;
        steps::apply_upstream(kubectl)
    })?;
    show.step(&format!("OtelAgent, {first}"), || {
        steps::apply_agent(kubectl)?;
        // Prefer allows no host metadata; without it from the beginning, a switch changes nothing else.
        steps::switch(kubectl, Topology::NodeLocalPrefer)?;
        steps::switch_alone(kubectl, first)?;
        steps::wait_serving(kubectl, first)
    })?;
    let apps = [App::rust_sdk(), App::go_sdk()].map(|mut app| {
        app.args.pop();
        app.args.push(format!("--rate={rate}"));
        app.args.push("--signals=traces,metrics,logs".to_owned());
        for variable in [
            "OTEL_BSP_SCHEDULE_DELAY",
            "OTEL_BLRP_SCHEDULE_DELAY",
            "OTEL_METRIC_EXPORT_INTERVAL",
        ] {
            let value = EXPORT_INTERVAL_MS.to_string();
            app.env.push((variable.to_owned(), value));
        }
        app
    });
    show.step("applications", || {
        apps::apply(kubectl, &apps)?;
        steps::wait_injected(kubectl, apps::NAMESPACE, first)
    })?;
    Ok(())
}

struct Measurement<'a> {
    show: &'a Show,
    kubectl: Kubectl,
    follower: Follower,
    nodes: usize,
    /// The account at the end of the step before.
    before: Account,
    /// How many complaints of each run have been shown.
    heard: BTreeMap<String, usize>,
}

impl Measurement<'_> {
    /// What comes before the first step belongs to none.
    fn warm_up(&mut self) -> Result<()> {
        std::thread::sleep(Duration::from_secs(5));
        self.before = self.settle()?;
        Ok(())
    }

    fn settle(&self) -> Result<Account> {
        let before = self.before;
        settle(
            &self.kubectl,
            apps::NAMESPACE,
            &self.follower,
            before,
            ARRIVAL,
        )
    }

    /// One switch, with the applications' pods replaced once the new route serves.
    fn switch(&mut self, from: Topology, to: Topology) -> Result<Row> {
        Client::new(&self.kubectl).forget_gaps()?;
        let begun = Instant::now();
        steps::switch_alone(&self.kubectl, to)?;
        steps::wait_serving(&self.kubectl, to)?;
        let serving = begun.elapsed();
        steps::roll_apps(&self.kubectl, to)?;
        steps::wait_switched(&self.kubectl)?;
        steps::wait_settled(&self.kubectl, to, self.nodes)?;
        let gone = begun.elapsed();
        self.row(from, to, serving, gone)
    }

    /// Other resources for the agents; those in pods are replaced with their pods.
    fn update(&mut self, of: Topology, number: usize) -> Result<Row> {
        Client::new(&self.kubectl).forget_gaps()?;
        let cpu = format!("{}m", 20 + number);
        let patch = json!({"spec": {"agent": {"resources": {"requests": {"cpu": cpu}}}}});
        let begun = Instant::now();
        self.kubectl.patch(steps::PLATFORM, steps::AGENT, &patch)?;
        steps::wait_serving(&self.kubectl, of)?;
        let serving = begun.elapsed();
        if of == Topology::Sidecar {
            steps::roll_apps(&self.kubectl, of)?;
        }
        steps::wait_settled(&self.kubectl, of, self.nodes)?;
        let gone = begun.elapsed();
        self.row(of, of, serving, gone)
    }

    fn row(
        &mut self,
        from: Topology,
        to: Topology,
        serving: Duration,
        gone: Duration,
    ) -> Result<Row> {
        let now = self.settle()?;
        let account = now - self.before;
        self.before = now;
        let gaps = longest_gaps(&self.kubectl)?;
        let gap = |service: &str| {
            let millis = gaps.get(service).copied();
            Duration::from_millis(millis.unwrap_or_default())
        };
        let row = Row {
            from,
            to,
            account,
            gap_rust: gap("rust-sdk"),
            gap_go: gap("go-sdk"),
            serving,
            gone,
        };
        println!("   {}", row.cells().join(" | "));
        self.complaints();
        Ok(row)
    }

    /// What SDKs have complained of since the last step.
    fn complaints(&mut self) {
        for (run, said) in self.follower.said() {
            let heard = self.heard.entry(run.clone()).or_default();
            for complaint in said.complaints.iter().skip(*heard) {
                self.show.remark(&format!("{run}: {complaint}"));
            }
            *heard = said.complaints.len().max(*heard);
        }
    }
}
