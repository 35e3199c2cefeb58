//! The operator's processes beside the bed, each with the rights of its installation.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::world::{PLATFORM, World};

/// As whom its requests are in the audit log.
pub(crate) const USER: &str = "system:serviceaccount:otelagent-system:otelagent-operator";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The account of the webhook.
const WEBHOOK: &str = "otelagent-webhook";

/// One of the operator's processes, ended with the benchmark.
pub(crate) struct Operator {
    child: Child,
    metrics: SocketAddr,
    /// From its start until it said that all caches were filled.
    pub(crate) synced_after: Duration,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    /// The controller.
    pub(crate) fn start(world: &World, more: &[String]) -> Outcome<Self> {
        let words = ["controller".to_owned(), "--leader-elect".to_owned()];
        Self::run(world, "otelagent-operator", &[&words, more].concat())
    }

    /// The webhook, at an address where the API server can call it.
    pub(crate) fn webhook(world: &World, address: SocketAddr) -> Outcome<Self> {
        let words = [
            "webhook".to_owned(),
            format!("--address={address}"),
            format!("--server-names={}", address.ip()),
        ];
        Self::run(world, WEBHOOK, &words)
    }

    /// The operator as it is shipped.
    fn run(world: &World, account: &str, words: &[String]) -> Outcome<Self> {
        let kubeconfig = kubeconfig(world, account)?;
        let (metrics, health) = (free_address(LOOPBACK)?, free_address(LOOPBACK)?);
        // Built first: on a fresh machine that takes longer than the operator may take to be ready.
        let program = demo::images::shipped_operator()?;
        let begun = Instant::now();
        let child = Command::new(program)
            .args(words)
            .arg("--log-level=warn")
            .arg(format!("--metrics-address={metrics}"))
            .arg(format!("--health-address={health}"))
            .env("KUBECONFIG", &kubeconfig)
            .stdout(Stdio::null())
            .spawn()?;
        let mut operator = Self {
            child,
            metrics,
            synced_after: Duration::ZERO,
        };
        while !get(health, "/readyz").is_ok_and(|answer| answer.contains(" 200 ")) {
            if begun.elapsed() > Duration::from_mins(5) {
                return Err("the operator never became ready".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        operator.synced_after = begun.elapsed();
        Ok(operator)
    }

    /// Its metrics in the text format.
    pub(crate) fn metrics(&self) -> Outcome<String> {
        get(self.metrics, "/metrics")
    }

    /// A line of `/proc/PID/status` in MiB: `VmRSS` is now, `VmHWM` the most ever.
    pub(crate) fn memory(&self, line: &str) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let found = status.lines().find_map(|found| found.strip_prefix(line));
        let kib = found.and_then(|rest| rest.split_whitespace().next());
        let kib: f64 = kib.ok_or("no such line")?.parse()?;
        Ok(kib / 1024.0)
    }

    /// CPU time it has used, in seconds.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: Result<Vec<f64>, _> = ticks.map(str::parse).collect();
        // The kernel counts in hundredths of a second for every program.
        Ok(ticks?.iter().sum::<f64>() / 100.0)
    }
}

/// The bed's, with an account's own token.
fn kubeconfig(world: &World, account: &str) -> Outcome<PathBuf> {
    let token = world.kubectl(&["create", "token", account, "-n", PLATFORM, "--duration=24h"])?;
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(world.bed.kubeconfig())?)?;
    config["users"][0]["user"] = json!({"token": token});
    let file = world
        .bed
        .kubeconfig()
        .with_file_name(format!("{account}.kubeconfig"));
    std::fs::write(&file, config.to_string())?;
    Ok(file)
}

/// An address at which no process listens.
pub(crate) fn free_address(host: IpAddr) -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?)
}

fn get(address: SocketAddr, path: &str) -> Outcome<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
