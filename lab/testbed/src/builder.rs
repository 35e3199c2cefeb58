//! Choosing what a bed shall be like, and bringing it up.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::addresses::Addresses;
use crate::bed::Bed;
use crate::component::Component;
use crate::control_plane;
use crate::error::{Error, Result};
use crate::kernel;
use crate::layout::{BedName, Layout, MAX_NODES};
use crate::net;
use crate::node;
use crate::options::{Options, PacketFilter, Record};
use crate::packages;
use crate::parts::{self, Part};
use crate::pins::KubernetesVersion;
use crate::pki;
use crate::progress::Step;
use crate::reaper::Reaper;
use crate::registry;
use crate::simulated;

/// Choices for a [`Bed`]; see [`Bed::builder`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    name: Option<String>,
    options: Options,
}

impl Builder {
    /// Names the bed; without it the name is made from the process id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How many nodes; none by default: a control plane only, on which no pod ever runs.
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.options.nodes = nodes;
        self
    }

    /// How many simulated nodes, instead of real ones: objects that kwok keeps Ready and whose pods
    /// it makes Running and Ready at once. Nothing in the pods runs.
    pub fn simulated_nodes(mut self, nodes: u16) -> Self {
        self.options.simulated_nodes = nodes;
        self
    }

    /// Which addresses everything in it has; IPv4 by default.
    pub fn addresses(mut self, addresses: Addresses) -> Self {
        self.options.addresses = addresses;
        self
    }

    /// By what nodes forward connections; nftables by default.
    pub fn packet_filter(mut self, filter: PacketFilter) -> Self {
        self.options.packet_filter = filter;
        self
    }

    /// With a network plugin that ignores the host ports of pods.
    pub fn without_port_map(mut self) -> Self {
        self.options.without_port_map = true;
        self
    }

    /// With network policies enforced, which the network plugin does not do by itself.
    pub fn with_network_policies(mut self) -> Self {
        self.options.network_policies = true;
        self
    }

    /// Which Kubernetes release.
    pub fn kubernetes(mut self, version: KubernetesVersion) -> Self {
        self.options.kubernetes = version;
        self
    }

    /// Whether the API server notes every request in [`Bed::audit_log`].
    pub fn audit(mut self, audit: bool) -> Self {
        self.options.audit = audit;
        self
    }

    /// One more argument for the API server, as in `--runtime-config=...`.
    pub fn apiserver_arg(mut self, arg: impl Into<String>) -> Self {
        self.options.apiserver_args.push(arg.into());
        self
    }

    /// One more argument for the controller manager.
    pub fn controller_manager_arg(mut self, arg: impl Into<String>) -> Self {
        self.options.controller_manager_args.push(arg.into());
        self
    }

    /// One more argument for the scheduler.
    pub fn scheduler_arg(mut self, arg: impl Into<String>) -> Self {
        self.options.scheduler_args.push(arg.into());
        self
    }

    /// Checks that this machine can run the bed, and builds what is missing for it. [`Builder::start`] does so
    /// itself; a caller that has other things to build does it beside them.
    pub fn prepare(&self) -> Result<()> {
        let options = &self.options;
        if options.nodes > MAX_NODES {
            return Err(Error::Invalid(format!(
                "{} nodes are too many; a bed has at most {MAX_NODES}",
                options.nodes
            )));
        }
        check_release(options)?;
        simulated::check_options(options)?;
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Missing {
                what: "the right to make network namespaces and control groups".to_owned(),
                remedy: "run as root".to_owned(),
            });
        }
        packages::ensure(packages::BED)?;
        if options.nodes > 0 {
            packages::ensure(packages::NODE)?;
            if options.packet_filter == PacketFilter::Iptables {
                packages::ensure(packages::IPTABLES)?;
            }
        }
        if options.network_policies {
            packages::ensure(packages::NETWORK_POLICIES)?;
        }
        parts::ensure_all(options.kubernetes, options.nodes > 0)?;
        if options.network_policies {
            parts::ensure_for(Part::KubeRouter, options.kubernetes)?;
        }
        if options.simulated_nodes > 0 {
            parts::ensure_for(Part::Kwok, options.kubernetes)?;
        }
        Ok(())
    }

    /// Brings the bed up: builds what is missing, starts everything and waits until pods can run.
    pub fn start(self) -> Result<Bed> {
        let name = self.bed_name()?;
        self.prepare()?;
        let step = Step::short(format!(
            "start bed {name}: Kubernetes {}, {} nodes",
            self.options.kubernetes.release(),
            u16::from(self.options.nodes) + self.options.simulated_nodes
        ));
        let record = registry::claim(name, self.options)?;
        // From here on the bed's end is certain: dropping it ends it, and so does our death.
        let reaper = Reaper::start(&record)?;
        let bed = Bed::new(record, Some(reaper))?;
        bring_up(bed.record())?;
        step.finish();
        Ok(bed)
    }

    fn bed_name(&self) -> Result<BedName> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        match &self.name {
            Some(name) => name.parse(),
            None => format!(
                "p{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            )
            .parse(),
        }
    }
}

fn check_release(options: &Options) -> Result<()> {
    let nodes = options.nodes > 0 || options.simulated_nodes > 0;
    if !nodes || options.kubernetes.has_nodes() {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "nodes, real or simulated, are only to be had with Kubernetes {}; ask for 0 of them with {}",
        KubernetesVersion::default(),
        options.kubernetes
    )))
}

/// The order of things: what does not wait for anything else starts at once.
fn bring_up(record: &Record) -> Result<()> {
    let (layout, options) = (&record.layout(), &record.options);
    kernel::raise_limits();
    net::create_control_plane(layout)?;
    pki::issue(layout, options.nodes)?;
    thread::scope(|scope| {
        let nodes = scope.spawn(|| start_runtimes(layout, options));
        let control_plane = start_control_plane(layout, options);
        let nodes = nodes
            .join()
            .unwrap_or_else(|_| Err(Error::Invalid("starting the nodes panicked".to_owned())));
        control_plane.and(nodes)
    })?;
    if options.nodes > 0 {
        control_plane::start(layout, options, Component::CoreDns)?;
    }
    for node in 1..=options.nodes {
        node::start_agents(layout, options, node)?;
    }
    control_plane::wait_for_controllers(layout, options)?;
    if options.simulated_nodes > 0 {
        simulated::start(layout, options)?;
    }
    for node in 1..=options.nodes {
        node::wait_for_proxy(layout, node)?;
        control_plane::wait_for_node(layout, options, node)?;
        node::start_enforcer(layout, options, node)?;
    }
    Ok(())
}

fn start_control_plane(layout: &Layout, options: &Options) -> Result<()> {
    use Component::{ApiServer, ControllerManager, Etcd, Scheduler};
    for component in [Etcd, ApiServer, ControllerManager, Scheduler] {
        control_plane::start(layout, options, component)?;
    }
    Ok(())
}

fn start_runtimes(layout: &Layout, options: &Options) -> Result<()> {
    for node in 1..=options.nodes {
        node::start_runtime(layout, options, node)?;
    }
    for from in 1..=options.nodes {
        for to in (1..=options.nodes).filter(|to| *to != from) {
            net::connect_nodes(layout, from, to)?;
        }
    }
    Ok(())
}
