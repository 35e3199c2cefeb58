//! One running program: what it costs, and how it ends. It never outlives its owner.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::Setup;
use crate::Outcome;
use crate::load::{Target, Transport};
use crate::machine::{self, Cores, Memory};
use crate::telemetry::Encoding;

/// A program that does not listen by then is broken. Under callgrind everything takes long.
const START: Duration = Duration::from_mins(1);

/// A running program; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
    grpc: SocketAddr,
    http: SocketAddr,
    /// Right before it was started.
    pub begun: Instant,
}

impl Running {
    pub(super) fn start(
        mut command: Command,
        log: PathBuf,
        setup: &Setup,
        cores: Option<Cores>,
    ) -> Outcome<Self> {
        let file = File::create(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut begun = Instant::now();
        let mut spawn = || {
            begun = Instant::now();
            command.spawn()
        };
        let child = match cores {
            Some(cores) => cores.measured(spawn)??,
            None => spawn()?,
        };
        Ok(Self {
            child,
            log,
            grpc: setup.grpc,
            http: setup.http,
            begun,
        })
    }

    /// Where to send to it.
    pub fn target(&self, transport: Transport, encoding: Encoding) -> Target {
        Target {
            address: match transport {
                Transport::Grpc => self.grpc,
                Transport::Http => self.http,
            },
            transport,
            encoding,
            from: None,
        }
    }

    /// Waits until its gRPC port takes connections.
    pub async fn accepting(&mut self) -> Outcome<()> {
        while self.begun.elapsed() < START {
            if TcpStream::connect(self.grpc).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(self.complain(&format!("ended with {status}")));
            }
            sleep(Duration::from_millis(2)).await;
        }
        Err(self.complain("does not listen"))
    }

    /// An error with the end of the program's log.
    pub fn complain(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(8).collect();
        let end: Vec<_> = lines.into_iter().rev().collect();
        let name = self.log.file_stem().unwrap_or_default().display();
        format!("{name} {what}: {}", end.join("; ")).into()
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Outcome<Duration> {
        machine::cpu_time(self.child.id())
    }

    /// Resident memory.
    pub fn memory(&self) -> Outcome<Memory> {
        machine::memory(self.child.id())
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) -> Outcome<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM.
    pub fn terminate(&self) -> Outcome<()> {
        let pid = i32::try_from(self.child.id())?;
        let pid = Pid::from_raw(pid).ok_or("no process")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for its end; killed when that takes longer than `at_most`.
    pub async fn end(&mut self, at_most: Duration) -> Outcome<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < at_most {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(Duration::from_millis(2)).await;
        }
        self.kill()?;
        Err(self.complain("did not end when asked to"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
