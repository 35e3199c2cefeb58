//! Whether the node's port leads to the agent that claims it (`hostPort`).
//!
//! A network plugin without port maps ignores the claim: the pod runs, and whatever is sent to its node's port is
//! refused, or reaches another program that listens there. A plugin that does not let a pod reach itself by its node's
//! address drops the attempt, which shows nothing.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::health::{Report, Status, Unmapped};

/// The time limit for a connection, and for an answer.
const ATTEMPT: Duration = Duration::from_secs(2);

/// The time between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// How the agent answers at its own path.
const OWN_ANSWER: &[u8] = b"HTTP/1.1 204";

/// A path that no other program serves.
pub(super) fn own_path() -> Arc<str> {
    format!("/.otelagent/{:032x}", fastrand::u128(..)).into()
}

/// What is tried.
pub(super) struct Tried {
    /// The node's address and port.
    pub(super) port: SocketAddr,
    /// What only this agent serves.
    pub(super) own_path: Arc<str>,
    /// Where the agent speaks TLS, it cannot recognize itself: a connection is enough.
    pub(super) is_encrypted: bool,
}

impl Tried {
    /// Lets the agent be ready once its node's port leads to it.
    pub(super) async fn until_mapped(self, report: Arc<Report>) {
        while let Some(how) = self.unmapped().await {
            let status = Status::PortUnmapped(self.port, how);
            if report.proceed(status) {
                warn!("not ready: {}", status.problem().unwrap_or_default());
            }
            sleep(PAUSE).await;
        }
        if report.proceed(Status::Ready) {
            info!(port = %self.port, "ready: the node's port leads here");
        }
    }

    async fn unmapped(&self) -> Option<Unmapped> {
        match timeout(ATTEMPT, TcpStream::connect(self.port)).await {
            Ok(Ok(_)) if self.is_encrypted => None,
            Ok(Ok(stream)) => {
                let answer = timeout(ATTEMPT, self.ask(stream)).await;
                let is_own = answer.is_ok_and(|answer| answer.is_ok_and(|own| own));
                (!is_own).then_some(Unmapped::LeadsElsewhere)
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                Some(Unmapped::RefusesConnections)
            }
            _ => None,
        }
    }

    /// Whether it is this agent that answers.
    async fn ask(&self, mut stream: TcpStream) -> std::io::Result<bool> {
        let path = &self.own_path;
        let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; OWN_ANSWER.len()];
        stream.read_exact(&mut answer).await?;
        Ok(answer == OWN_ANSWER)
    }
}
