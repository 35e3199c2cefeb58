//! Where and how batches are sent, by protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otelagent_flow::Settings;
use otlp_wire::Signal;

use super::answer::Answer;
use super::debug::DebugClient;
use super::error::ExportError;
use super::grpc::GrpcClient;
use super::http::HttpClient;
use crate::config::{Exporter, Protocol};

/// The client of an exporter.
enum ProtocolClient {
    Grpc(GrpcClient),
    Http(HttpClient),
    Debug(DebugClient),
    Nop,
}

/// Where and how batches are sent: an exporter's configuration and its connections.
pub(crate) struct Destination {
    pub(super) exporter: Exporter,
    client: ProtocolClient,
}

impl Destination {
    /// Prepares the client, which connects once there is something to send. Connections live for `age` at most.
    pub(crate) fn new(exporter: &Exporter, age: Duration) -> Result<Arc<Self>, ExportError> {
        let client = match exporter.protocol {
            Protocol::Grpc => ProtocolClient::Grpc(GrpcClient::new(exporter, age)?),
            Protocol::Http => ProtocolClient::Http(HttpClient::new(exporter, age)?),
            Protocol::Debug => ProtocolClient::Debug(DebugClient::new(&exporter.id)),
            Protocol::Nop => ProtocolClient::Nop,
        };
        Ok(Arc::new(Self {
            exporter: exporter.clone(),
            client,
        }))
    }

    /// Sends one request.
    pub(super) async fn send(&self, signal: Signal, body: &[Bytes]) -> Answer {
        match &self.client {
            ProtocolClient::Grpc(client) => client.send(signal, body).await,
            ProtocolClient::Http(client) => client.send(signal, body).await,
            ProtocolClient::Debug(client) => client.count(signal, body),
            ProtocolClient::Nop => Answer::delivered(0, ""),
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
