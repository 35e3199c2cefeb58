//! The OTLP/gRPC client: one HTTP/2 connection with its own framing (gRPC over HTTP/2).

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use otlp_wire::{
    Signal,
    status::{self, Code},
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connect::{ConnectError, Dialer};
use super::connection_end::ConnectionEnd;
use super::error::ExportError;
use super::headers::{AGENT, Headers};
use super::outcome::{self, MAX_RESPONSE, Outcome, no_answer, retry_on};
use super::sliced_body::SlicedBody;
use crate::config::{Compression, Exporter};

/// Answers are small; a larger window would only let the upstream fill our memory.
const WINDOW: u32 = 64 * 1024;

/// The number of dead connections that one attempt tolerates.
const TRIES: usize = 3;

pub(super) struct GrpcClient {
    is_compressed: bool,
    paths: Vec<Uri>,
    headers: Headers,
    dialer: Dialer,
    connection: Mutex<Option<GrpcConnection>>,
}

#[derive(Clone)]
struct GrpcConnection {
    sender: SendRequest<SlicedBody>,
    expires: Instant,
    end: ConnectionEnd,
}

impl GrpcClient {
    pub(super) fn new(exporter: &Exporter, max_age: Duration) -> Result<Self, ExportError> {
        let scheme = if exporter.tls.is_some() {
            "https"
        } else {
            "http"
        };
        // The verified name is also the requested one, as in other gRPC clients.
        let tls = exporter.tls.as_ref();
        let proven = tls.and_then(|tls| tls.server_name_override.clone());
        let named = exporter.authority.clone().or(proven);
        let authority = named.unwrap_or_else(|| exporter.endpoint.to_string());
        let uri = |signal: Signal| {
            Uri::builder()
                .scheme(scheme)
                .authority(authority.as_str())
                .path_and_query(signal.grpc_path())
                .build()
                .map_err(ExportError::Endpoint)
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        let agent = exporter.user_agent.as_deref().unwrap_or(AGENT);
        let agent = HeaderValue::from_str(agent)
            .map_err(|_| ExportError::Header(USER_AGENT.to_string()))?;
        headers.insert(USER_AGENT, agent);
        if let Some(encoding) = exporter.compression.encoding() {
            let name = HeaderName::from_static("grpc-encoding");
            headers.insert(name, HeaderValue::from_static(encoding));
        }
        let millis = exporter.timeout.as_millis().min(99_999_999);
        if let Ok(timeout) = HeaderValue::from_str(&format!("{millis}m")) {
            headers.insert(HeaderName::from_static("grpc-timeout"), timeout);
        }
        Ok(Self {
            is_compressed: exporter.compression != Compression::None,
            paths: Signal::ALL.into_iter().map(uri).collect::<Result<_, _>>()?,
            headers: Headers::new(exporter, headers)?,
            dialer: Dialer::new(exporter, b"h2", max_age)?,
            connection: Mutex::new(None),
        })
    }

    /// Makes one attempt. If a reused connection turns out to be dead or closing (GOAWAY), repeats the call at
    /// once on a new one; only the result of a fresh connection counts.
    pub(super) async fn send(&self, signal: Signal, message: &[Bytes]) -> Outcome {
        let mut left = TRIES;
        loop {
            let (connection, is_fresh) = match self.connection().await {
                Ok(found) => found,
                Err(error) => return retry_on(&error),
            };
            left -= 1;
            match self.call(connection.sender, signal, message).await {
                Ok(response) => return outcome(response).await,
                Err(error) => {
                    self.replace(&connection.end).await;
                    if is_fresh || left == 0 {
                        return no_answer(connection.end.explain(&error));
                    }
                }
            }
        }
    }

    /// Drops the connection; it closes once its calls have ended.
    pub(super) async fn forget(&self) {
        *self.connection.lock().await = None;
    }

    /// The same, unless another call has replaced the connection already.
    async fn replace(&self, failed: &ConnectionEnd) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|found| found.end.is(failed)) {
            *slot = None;
        }
    }

    async fn call(
        &self,
        mut sender: SendRequest<SlicedBody>,
        signal: Signal,
        message: &[Bytes],
    ) -> hyper::Result<Response<Incoming>> {
        let length: usize = message.iter().map(Bytes::len).sum();
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(u8::from(self.is_compressed));
        // The configuration bounds batches far below 4 GiB.
        prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        let parts = std::iter::once(prefix.freeze()).chain(message.iter().cloned());
        let mut request = Request::new(SlicedBody::new(parts));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        if let Some(path) = self.paths.get(signal.index()) {
            *request.uri_mut() = path.clone();
        }
        *request.headers_mut() = (*self.headers.current()).clone();
        sender.ready().await?;
        sender.send_request(request).await
    }

    /// The connection, and whether it is fresh.
    async fn connection(&self) -> Result<(GrpcConnection, bool), ConnectError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref()
            && !connection.sender.is_closed()
            && Instant::now() < connection.expires
        {
            return Ok((connection.clone(), false));
        }
        let stream = self.dialer.dial().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        // Ends when the last sender is dropped.
        let connection = GrpcConnection {
            sender,
            expires: self.dialer.expiry(),
            end: ConnectionEnd::of(connection),
        };
        *slot = Some(connection.clone());
        Ok((connection, true))
    }
}

async fn outcome(response: Response<Incoming>) -> Outcome {
    let (head, body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        return of_status(&head.headers, &[]);
    }
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        return outcome::of_foreign_http(head.status.as_u16());
    }
    let collected = match Limited::new(body, MAX_RESPONSE).collect().await {
        Ok(collected) => collected,
        Err(error) => return retry_on(&*error),
    };
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes();
    match trailers {
        Some(trailers) => of_status(&trailers, &body),
        None => no_answer("the call ended without a gRPC status"),
    }
}

fn of_status(headers: &HeaderMap, body: &[u8]) -> Outcome {
    let code = headers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok())
        .and_then(|status| status.parse().ok())
        .map_or(Code(2), Code);
    if code == Code::OK {
        // Five bytes of framing precede the message.
        let message = body.get(5..).unwrap_or_default();
        let (rejected, message) = status::partial_success(message).unwrap_or_default();
        return Outcome::Delivered { rejected, message };
    }
    let text = headers
        .get("grpc-message")
        .map(|text| status::percent_decode(text.as_bytes()))
        .unwrap_or_default();
    outcome::of_grpc(code, &text, details_delay(headers))
}

fn details_delay(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?;
    status::retry_delay(&status::base64_decode(details.as_bytes())?)
}
