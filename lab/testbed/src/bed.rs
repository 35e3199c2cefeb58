//! A running bed, as its users see it.
//!
//! Dropping it ends it. Knows what can be done to a bed while it runs; how it comes up is in the
//! builder.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::builder::Builder;
use crate::command::{command, run};
use crate::component::{self, Component};
use crate::control_plane;
use crate::error::{Error, Result};
use crate::layout::{BedName, Layout, node_name};
use crate::net;
use crate::node;
use crate::options::Record;
use crate::parts::{Part, ensure_for};
use crate::pins::KubernetesVersion;
use crate::pki;
use crate::progress::{Step, say};
use crate::reaper::Reaper;
use crate::registry;
use crate::simulated;

/// Kills everything in one control group.
const END_GROUP: &str = concat!(include_str!("end-group.sh"), "group=$1\nend_group\n");

/// A running cluster. It ends when this is dropped, unless [`Bed::keep`] was called.
pub struct Bed {
    record: Record,
    layout: Layout,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    reaper: Option<Reaper>,
}

impl Bed {
    /// Begins to choose a bed.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A bed that is up already. Dropping what this returns does not end it.
    pub fn attach(name: &str) -> Result<Self> {
        Self::new(registry::load(&name.parse::<BedName>()?)?, None)
    }

