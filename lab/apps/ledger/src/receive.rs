//! The two OTLP doors: gRPC, and HTTP with protobuf bodies. Everything well-formed is accepted.
//!
//! Knows how telemetry travels, not what is counted in it.

use std::io::Read;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::codec::CompressionEncoding::{Gzip, Zstd};

use crate::SharedBook;
use crate::book::Book;
use crate::otlp::{note_logs, note_metrics, note_traces};

/// Largest request, before and after decompression.
const MAX_REQUEST: usize = 64 << 20;

/// Serves OTLP/gRPC.
pub(crate) async fn grpc(
    book: SharedBook,
    address: std::net::SocketAddr,
) -> Result<(), tonic::transport::Error> {
    macro_rules! door {
        ($server:ident) => {
            $server::new(book.clone())
                .max_decoding_message_size(MAX_REQUEST)
                .accept_compressed(Gzip)
                .accept_compressed(Zstd)
        };
    }
    tonic::transport::Server::builder()
        .add_service(door!(TraceServiceServer))
        .add_service(door!(MetricsServiceServer))
        .add_service(door!(LogsServiceServer))
        .serve(address)
        .await
}

#[tonic::async_trait]
impl TraceService for SharedBook {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.write(|book, now| note_traces(book, request.get_ref(), now));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for SharedBook {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.write(|book, now| note_metrics(book, request.get_ref(), now));
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for SharedBook {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.write(|book, now| note_logs(book, request.get_ref(), now));
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

/// The routes of OTLP/HTTP.
pub(crate) fn http(book: SharedBook) -> Router {
    Router::new()
        .route("/v1/traces", post(http_traces))
        .route("/v1/metrics", post(http_metrics))
        .route("/v1/logs", post(http_logs))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .with_state(book)
}

async fn http_traces(State(book): State<SharedBook>, headers: HeaderMap, body: Bytes) -> Response {
    accept(&book, &headers, &body, note_traces)
}

async fn http_metrics(State(book): State<SharedBook>, headers: HeaderMap, body: Bytes) -> Response {
    accept(&book, &headers, &body, note_metrics)
}

async fn http_logs(State(book): State<SharedBook>, headers: HeaderMap, body: Bytes) -> Response {
    accept(&book, &headers, &body, note_logs)
}

fn accept<M: Message + Default>(
    book: &SharedBook,
    headers: &HeaderMap,
    body: &[u8],
    note: impl FnOnce(&mut Book, &M, u64),
) -> Response {
    let plain = match headers
        .get(header::CONTENT_ENCODING)
        .map(axum::http::HeaderValue::as_bytes)
    {
        None | Some(b"identity") => body.to_vec(),
        Some(b"gzip") => match gunzip(body) {
            Ok(plain) => plain,
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
        },
        Some(_) => return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response(),
    };
    match M::decode(plain.as_slice()) {
        Ok(message) => book.write(|book, now| note(book, &message, now)),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    }
    // All three responses are empty messages when everything was accepted, and so are no bytes.
    ([(header::CONTENT_TYPE, "application/x-protobuf")], "").into_response()
}

/// A body that is cut at the limit does not decode and is refused then.
fn gunzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(body)
        .take(MAX_REQUEST as u64)
        .read_to_end(&mut plain)?;
    Ok(plain)
}
