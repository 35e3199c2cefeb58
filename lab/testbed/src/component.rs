//! The processes of a bed: their names, starting and killing them, and waiting until they serve.
//!
//! Knows how a process is put into a bed, not what its command line is.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::cgroup;
use crate::command::{command, find_program, run, search_path, tail_of};
use crate::error::{Error, Result};
use crate::layout::Layout;

/// A process of a bed. Nodes count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the programs' own")]
pub enum Component {
    Etcd,
    ApiServer,
    /// Another on the same etcd; there only once it was asked for.
    SecondApiServer,
    ControllerManager,
    Scheduler,
    CoreDns,
    /// Plays the kubelets of all simulated nodes.
    Kwok,
    /// Holds a node's mount namespace.
    Mounts(u8),
    Containerd(u8),
    Kubelet(u8),
    KubeProxy(u8),
    /// Enforces network policies, where the bed has it.
    KubeRouter(u8),
}

impl Component {
    /// The node it belongs to.
    pub fn node(self) -> Option<u8> {
        match self {
            Self::Mounts(node)
            | Self::Containerd(node)
            | Self::Kubelet(node)
            | Self::KubeProxy(node)
            | Self::KubeRouter(node) => Some(node),
            _ => None,
        }
    }

    /// Every process that a bed with so many nodes starts with: with simulated ones if `simulated`, with network policies
    /// enforced if `policies`.
    pub fn all(nodes: u8, simulated: bool, policies: bool) -> Vec<Self> {
        let mut all = vec![
            Self::Etcd,
            Self::ApiServer,
            Self::ControllerManager,
            Self::Scheduler,
        ];
        if nodes > 0 {
            all.push(Self::CoreDns);
        }
        if simulated {
            all.push(Self::Kwok);
        }
        for node in 1..=nodes {
            all.extend([
                Self::Mounts(node),
                Self::Containerd(node),
                Self::Kubelet(node),
                Self::KubeProxy(node),
            ]);
            if policies {
                all.push(Self::KubeRouter(node));
            }
        }
        all
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd => f.write_str("etcd"),
            Self::ApiServer => f.write_str("kube-apiserver"),
            Self::SecondApiServer => f.write_str("kube-apiserver-2"),
            Self::ControllerManager => f.write_str("kube-controller-manager"),
            Self::Scheduler => f.write_str("kube-scheduler"),
            Self::CoreDns => f.write_str("coredns"),
            Self::Kwok => f.write_str("kwok"),
            Self::Mounts(node) => write!(f, "node{node}-mounts"),
            Self::Containerd(node) => write!(f, "node{node}-containerd"),
            Self::Kubelet(node) => write!(f, "node{node}-kubelet"),
            Self::KubeProxy(node) => write!(f, "node{node}-kube-proxy"),
            Self::KubeRouter(node) => write!(f, "node{node}-kube-router"),
        }
    }
}

impl FromStr for Component {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = Self::all(crate::layout::MAX_NODES, true, true);
        let found = all
            .into_iter()
            .chain([Self::SecondApiServer])
            .find(|component| component.to_string() == text);
        found.ok_or_else(|| {
            let some = Self::all(1, true, true);
            let some: Vec<String> = some.iter().map(ToString::to_string).collect();
            Error::Invalid(format!(
                "{text:?} is no component; with one node they are: {}",
                some.join(", ")
            ))
        })
    }
}

/// Joins the control groups, notes its process id, and becomes the program.
const LAUNCH: &str = r#"set -e
groups=$1 pid=$2; shift 2
IFS=:; for procs in $groups; do echo $$ > "$procs"; done; unset IFS
echo $$ > "$pid"
exec "$@""#;

/// What to start, and where in the bed.
pub(crate) struct Launch<'a> {
    pub(crate) component: Component,
    pub(crate) netns: String,
    /// The process whose mount namespace to enter.
    pub(crate) mounts_of: Option<u32>,
    pub(crate) program: &'a Path,
    pub(crate) args: Vec<OsString>,
    /// Directories to search for programs before all others.
    pub(crate) path: Vec<PathBuf>,
}

