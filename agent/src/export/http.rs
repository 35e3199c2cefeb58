//! The OTLP/HTTP client (binary protobuf): HTTP/1.1, with a connection per request in flight. It does not follow
//! redirects.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use otelagent_flow::MOST_PATIENCE;
use otlp_wire::{Signal, status};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::answer::{self, Fault, ReadError, UpstreamAnswer, retry_after};
use super::connect::{ConnectError, Dialer};
use super::connection_end::ConnectionEnd;
use super::diagnosis::Diagnosis;
use super::error::ExportError;
use super::headers::{AGENT, Headers};
use super::progress::SendProgress;
use super::sliced_body::SlicedBody;
use super::tunnel;
use crate::config::{Compression, Exporter};
use crate::lock::lock;
use crate::logging::causes;
use crate::tls;

pub(super) struct HttpClient {
    paths: Vec<Uri>,
    headers: Headers,
    dialer: Arc<Dialer>,
    diagnosis: Diagnosis,
    connect_limit: Duration,
    /// The time of a call whose body makes progress.
    longest: Duration,
    /// Shared with the tasks that connect.
    idle: Arc<Mutex<Vec<HttpConnection>>>,
}

struct HttpConnection {
    sender: SendRequest<SlicedBody>,
    expires: Instant,
    end: ConnectionEnd,
    peer: SocketAddr,
}

impl HttpConnection {
    async fn open(dialer: &Arc<Dialer>) -> Result<Self, ConnectError> {
        let (stream, peer) = dialer.dial().await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        let end = ConnectionEnd::of(connection);
        sender.ready().await.map_err(ConnectError::Http)?;
        Ok(Self {
            sender,
            expires: dialer.expiry(),
            end,
            peer,
        })
    }
}