    pub(crate) fn new(record: Record, reaper: Option<Reaper>) -> Result<Self> {
        let layout = record.layout();
        let kubectl = ensure_for(Part::Kubectl, record.options.kubernetes)?;
        Ok(Self {
            kubeconfig: layout.file(control_plane::KUBECONFIG),
            kubectl,
            layout,
            record,
            reaper,
        })
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// Lets the bed stay when this process ends; `testbed down` ends it.
    pub fn keep(&mut self) -> Result<()> {
        registry::keep(&mut self.record)?;
        self.reaper.take().map_or(Ok(()), Reaper::dismiss)
    }

    /// Ends the bed now, and says what could not be removed. Dropping does the same silently.
    pub fn stop(mut self) -> Result<()> {
        match self.reaper.take() {
            Some(mut reaper) => reaper.end(),
            None => registry::down(&self.record.name).map(drop),
        }
    }

    /// Its name.
    pub fn name(&self) -> &BedName {
        &self.record.name
    }

    /// The kubeconfig of an administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubectl of the cluster's release, speaking to it.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = command(&self.kubectl);
        kubectl.env("KUBECONFIG", &self.kubeconfig);
        for proxy in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ] {
            kubectl.env_remove(proxy);
        }
        kubectl
    }

    /// The nodes' names, real or simulated.
    pub fn node_names(&self) -> Vec<String> {
        let simulated = (1..=self.record.options.simulated_nodes).map(simulated::node_name);
        (1..=self.record.options.nodes)
            .map(node_name)
            .chain(simulated)
            .collect()
    }

    /// A node's address; nodes count from 1.
    pub fn node_ip(&self, node: u8) -> IpAddr {
        self.layout.node_ip(node)
    }

    /// The address of the caller as pods see it: servers of a test listen here.
    pub fn host_ip(&self) -> IpAddr {
        self.layout.host_ip()
    }

    /// Gives an image to every node.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        let step = Step::short(format!(
            "load {} into {} nodes",
            tar.display(),
            self.record.options.nodes
        ));
        for node in 1..=self.record.options.nodes {
            node::import(&self.layout, &self.record.options, node, tar)?;
        }
        step.finish();
        Ok(())
    }

    /// Lets the nodes pull from a registry without encryption, as in `10.0.0.1:5000`.
    pub fn trust_registry(&self, registry: &str) -> Result<()> {
        for node in 1..=self.record.options.nodes {
            node::trust_registry(&self.layout, node, registry)?;
        }
        Ok(())
    }

    /// One file per component; they outlive the bed.
    pub fn log_dir(&self) -> PathBuf {
        self.record.name.log_dir()
    }

    /// The log of one component.
    pub fn log(&self, component: Component) -> PathBuf {
        self.layout.log(component)
    }

    /// Where the API server notes requests, one JSON object per line, if the bed was built so.
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.record
            .options
            .audit
            .then(|| control_plane::audit_log(&self.layout))
    }

    /// Whether a component's process lives.
    pub fn is_running(&self, component: Component) -> bool {
        component::pid(&self.layout, component).is_some()
    }

    /// Kills one process, as a crash would. Nothing restarts it but [`Bed::start_process`].
    pub fn kill_process(&self, component: Component) -> Result<()> {
        component::kill(&self.layout, component)
    }

    /// Starts a killed process again.
    pub fn start_process(&self, component: Component) -> Result<()> {
        if self.is_running(component) {
            return Ok(());
        }
        match component.node() {
            Some(_) => node::start(&self.layout, &self.record.options, component),
            None => control_plane::start(&self.layout, &self.record.options, component),
        }
    }

    /// Kills the API server; etcd and the nodes run on.
    pub fn stop_apiserver(&self) -> Result<()> {
        self.kill_process(Component::ApiServer)
    }

    /// Starts the API server again and waits until it is ready.
    pub fn start_apiserver(&self) -> Result<()> {
        self.start_process(Component::ApiServer)
    }

    /// Gives the API server another serving certificate, with which it starts anew.
    pub fn renew_apiserver_certificate(&self) -> Result<()> {
        pki::renew_api_server(&self.layout)?;
        self.stop_apiserver()?;
        self.start_apiserver()
    }

    /// Starts another API server on the same etcd and waits until it is ready. Returns the kubeconfig of
    /// an administrator that leads to it; [`Bed::kubeconfig`] leads to the first as before.
    pub fn start_second_apiserver(&self) -> Result<PathBuf> {
        self.start_process(Component::SecondApiServer)?;
        Ok(self.layout.file(control_plane::SECOND_KUBECONFIG))
    }

    /// The same with an API server of another release, as in a control plane that is being upgraded.
    pub fn start_second_apiserver_of(&self, kubernetes: KubernetesVersion) -> Result<PathBuf> {
        let options = &self.record.options;
        control_plane::start_of(
            &self.layout,
            options,
            Component::SecondApiServer,
            kubernetes,
        )?;
        Ok(self.layout.file(control_plane::SECOND_KUBECONFIG))
    }

    /// Stops a process where it is, as a machine that hangs would; connections to it stay.
    pub fn pause_process(&self, component: Component) -> Result<()> {
        component::signal(&self.layout, component, "-STOP")
    }

    /// Lets a paused process go on.
    pub fn resume_process(&self, component: Component) -> Result<()> {
        component::signal(&self.layout, component, "-CONT")
    }

    /// Keeps what etcd holds now, for [`Bed::restore_etcd`]. Everything waits meanwhile, and nothing ends.
    pub fn save_etcd(&self) -> Result<()> {
        let (live, saved) = self.etcd_directories();
        remove_directory(&saved)?;
        self.pause_process(Component::Etcd)?;
        let copied = run(command("cp").arg("-a").args([&live, &saved]));
        self.resume_process(Component::Etcd)?;
        copied.map(drop)
    }

    /// Sets etcd back to what was saved, as after a disaster: what speaks to it is killed, and started
    /// again with it. Revisions are counted on from the saved one, so some are given twice.
    pub fn restore_etcd(&self) -> Result<()> {
        use Component::{ApiServer, ControllerManager, Etcd, Scheduler, SecondApiServer};
        let (live, saved) = self.etcd_directories();
        let all = [
            Etcd,
            ApiServer,
            SecondApiServer,
            ControllerManager,
            Scheduler,
        ];
        let running = all.into_iter().filter(|one| self.is_running(*one));
        let running: Vec<Component> = running.collect();
        for one in running.iter().rev() {
            self.kill_process(*one)?;
        }
        remove_directory(&live)?;
        run(command("cp").arg("-a").args([&saved, &live]))?;
        running
            .into_iter()
            .try_for_each(|one| self.start_process(one))
    }

    fn etcd_directories(&self) -> (PathBuf, PathBuf) {
        (self.layout.file("etcd"), self.layout.file("etcd-saved"))
    }

    /// Takes a node away as a power cut would: every process, container and address of it.
    pub fn stop_node(&self, node: u8) -> Result<()> {
        self.check_node(node)?;
        run(command("sh").args(["-c", END_GROUP, "end-group", &self.layout.node_cgroup(node)]))?;
        net::remove_node(&self.layout, node)
    }

    /// Boots a stopped node again and waits until it is Ready. Its images are still there.
    pub fn start_node(&self, node: u8) -> Result<()> {
        self.check_node(node)?;
        let (layout, options) = (&self.layout, &self.record.options);
        node::start_runtime(layout, options, node)?;
        for other in (1..=options.nodes).filter(|other| *other != node) {
            net::connect_nodes(layout, node, other)?;
        }
        node::start_agents(layout, options, node)?;
        node::wait_for_proxy(layout, node)?;
        control_plane::wait_for_node(layout, options, node)?;
        node::start_enforcer(layout, options, node)
    }

    /// Drops what a node and its pods send to one address, as a policy of the network does, or no longer.
    pub fn cut_off(&self, node: u8, address: IpAddr, is_cut: bool) -> Result<()> {
        self.check_node(node)?;
        net::cut_off(&self.layout, node, address, is_cut)
    }

    /// Takes a simulated node down: neither it nor its pods are Ready any more, and pods that are
    /// deleted stay until it is back. Simulated nodes count from 1.
    pub fn stop_simulated_node(&self, node: u16) -> Result<()> {
        simulated::check(&self.record.options, &[node])?;
        simulated::stop_node(&self.layout, &self.record.options, node)
    }

    /// Brings a simulated node back and waits until it is Ready. Its pods become ready again.
    pub fn start_simulated_node(&self, node: u16) -> Result<()> {
        simulated::check(&self.record.options, &[node])?;
        simulated::start_node(&self.layout, &self.record.options, node)
    }

    /// On these simulated nodes, and on no others, new pods stay Pending from now on, as if their
    /// image could not be had. Those that run stay as they are; held ones run once their node is
    /// not named any more.
    pub fn hold_pods_on(&self, nodes: &[u16]) -> Result<()> {
        simulated::check(&self.record.options, nodes)?;
        simulated::hold_pods(&self.layout, &self.record.options, nodes)
    }

    fn check_node(&self, node: u8) -> Result<()> {
        if (1..=self.record.options.nodes).contains(&node) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "there is no node {node}; this bed has {}, counted from 1",
            self.record.options.nodes
        )))
    }
}

fn remove_directory(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", directory.display()))(error))
        }
        _ => Ok(()),
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut reaper) = self.reaper.take()
            && let Err(error) = reaper.end()
        {
            say(&error.to_string());
        }
    }
}
