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
enum Client {
    Grpc(GrpcClient),
    Http(HttpClient),
    Debug(DebugClient),
    Nop,
}

/// Where and how batches are sent: an exporter's configuration and its connections.
pub(crate) struct Destination {
    pub(super) exporter: Exporter,
    client: Client,
}

impl Destination {
    /// Prepares the client, which connects once there is something to send. Connections live for `age` at most.
    pub(crate) fn new(exporter: &Exporter, age: Duration) -> Result<Arc<Self>, ExportError> {
        let client = match exporter.protocol {
            Protocol::Grpc => Client::Grpc(GrpcClient::new(exporter, age)?),
            Protocol::Http => Client::Http(HttpClient::new(exporter, age)?),
            Protocol::Debug => Client::Debug(DebugClient::new(&exporter.id)),
            Protocol::Nop => Client::Nop,
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
                Client::Grpc(client) => client.send(signal, body).await,
                Client::Http(client) => client.send(signal, body).await,
                Client::Debug(client) => client.count(signal, body),
                Client::Nop => debug::delivered(),
            }
        };
        let limit = self.exporter.timeout;
        if let Ok(outcome) = timeout(limit, sent).await {
            return outcome;
        }
        // TCP keeps a connection to a vanished peer open for a quarter of an hour.
        if let Client::Grpc(client) = &self.client {
            client.forget().await;
        }
        no_answer(format!("no answer within {limit:?}"))
    }
}
