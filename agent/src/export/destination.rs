//! Where and how batches are sent: the endpoints of an exporter, each with its protocol and encoding.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use otelagent_flow::{Failover, Next, Settings};
use otlp_wire::Signal;
use tokio::time::Instant;
use tracing::{info, warn};

use super::answer::UpstreamAnswer;
use super::debug::DebugClient;
use super::error::ExportError;
use super::fallback::{Fallback, REMEMBERED};
use super::grpc::GrpcClient;
use super::http::HttpClient;
use crate::config::{Compression, Exporter, Protocol};
use crate::lock::lock;
use crate::logging::LogThrottle;

/// The client of an exporter.
enum ProtocolClient {
    Grpc(GrpcClient),
    Http(HttpClient),
    Debug(DebugClient),
    Nop,
}

/// One endpoint.
pub(super) struct Endpoint {
    /// The exporter's name.
    exporter: String,
    /// Host and port; empty if nothing is sent.
    address: String,
    client: ProtocolClient,
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
    fn new(exporter: &Exporter, age: Duration) -> Result<Self, ExportError> {
        let client = match exporter.protocol {
            Protocol::Grpc => ProtocolClient::Grpc(GrpcClient::new(exporter, age)?),
            Protocol::Http => ProtocolClient::Http(HttpClient::new(exporter, age)?),
            Protocol::Debug => ProtocolClient::Debug(DebugClient::new(&exporter.id)),
            Protocol::Nop => ProtocolClient::Nop,
        };
        Ok(Self {
            exporter: exporter.name(),
            address: match exporter.protocol {
                Protocol::Grpc | Protocol::Http => exporter.endpoint.to_string(),
                Protocol::Debug | Protocol::Nop => String::new(),
            },
            client,
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
        match &self.client {
            ProtocolClient::Grpc(client) => client.send(signal, body, compression, limit).await,
            ProtocolClient::Http(client) => client.send(signal, body, compression, limit).await,
            ProtocolClient::Debug(client) => client.count(signal, body),
            ProtocolClient::Nop => UpstreamAnswer::delivered(0, ""),
        }
    }

    /// Uses a plainer encoding from now on.
    pub(super) fn falls_back(&self, to: Compression, why: &str) {
        if self.fallback.remember(to) {
            warn!(
                exporter = self.exporter,
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
    pub(crate) fn new(exporter: &Exporter, age: Duration) -> Result<Arc<Self>, ExportError> {
        let all = std::iter::once(exporter).chain(&exporter.backups);
        let endpoints = all
            .map(|exporter| Endpoint::new(exporter, age))
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
