//! Whether something at an address takes telemetry: one empty request by OTLP/gRPC, which only a receiver that is
//! ready acknowledges. It is sent to no upstream.

use std::io;

use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_TYPE, TE};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use otelagent_flow::Outcome;
use otlp_wire::Signal;
use otlp_wire::frame::PREFIX;
use tokio::net::TcpStream;

use super::grpc::answer;
use crate::config::Address;
use crate::resolve::resolve;

/// Why telemetry is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAcknowledged {
    #[error("resolving {0}")]
    Resolve(String, #[source] io::Error),
    #[error("the address cannot be used in a request")]
    Address(#[source] http::Error),
    #[error("connecting")]
    Connect(#[source] io::Error),
    #[error("no answer by HTTP/2")]
    Http(#[source] hyper::Error),
    #[error("{0}")]
    Refused(String),
}

/// Asks once. The caller limits the time.
pub(crate) async fn acknowledges(address: &Address) -> Result<(), NotAcknowledged> {
    let path = Signal::Traces.grpc_path();
    // The frame of a message without a byte.
    let request = Request::post(format!("http://{address}{path}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(Bytes::from_static(&[0; PREFIX])))
        .map_err(NotAcknowledged::Address)?;
    let found = resolve(address).await;
    let found = found.map_err(|error| NotAcknowledged::Resolve(address.host.clone(), error))?;
    let stream = TcpStream::connect(found.as_slice())
        .await
        .map_err(NotAcknowledged::Connect)?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(NotAcknowledged::Http)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let answer = answer(response.map_err(NotAcknowledged::Http)?).await;
    connection.abort();
    match answer.outcome {
        Outcome::Delivered => Ok(()),
        _ => Err(NotAcknowledged::Refused(answer.message)),
    }
}