impl HttpClient {
    pub(super) fn new(exporter: &Exporter, max_age: Duration) -> Result<Self, ExportError> {
        let dialer = Dialer::new(exporter, b"http/1.1", max_age)?;
        let uri = |signal: Signal| {
            let path = match exporter.signal {
                Some(_) => exporter.base_path.clone(),
                None => format!("{}{}", exporter.base_path, signal.http_path()),
            };
            let url = if dialer.is_forwarded {
                format!("http://{}{path}", exporter.endpoint)
            } else {
                path
            };
            url.parse::<Uri>()
                .map_err(|error| ExportError::Endpoint(error.into()))
        };
        let mut headers = HeaderMap::new();
        let host = HeaderValue::from_str(&exporter.endpoint.to_string())
            .map_err(|error| ExportError::Endpoint(error.into()))?;
        headers.insert(HOST, host);
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-protobuf"),
        );
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let proxy = exporter.proxy.as_ref().filter(|_| dialer.is_forwarded);
        if let Some(authorization) = proxy.and_then(tunnel::authorization) {
            let mut value = HeaderValue::from_str(&authorization)
                .map_err(|_| ExportError::Header(PROXY_AUTHORIZATION.to_string()))?;
            value.set_sensitive(true);
            headers.insert(PROXY_AUTHORIZATION, value);
        }
        Ok(Self {
            paths: Signal::ALL.into_iter().map(uri).collect::<Result<_, _>>()?,
            headers: Headers::new(exporter, headers)?,
            diagnosis: Diagnosis::new(&dialer, false),
            dialer,
            connect_limit: exporter.timeout,
            longest: exporter.timeout.saturating_mul(MOST_PATIENCE),
            idle: Arc::default(),
        })
    }

    /// Makes one attempt. An idle connection may be closed; only the failure of a fresh one counts, and that of a
    /// second one if the first was closed without an answer, as by a server that goes.
    pub(super) async fn send(
        &self,
        signal: Signal,
        body: &[Bytes],
        compression: Compression,
        limit: Duration,
    ) -> UpstreamAnswer {
        let mut was_closed = false;
        loop {
            let connected = timeout(self.connect_limit, self.connection()).await;
            let (mut connection, reused) = match connected {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return self.diagnosis.not_connected(&error).await,
                Err(_) => {
                    return UpstreamAnswer::no_connection(&self.dialer.address, self.connect_limit);
                }
            };
            let headers = self.headers.current().await;
            let progress = SendProgress::begin();
            let request = self.request(signal, body, compression, &headers, &progress);
            let (end, peer) = (connection.end.clone(), connection.peer);
            let call = connection.sender.send_request(request);
            match progress.within(limit, self.longest, call).await {
                Some(Ok(response)) => {
                    return self.answer(signal, response, connection, limit).await;
                }
                Some(Err(error)) if !reused => {
                    if was_closed || !error.is_incomplete_message() {
                        return self.diagnosis.broken(&end, &error).await;
                    }
                    was_closed = true;
                }
                Some(Err(_)) => {}
                None => {
                    // TCP keeps connections to a vanished peer open for a quarter of an hour. Those to others
                    // are well.
                    lock(&self.idle).retain(|other| other.peer != peer);
                    self.dialer.avoid(peer);
                    return UpstreamAnswer::timed_out(limit);
                }
            }
        }
    }

    fn request(
        &self,
        signal: Signal,
        body: &[Bytes],
        compression: Compression,
        headers: &HeaderMap,
        progress: &SendProgress,
    ) -> Request<SlicedBody> {
        let body = SlicedBody::new(body.iter().cloned(), progress.clone());
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        if let Some(path) = self.paths.get(signal.index()) {
            *request.uri_mut() = path.clone();
        }
        *request.headers_mut() = headers.clone();
        if let Some(encoding) = compression.encoding() {
            let encoding = HeaderValue::from_static(encoding);
            request.headers_mut().insert(CONTENT_ENCODING, encoding);
        }
        request
    }

    async fn connection(&self) -> Result<(HttpConnection, bool), ConnectError> {
        loop {
            let idle = lock(&self.idle).pop();
            let Some(connection) = idle else { break };
            if connection.sender.is_ready() && Instant::now() < connection.expires {
                return Ok((connection, true));
            }
        }
        let (done, opened) = oneshot::channel();
        let (dialer, idle) = (Arc::clone(&self.dialer), Arc::clone(&self.idle));
        tokio::spawn(async move {
            let connection = HttpConnection::open(&dialer).await;
            // If the call was given up meanwhile, the next one finds the connection.
            if let Err(Ok(connection)) = done.send(connection) {
                lock(&idle).push(connection);
            }
        });
        let connection = opened.await.unwrap_or(Err(ConnectError::GivenUp))?;
        Ok((connection, false))
    }

    /// Reads an answer to its end, and keeps the connection.
    async fn read(
        &self,
        body: Incoming,
        mut connection: HttpConnection,
    ) -> Result<Vec<u8>, ReadError> {
        let (body, _) = answer::read(body).await?;
        if connection.sender.ready().await.is_ok() {
            let mut idle = lock(&self.idle);
            let now = Instant::now();
            idle.retain(|other| !other.sender.is_closed() && now < other.expires);
            idle.push(connection);
        }
        Ok(body)
    }

    async fn answer(
        &self,
        signal: Signal,
        response: Response<Incoming>,
        connection: HttpConnection,
        limit: Duration,
    ) -> UpstreamAnswer {
        let (head, body) = response.into_parts();
        // The rest of a success is worth no more patience: it says little, and the next batch waits for it.
        let limit = if head.status.is_success() {
            self.connect_limit
        } else {
            limit
        };
        let body = match timeout(limit, self.read(body, connection)).await {
            Ok(Ok(body)) => body,
            // The status has said enough: sent again, the data would be there twice.
            _ if head.status.is_success() => Vec::new(),
            Ok(Err(error)) => return UpstreamAnswer::broken(causes(&error)),
            Err(_) => return UpstreamAnswer::timed_out(limit),
        };
        if head.status.is_success() {
            self.diagnosis.works();
            // An invalid body is no reason to send the data again.
            let (rejected, message) = status::partial_success(&body).unwrap_or_default();
            return UpstreamAnswer::delivered(rejected, &message);
        }
        let is_plain = !self.dialer.is_encrypted();
        if is_plain && head.status == StatusCode::BAD_REQUEST && wants_tls(&body) {
            let (fault, advice) = self.diagnosis.other_scheme();
            return UpstreamAnswer::misconfigured(fault, advice);
        }
        if !is_plain && head.status == StatusCode::BAD_REQUEST && refuses_certificate(&body) {
            return UpstreamAnswer::misconfigured(Fault::Tls, tls::CLIENT_CERTIFICATE);
        }
        let is_text = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
        let message = if is_text {
            String::from_utf8_lossy(&body).into_owned()
        } else {
            status::message(&body).unwrap_or_default()
        };
        let delay = retry_after(&head.headers);
        let path = self.paths.get(signal.index());
        let url = format!(
            "{}{}",
            self.dialer.address,
            path.map_or("", |path| path.path())
        );
        UpstreamAnswer::of_http(head.status.as_u16(), &url, &message, delay)
    }
}

/// Whether a server says that the client certificate is missing or invalid: nginx.
fn refuses_certificate(body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    body.contains("No required SSL certificate was sent")
        || body.contains("The SSL certificate error")
}

/// Whether a server says that its port is for HTTPS: Go's, nginx, Apache.
fn wants_tls(body: &[u8]) -> bool {
    let body = String::from_utf8_lossy(body);
    [
        "HTTP request to an HTTPS server",
        "HTTP request was sent to HTTPS port",
        "speaking plain HTTP to an SSL-enabled server port",
    ]
    .iter()
    .any(|words| body.contains(words))
}
