//! Where and how batches are sent, by protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use otlp_wire::Signal;
use tokio::time::timeout;

use super::debug::{self, DebugClient};
use super::error::ExportError;
use super::grpc::GrpcClient;
use super::http::HttpClient;
use super::outcome::{Outcome, no_answer};
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

    /// Sends one request within the time limit of an attempt.
    pub(super) async fn send(&self, signal: Signal, body: &[Bytes]) -> Outcome {
        let sent = async {
            match &self.client {
                ProtocolClient::Grpc(client) => client.send(signal, body).await,
                ProtocolClient::Http(client) => client.send(signal, body).await,
                ProtocolClient::Debug(client) => client.count(signal, body),
                ProtocolClient::Nop => debug::delivered(),
            }
        };
        let limit = self.exporter.timeout;
        if let Ok(outcome) = timeout(limit, sent).await {
            return outcome;
        }
        // TCP keeps a connection to a vanished peer open for a quarter of an hour.
        if let ProtocolClient::Grpc(client) = &self.client {
            client.forget().await;
        }
        no_answer(format!("no answer within {limit:?}"))
    }
}
