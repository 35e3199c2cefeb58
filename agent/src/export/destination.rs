//! Where and how batches are sent: the endpoints of an exporter, each with its protocol and encoding.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use otelagent_flow::{Failover, Next, Settings};
use otlp_wire::Signal;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::answer::{Fault, UpstreamAnswer};
use super::debug::DebugClient;
use super::error::ExportError;
use super::fallback::{Fallback, REMEMBERED};
use super::grpc::GrpcClient;
use super::http::HttpClient;
use crate::config::{Compression, Exporter, Protocol};
use crate::lock::lock;
use crate::logging::{LogThrottle, causes};
use crate::thread;

/// The client of an exporter.
enum ProtocolClient {
    Grpc(GrpcClient),
    Http(HttpClient),
    Debug(DebugClient),
    Nop,
}

impl ProtocolClient {
    fn new(exporter: &Exporter, age: Duration) -> Result<Self, ExportError> {
        Ok(match exporter.protocol {
            Protocol::Grpc => Self::Grpc(GrpcClient::new(exporter, age)?),
            Protocol::Http => Self::Http(HttpClient::new(exporter, age)?),
            Protocol::Debug => Self::Debug(DebugClient::new(&exporter.id)),
            Protocol::Nop => Self::Nop,
        })
    }
}

/// What to do where a file that the configuration names is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MissingFiles {
    /// It is an error: the previous configuration stays in use.
    Refuse,
    /// Telemetry waits until the file is there: at the start there is no previous configuration, and an agent that
    /// does not start would hold up an application beside it.
    Await,
}

/// A client that is being made.
type Making = oneshot::Receiver<Result<ProtocolClient, ExportError>>;

/// One endpoint.
pub(super) struct Endpoint {
    exporter: Exporter,
    /// Host and port; empty if nothing is sent.
    address: String,
    /// Absent until the files that it needs are there.
    client: OnceLock<ProtocolClient>,
    /// The attempt to make it, which those who wait share.
    making: tokio::sync::Mutex<Option<Making>>,
    age: Duration,
    pub(super) fallback: Fallback,
}

/// Where and how batches are sent: an exporter's configuration and its connections.
pub(crate) struct Destination {
    pub(super) exporter: Exporter,
    /// In order of preference.
    endpoints: Vec<Endpoint>,
    failover: Mutex<Failover>,
    /// Where the failover's time begins.
    clock: Instant,
    leaving: LogThrottle,
}

impl Endpoint {
    fn new(exporter: &Exporter, age: Duration, missing: MissingFiles) -> Result<Self, ExportError> {
        let client = match ProtocolClient::new(exporter, age) {
            Ok(client) => OnceLock::from(client),
            Err(error) if error.is_missing_file() && missing == MissingFiles::Await => {
                let exporter = exporter.name();
                error!(
                    exporter,
                    "{}; telemetry waits until it is there",
                    causes(&error)
                );
                OnceLock::new()
            }
            Err(error) => return Err(error),
        };
        Ok(Self {
            exporter: exporter.clone(),
            address: match exporter.protocol {
                Protocol::Grpc | Protocol::Http => exporter.endpoint.to_string(),
                Protocol::Debug | Protocol::Nop => String::new(),
            },
            client,
            making: tokio::sync::Mutex::default(),
            age,
            fallback: Fallback::new(exporter.compression),
        })
    }

    /// Sends one request, which is encoded so, and waits at most `limit` for progress.
    pub(super) async fn send(
        &self,
        signal: Signal,
        body: &[Bytes],
        compression: Compression,
        limit: Duration,
    ) -> UpstreamAnswer {
        let client = match self.client(limit).await {
            Ok(client) => client,
            Err(why) => return UpstreamAnswer::misconfigured(Fault::File, why),
        };
        match client {
            ProtocolClient::Grpc(client) => client.send(signal, body, compression, limit).await,
            ProtocolClient::Http(client) => client.send(signal, body, compression, limit).await,
            ProtocolClient::Debug(client) => client.count(signal, body),
            ProtocolClient::Nop => UpstreamAnswer::delivered(0, ""),
        }
    }

