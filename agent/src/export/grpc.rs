//! The OTLP/gRPC client: one HTTP/2 connection with its own framing (gRPC over HTTP/2).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use otlp_wire::{
    Signal,
    status::{self, Code},
};
use tokio::time::{Instant, timeout};

use super::answer::{self, Answer, retry_after};
use super::connect::{ConnectError, Dialer};
use super::connection_end::ConnectionEnd;
use super::error::ExportError;
use super::headers::{AGENT, Headers};
use super::progress::{LONGEST, Progress};
use super::sliced_body::SlicedBody;
use crate::config::{Compression, Exporter};
use crate::lock::lock;
use crate::logging::causes;

/// Answers are small; a larger window would only let the upstream fill our memory.
const WINDOW: u32 = 64 * 1024;

/// The bytes of a body that wait in this process, beyond which it makes no progress.
const SEND_BUFFER: usize = 256 * 1024;

/// The number of dead connections that one attempt tolerates.
const TRIES: usize = 3;

pub(super) struct GrpcClient {
    is_compressed: bool,
    paths: Vec<Uri>,
    headers: Headers,
    dialer: Arc<Dialer>,
    limit: Duration,
    connection: Mutex<Option<GrpcConnection>>,
    /// Held while connecting, so that calls share a connection.
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct GrpcConnection {
    sender: SendRequest<SlicedBody>,
    expires: Instant,
    end: ConnectionEnd,
    /// When the upstream answered on it last.
    heard: Arc<Mutex<Option<Instant>>>,
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
        // The server's clock runs while the body is on its way.
        let longest = exporter.timeout.saturating_mul(LONGEST);
        let millis = longest.as_millis().min(99_999_999);
        if let Ok(timeout) = HeaderValue::from_str(&format!("{millis}m")) {
            headers.insert(HeaderName::from_static("grpc-timeout"), timeout);
        }
        Ok(Self {
            is_compressed: exporter.compression != Compression::None,
            paths: Signal::ALL.into_iter().map(uri).collect::<Result<_, _>>()?,
            headers: Headers::new(exporter, headers)?,
            dialer: Dialer::new(exporter, b"h2", max_age)?,
            limit: exporter.timeout,
            connection: Mutex::new(None),
            dialing: tokio::sync::Mutex::new(()),
        })
    }

    /// Makes one attempt. If a reused connection turns out to be dead or closing (GOAWAY), repeats the call at
    /// once on a new one; only the result of a fresh connection counts.
    pub(super) async fn send(&self, signal: Signal, message: &[Bytes]) -> Answer {
        let mut left = TRIES;
        loop {
            let (connection, is_fresh) = match timeout(self.limit, self.connection()).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Answer::unreachable(&error),
                Err(_) => return Answer::no_connection(self.limit),
            };
            left -= 1;
            let (began, progress) = (Instant::now(), Progress::begin());
            let call = async {
                let sender = connection.sender.clone();
                let response = self.call(sender, signal, message, &progress).await?;
                *lock(&connection.heard) = Some(Instant::now());
                Ok(answer(response).await)
            };
            match progress.within(self.limit, call).await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) => {
                    let error: hyper::Error = error;
                    self.replace(&connection.end);
                    if is_fresh || left == 0 {
                        return Answer::broken(connection.end.explain(&error));
                    }
                }
                None => {
                    // TCP keeps a connection to a vanished peer open for a quarter of an hour. One on which
                    // others get answers is well.
                    if lock(&connection.heard).is_none_or(|heard| heard < began) {
                        self.replace(&connection.end);
                    }
                    return Answer::timed_out(self.limit);
                }
            }
        }
    }

    /// Drops a connection, unless another call has replaced it already. It closes once its calls have ended.
    fn replace(&self, failed: &ConnectionEnd) {
        let mut slot = lock(&self.connection);
        if slot.as_ref().is_some_and(|found| found.end.is(failed)) {
            *slot = None;
        }
    }

    async fn call(
        &self,
        mut sender: SendRequest<SlicedBody>,
        signal: Signal,
        message: &[Bytes],
        progress: &Progress,
    ) -> hyper::Result<Response<Incoming>> {
        let length: usize = message.iter().map(Bytes::len).sum();
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(u8::from(self.is_compressed));
        // The configuration bounds batches far below 4 GiB.
        prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        let parts = std::iter::once(prefix.freeze()).chain(message.iter().cloned());
        let mut request = Request::new(SlicedBody::new(parts, progress.clone()));
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
        if let Some(connection) = self.current() {
            return Ok((connection, false));
        }
        let _dialing = self.dialing.lock().await;
        if let Some(connection) = self.current() {
            return Ok((connection, false));
        }
        let stream = self.dialer.dial().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(16 * 1024)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        // Ends when the last sender is dropped.
        let connection = GrpcConnection {
            sender,
            expires: self.dialer.expiry(),
            end: ConnectionEnd::of(connection),
            heard: Arc::default(),
        };
        *lock(&self.connection) = Some(connection.clone());
        Ok((connection, true))
    }

    fn current(&self) -> Option<GrpcConnection> {
        let slot = lock(&self.connection);
        let usable = |connection: &&GrpcConnection| {
            !connection.sender.is_closed() && Instant::now() < connection.expires
        };
        slot.as_ref().filter(usable).cloned()
    }
}

async fn answer(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        return of_status(&head.headers, &[]);
    }
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc {
        let delay = retry_after(&head.headers);
        return Answer::of_foreign_http(head.status.as_u16(), delay);
    }
    let (body, trailers) = match answer::read(body).await {
        Ok(read) => read,
        Err(error) => return Answer::broken(causes(&error)),
    };
    match trailers {
        Some(trailers) => of_status(&trailers, &body),
        None => Answer::broken("the call ended without a gRPC status"),
    }
}

fn of_status(headers: &HeaderMap, body: &[u8]) -> Answer {
    let code = headers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok())
        .and_then(|status| status.parse().ok())
        .map_or(Code(2), Code);
    if code == Code::OK {
        // Five bytes of framing precede the message.
        let message = body.get(5..).unwrap_or_default();
        let (rejected, message) = status::partial_success(message).unwrap_or_default();
        return Answer::delivered(rejected, &message);
    }
    let text = headers
        .get("grpc-message")
        .map(|text| status::percent_decode(text.as_bytes()))
        .unwrap_or_default();
    Answer::of_grpc(code, &text, details_delay(headers))
}

fn details_delay(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?;
    status::retry_delay(&status::base64_decode(details.as_bytes())?)
}
