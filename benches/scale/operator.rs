//! The operator as a process beside the bed, with the rights of its installation.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::world::{PLATFORM, World};

/// As whom its requests are in the audit log.
pub(crate) const USER: &str = "system:serviceaccount:otelagent-system:otelagent-operator";

/// The operator, ended with the benchmark.
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
    /// The binary that cargo built for this benchmark, in the same profile.
    pub(crate) fn start(world: &World) -> Outcome<Self> {
        let kubeconfig = kubeconfig(world)?;
        let (metrics, health) = (free_address()?, free_address()?);
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_otelagent-operator"))
            .args(["controller", "--log-level=warn", "--leader-elect"])
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

/// The bed's, with the operator's own token.
fn kubeconfig(world: &World) -> Outcome<PathBuf> {
    let token = world.kubectl(&[
        "create",
        "token",
        "otelagent-operator",
        "-n",
        PLATFORM,
        "--duration=24h",
    ])?;
    let mut config: Value =
        serde_json::from_str(&std::fs::read_to_string(world.bed.kubeconfig())?)?;
    config["users"][0]["user"] = json!({"token": token});
    let file = world.bed.kubeconfig().with_file_name("operator.kubeconfig");
    std::fs::write(&file, config.to_string())?;
    Ok(file)
}

fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
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
