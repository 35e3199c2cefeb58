//! The operator and agents as processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::operator::AGENT_IMAGE;
use super::run::{Outcome, Run};

/// How long a process may take to notice that it lost its lease, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// A process, ended with the test.
pub(super) struct Ended(pub(super) Child);

impl Ended {
    pub(super) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}

/// An agent with the configuration in a file, and variables.
pub(super) fn agent(
    program: &Path,
    config: &Path,
    variables: impl IntoIterator<Item = (&'static str, String)>,
) -> std::io::Result<Ended> {
    let agent = Command::new(program)
        .arg("--config")
        .arg(config)
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    agent.map(Ended)
}

pub(super) struct OperatorProcess(Ended);

impl OperatorProcess {
    pub(super) fn start(kubeconfig: &Path, run: &Run, identity: &str) -> Self {
        Self::start_with(kubeconfig, &run.namespace, identity, 0)
    }

    /// With platform namespaces, separated by commas, and a port for its metrics.
    pub(super) fn start_with(kubeconfig: &Path, platform: &str, identity: &str, port: u16) -> Self {
        let child = Command::new(
            demo::images::program("otelagent-operator").expect("the operator's binary"),
        )
        .args(["controller", "--leader-elect", "--log-level=error"])
        .arg(format!("--metrics-address=127.0.0.1:{port}"))
        .arg("--health-address=127.0.0.1:0")
        .arg(format!("--platform-namespaces={platform}"))
        .arg(format!("--agent-image={AGENT_IMAGE}"))
        .arg(format!("--identity={identity}"))
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
        Self(Ended(child.expect("the operator's binary")))
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.0.0.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success(), "kill {name}");
    }

    pub(super) async fn until_it_ends(&mut self) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.0.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err("a process that lost its lease did not end".into())
    }
}
