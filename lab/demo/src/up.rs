//! The story the demo tells, step by step.

use std::time::Duration;

use demo::steps::{self, Topology};
use demo::tally::Tracker;
use demo::{Kubectl, Result, apps, images};
use testbed::{Bed, BedName, Builder, Cluster};

use crate::show::Show;

/// The demo's bed.
pub(crate) const BED: &str = "demo";
const NODES: u8 = 2;
/// How long spans may take from an application to the ledger before they count as lost.
const ARRIVAL: Duration = Duration::from_secs(20);

/// The topologies after the first, with what is to be seen.
const TOUR: [(Topology, &str); 4] = [
    (
        Topology::HostPort,
        "Applications find the agent by the address of their node; the agent has a port there.",
    ),
    (
        Topology::HostNetwork,
        "The same address, served from the node's own network.",
    ),
    (
        Topology::Sidecar,
        "An agent inside each pod, reached over loopback.",
    ),
    (
        Topology::NodeLocalPrefer,
        "Back behind the Service; another node's agent helps out, so hostMetadata has to go.",
    ),
];

/// Tells the story.
pub(crate) fn up(show: &Show) -> Result<()> {
    show.chapter("From nothing to a cluster");
    let bed = Bed::builder().name(BED).nodes(NODES);
    let tars = show.step("images and the cluster's programs built", || {
        images::ensure_beside(|| {
            if Cluster::is_named() {
                return Ok(());
            }
            Ok(bed.prepare()?)
        })
    })?;
    let (cluster, words) = cluster(show, bed)?;
    let kubectl = Kubectl::new(&cluster.kubectl()?);
    println!("   cluster: {words}");
    if matches!(cluster, Cluster::Bed(_)) {
        show.step("images on every node", || images::load_all(&cluster, &tars))?;
    } else {
        show.remark("It is not ours: its nodes must have the images already, from these files:");
        for tar in &tars {
            show.remark(&tar.display().to_string());
        }
    }

    show.chapter("The operator, an upstream, and two applications");
    show.remark(
        "The applications are unmodified SDK programs. They do not know that otelagent exists.",
    );
    show.step(
        "operator installed (kubectl apply -k manifests/default)",
        || steps::install(&kubectl),
    )?;
    show.step("OpenTelemetry Collector and ledger", || {
        steps::apply_upstream(&kubectl)
    })?;
    show.step("OtelAgent, mode NodeLocal", || {
        steps::apply_agent(&kubectl)?;
        steps::wait_serving(&kubectl, Topology::NodeLocalRequire)
    })?;
    show.step(
        "rust-sdk (OTLP/gRPC) and go-sdk (OTLP/HTTP), 2 pods each",
        || {
            steps::apply_apps(&kubectl)?;
            steps::wait_injected(&kubectl, apps::NAMESPACE, Topology::NodeLocalRequire)
        },
    )?;
    let mut tracker = Tracker::default();
    picture(show, &kubectl, &mut tracker, Topology::NodeLocalRequire)?;
    for (topology, remark) in TOUR {
        show.chapter(&format!("Switch to {topology}"));
        show.remark(remark);
        visit(show, &kubectl, &mut tracker, topology)?;
    }
    farewell(show, &cluster);
    Ok(())
}

/// One switch: the object changes, the new route is made, pods move, the old route goes.
fn visit(show: &Show, kubectl: &Kubectl, tracker: &mut Tracker, to: Topology) -> Result<()> {
    show.step(
        &format!("spec.mode = {}; new pods are served", to.mode()),
        || {
            steps::switch(kubectl, to)?;
            steps::wait_serving(kubectl, to)
        },
    )?;
    // What the old pods have made is known only while they live.
    tracker.look(kubectl, apps::NAMESPACE)?;
    show.step("applications rolled (kubectl rollout restart)", || {
        steps::roll_apps(kubectl, to)
    })?;
    show.step("the old route is gone", || steps::wait_switched(kubectl))?;
    picture(show, kubectl, tracker, to)
}

/// What is so now.
fn picture(show: &Show, kubectl: &Kubectl, tracker: &mut Tracker, now: Topology) -> Result<()> {
    let routes = show.step("newest spans of every pod came that way", || {
        steps::wait_routed(kubectl, now)
    })?;
    Show::plain(&steps::agent_line(kubectl)?);
    show.routes(&routes);
    show.tally(&tracker.settle(kubectl, apps::NAMESPACE, ARRIVAL)?);
    Ok(())
}

/// The cluster: the one of `KUBECONFIG`, or a new one that stays. What an earlier run left goes first: it may run
/// older images of the same names.
fn cluster(show: &Show, bed: Builder) -> Result<(Cluster, String)> {
    if !Cluster::is_named() && Bed::attach(BED).is_ok() {
        show.step("the bed of an earlier run removed", || {
            Ok(testbed::down(&BED.parse::<BedName>()?)?)
        })?;
    }
    let mut cluster = Cluster::from_env_or_bed(bed)?;
    if let Cluster::Bed(bed) = &mut cluster {
        bed.keep()?;
    }
    let words = match &cluster {
        Cluster::Bed(_) => format!("bed {BED}, {NODES} real nodes on this machine"),
        Cluster::External { kubeconfig } => kubeconfig.display().to_string(),
    };
    Ok((cluster, words))
}

fn farewell(show: &Show, cluster: &Cluster) {
    show.chapter(&format!(
        "Done in {:.0} s. The cluster stays up; try:",
        show.elapsed()
    ));
    let kubectl = match cluster {
        Cluster::Bed(_) => format!(
            "cargo run -q --manifest-path lab/Cargo.toml --target-dir target -p testbed -- kubectl --name {BED} --"
        ),
        Cluster::External { .. } => "kubectl".to_owned(),
    };
    let (platform, workloads) = (steps::PLATFORM, apps::NAMESPACE);
    Show::plain(&format!(
        "{kubectl} get otelagents --namespace {platform} --output wide"
    ));
    Show::plain(&format!(
        "{kubectl} patch {} --namespace {platform} --type merge --patch '{{\"spec\":{{\"mode\":\"Sidecar\"}}}}'",
        steps::AGENT
    ));
    Show::plain(&format!(
        "{kubectl} rollout restart deployment --namespace {workloads}"
    ));
    show.remark("And when you have seen enough: make demo-down");
}
