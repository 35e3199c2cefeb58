//! OTLP/gRPC to the upstream: one HTTP/2 connection, own framing (gRPC over HTTP/2). Must not know
//! queues or when to try again.

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
use super::ending::Ending;
use super::headers::Headers;
use super::retry::{self, Outcome};
use super::rope::Rope;
use super::{AGENT, ExportError, MAX_RESPONSE, no_answer, retry_on};
use crate::config::{Compression, Exporter};

/// Answers are a few bytes; a larger window would only let the upstream fill our memory.
const WINDOW: u32 = 64 * 1024;

/// Connections one attempt may find dead before it waits.
const TRIES: usize = 3;

/// The upstream as gRPC server.
pub(super) struct Client {
    is_compressed: bool,
    paths: [Uri; Signal::COUNT],
    headers: Headers,
    dialer: Dialer,
    connection: Mutex<Option<Connection>>,
}

#[derive(Clone)]
struct Connection {
    sender: SendRequest<Rope>,
    expires: Instant,
    ending: Ending,
}

impl Client {
    pub(super) fn new(exporter: &Exporter, max_age: Duration) -> Result<Self, ExportError> {
        let scheme = if exporter.tls.is_some() {
            "https"
        } else {
            "http"
        };
        // The name that is proven is the name that is asked for, as in other gRPC clients.
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
            paths: [
                uri(Signal::Traces)?,
                uri(Signal::Metrics)?,
                uri(Signal::Logs)?,
                uri(Signal::Profiles)?,
            ],
            headers: Headers::new(exporter, headers)?,
            dialer: Dialer::new(exporter, b"h2", max_age)?,
            connection: Mutex::new(None),
        })
    }

    /// One attempt. A call on a connection that turns out to be dead or going away (GOAWAY) is made
    /// again at once on the next: only what a fresh one says counts.
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
                    self.replace(&connection.ending).await;
                    if is_fresh || left == 0 {
                        return no_answer(connection.ending.explain(&error));
                    }
                }
            }
        }
    }

    /// Closes the connection once the calls on it have ended.
    pub(super) async fn forget(&self) {
        *self.connection.lock().await = None;
    }

    /// The same, unless another call has replaced it already.
    async fn replace(&self, failed: &Ending) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|found| found.ending.is(failed)) {
            *slot = None;
        }
    }

    async fn call(
        &self,
        mut sender: SendRequest<Rope>,
        signal: Signal,
        message: &[Bytes],
    ) -> hyper::Result<Response<Incoming>> {
        let length: usize = message.iter().map(Bytes::len).sum();
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(u8::from(self.is_compressed));
        // Batches are bounded far below 4 GiB by the configuration.
        prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        let parts = std::iter::once(prefix.freeze()).chain(message.iter().cloned());
        let mut request = Request::new(Rope::new(parts));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        if let Some(path) = self.paths.get(signal.index()) {
            *request.uri_mut() = path.clone();
        }
        *request.headers_mut() = (*self.headers.current()).clone();
        sender.ready().await?;
        sender.send_request(request).await
    }

    /// The connection, and whether it was made for this call.
    async fn connection(&self) -> Result<(Connection, bool), ConnectError> {
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
        let connection = Connection {
            sender,
            expires: self.dialer.expiry(),
            ending: Ending::of(connection),
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
        return retry::of_foreign_http(head.status.as_u16());
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
        // Five bytes of gRPC framing; nothing behind them is an answer without partial success.
        let message = body.get(5..).unwrap_or_default();
        let (rejected, message) = status::partial_success(message).unwrap_or_default();
        return Outcome::Delivered { rejected, message };
    }
    let text = headers
        .get("grpc-message")
        .map(|text| status::percent_decode(text.as_bytes()))
        .unwrap_or_default();
    retry::of_grpc(code, &text, details_delay(headers))
}

fn details_delay(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?;
    status::retry_delay(&status::base64_decode(details.as_bytes())?)
}