/// Starts a process in the bed. It outlives this program unless the bed's end takes it along.
pub(crate) fn launch(layout: &Layout, launch: Launch<'_>) -> Result<()> {
    let component = launch.component;
    let pid_file = layout.pid_file(component);
    let _ = fs::remove_file(&pid_file);
    let log = layout.log(component);
    let doing = format!("open {}", log.display());
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(Error::io(doing.clone()))?;
    let err = out.try_clone().map_err(Error::io(doing))?;
    let groups = cgroup::create(&layout.component_cgroup(component))?;

    // setsid --fork: the process belongs to init, and no terminal's Ctrl-C reaches it.
    let mut starter = command("setsid");
    let path: Vec<PathBuf> = launch
        .path
        .into_iter()
        .chain(std::env::split_paths(&search_path()))
        .collect();
    starter.env_clear().env("HOME", layout.dir());
    starter.env("PATH", std::env::join_paths(path).unwrap_or_default());
    starter
        .args(["--fork", "sh", "-c", LAUNCH, "launch", &groups])
        .arg(&pid_file);
    starter
        .arg("nsenter")
        .arg(format!("--net=/run/netns/{}", launch.netns));
    if let Some(pid) = launch.mounts_of {
        starter.arg(format!("--mount=/proc/{pid}/ns/mnt"));
    }
    starter
        .arg("--")
        .arg(launch.program)
        .args(&launch.args)
        .stdout(out)
        .stderr(err);
    let status = starter
        .status()
        .map_err(Error::io(format!("start {component}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(not_ready(layout, component, "it could not be started"))
    }
}

/// The process id, if the process lives and is of this bed (ids are reused).
pub(crate) fn pid(layout: &Layout, component: Component) -> Option<u32> {
    let pid: u32 = fs::read_to_string(layout.pid_file(component))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()?
        .contains(") Z ");
    (groups.contains(&layout.component_cgroup(component)) && !zombie).then_some(pid)
}

/// Kills a component's process at once and waits until it is gone. Not running is fine.
pub(crate) fn kill(layout: &Layout, component: Component) -> Result<()> {
    let Some(found) = pid(layout, component) else {
        return Ok(());
    };
    run(command("kill").args(["-9", &found.to_string()]))?;
    let begun = Instant::now();
    while !has_ended(found) {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err(not_ready(layout, component, "it was killed and still runs"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether nothing is left of a process but what waits to be collected. Memory goes before sockets and
/// threads one by one, so a port may be taken long after the process looks as if it were gone.
fn has_ended(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_none_or(|state| state.starts_with(['Z', 'X']))
    })
}

/// Sends a component's process a signal, such as `-STOP`. Not running is an error.
pub(crate) fn signal(layout: &Layout, component: Component, signal: &str) -> Result<()> {
    let Some(found) = pid(layout, component) else {
        return Err(not_ready(layout, component, "it does not run"));
    };
    run(command("kill").args([signal, &found.to_string()])).map(drop)
}

/// Waits until the probe says yes; the component's end or the time limit is an error.
pub(crate) fn wait_ready(
    layout: &Layout,
    component: Component,
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> bool,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        if probe() {
            return Ok(());
        }
        let elapsed = begun.elapsed();
        // Until the launcher has noted the process id, there is none to look for.
        let noted = fs::metadata(layout.pid_file(component)).is_ok_and(|file| file.len() > 0);
        let noted = noted || elapsed > Duration::from_secs(5);
        if noted && pid(layout, component).is_none() {
            return Err(not_ready(layout, component, "its process has ended"));
        }
        if elapsed > limit {
            return Err(not_ready(
                layout,
                component,
                &format!("no {what} within {} s", limit.as_secs()),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The error that shows the end of the component's log.
pub(crate) fn not_ready(layout: &Layout, component: Component, why: &str) -> Error {
    let log = layout.log(component);
    Error::NotReady {
        component: component.to_string(),
        why: why.to_owned(),
        tail: tail_of(&log, 15),
        log,
    }
}

/// Whether a plain HTTP endpoint answers 200.
pub(crate) fn http_ok(ip: IpAddr, port: u16, path: &str) -> bool {
    let (address, second) = (SocketAddr::from((ip, port)), Duration::from_secs(1));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, second) else {
        return false;
    };
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let _ = stream.set_read_timeout(Some(second));
    let mut answer = [0; 12];
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b" 200")
}

/// A program of the system that must be there by now.
pub(crate) fn system_program(name: &'static str) -> Result<PathBuf> {
    find_program(name).ok_or_else(|| Error::Missing {
        what: name.to_owned(),
        remedy: "install the Debian package that contains it".to_owned(),
    })
}