    /// The client, made within `limit` if its files have come.
    async fn client(&self, limit: Duration) -> Result<&ProtocolClient, String> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let late = timeout(limit, self.late_client()).await;
        late.unwrap_or_else(|_| Err(format!("files do not answer within {limit:?}")))
    }

    async fn late_client(&self) -> Result<&ProtocolClient, String> {
        let mut making = self.making.lock().await;
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = match &mut *making {
            Some(begun) => begun,
            none => none.insert(self.make()?),
        };
        let made = made.await;
        *making = None;
        let made = made.map_err(|error| error.to_string())?;
        let made = made.map_err(|error| causes(&error))?;
        info!(
            exporter = self.exporter.name(),
            "the missing file is there; it is in use"
        );
        Ok(self.client.get_or_init(|| made))
    }

    /// Makes a client on a thread, since files may be on a disk that hangs.
    fn make(&self) -> Result<Making, String> {
        let (exporter, age) = (self.exporter.clone(), self.age);
        thread::run("files", move || ProtocolClient::new(&exporter, age))
            .map_err(|error| format!("the system refuses a thread: {error}"))
    }

    /// Uses a plainer encoding from now on.
    pub(super) fn falls_back(&self, to: Compression, why: &str) {
        if self.fallback.remember(to) {
            warn!(
                exporter = self.exporter.name(),
                upstream = self.address,
                encoding = to.encoding().unwrap_or("none"),
                minutes = REMEMBERED.as_secs() / 60,
                why,
                "the upstream does not take the configured compression; another is used for now"
            );
        }
    }
}

impl Destination {
    /// Prepares the clients, which connect once there is something to send. Connections live for `age` at most.
    pub(crate) fn new(
        exporter: &Exporter,
        age: Duration,
        missing: MissingFiles,
    ) -> Result<Arc<Self>, ExportError> {
        let all = std::iter::once(exporter).chain(&exporter.backups);
        let endpoints = all
            .map(|exporter| Endpoint::new(exporter, age, missing))
            .collect::<Result<Vec<_>, _>>()?;
        let failover = Failover::new(endpoints.len(), exporter.failover_interval);
        Ok(Arc::new(Self {
            exporter: exporter.clone(),
            endpoints,
            failover: Mutex::new(failover),
            clock: Instant::now(),
            leaving: LogThrottle::default(),
        }))
    }

    /// The endpoint for an attempt that begins now.
    pub(super) fn pick(&self) -> usize {
        lock(&self.failover).pick(self.clock.elapsed())
    }

    pub(super) fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.endpoints.get(index)
    }

    /// The number and the address of the endpoint in use.
    pub(crate) fn in_use(&self) -> (usize, &str) {
        let index = lock(&self.failover).current();
        let address = self.endpoints.get(index).map(|of| of.address.as_str());
        (index, address.unwrap_or_default())
    }

    /// The endpoint to which the same batch goes at once after this answer, if there is one.
    pub(super) fn after(&self, index: usize, answer: &UpstreamAnswer) -> Option<usize> {
        let (before, next, after) = {
            let mut failover = lock(&self.failover);
            let before = failover.current();
            let next = failover.finished(index, answer.outcome, self.clock.elapsed());
            (before, next, failover.current())
        };
        let address = |index: usize| self.endpoints.get(index).map(|of| of.address.as_str());
        let (exporter, upstream) = (self.exporter.name(), address(after));
        if after > before
            && let Some(left_out) = self.leaving.due()
        {
            let (failed, why) = (address(before), &answer.message);
            warn!(
                exporter,
                upstream, failed, why, left_out, "an endpoint fails; another is in use"
            );
        } else if after < before && next == Next::Done && index == after {
            info!(exporter, upstream, "an earlier endpoint is in use again");
        }
        match next {
            Next::Try(next) => Some(next),
            Next::Done => None,
        }
    }

    /// What the flow of a signal needs to know.
    pub(super) fn settings(&self) -> Settings {
        let Exporter {
            queue,
            retry,
            timeout,
            ..
        } = &self.exporter;
        Settings {
            max_in_flight: queue.consumers,
            max_batch: queue.max_size,
            timeout: *timeout,
            retry: *retry,
        }
    }
}
