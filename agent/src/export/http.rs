//! The OTLP/HTTP client (binary protobuf): HTTP/1.1, with a connection per request in flight. It does not follow
//! redirects.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use otlp_wire::{Signal, status};
use tokio::time::{Instant, timeout};

use super::answer::{self, Answer, retry_after};
use super::connect::{ConnectError, Dialer};
use super::connection_end::ConnectionEnd;
use super::error::ExportError;
use super::headers::{AGENT, Headers};
use super::progress::Progress;
use super::sliced_body::SlicedBody;
use crate::config::Exporter;
use crate::lock::lock;
use crate::logging::causes;

pub(super) struct HttpClient {
    paths: Vec<Uri>,
    headers: Headers,
    dialer: Arc<Dialer>,
    limit: Duration,
    idle: Mutex<Vec<HttpConnection>>,
}

struct HttpConnection {
    sender: SendRequest<SlicedBody>,
    expires: Instant,
    end: ConnectionEnd,
}

impl HttpClient {
    pub(super) fn new(exporter: &Exporter, max_age: Duration) -> Result<Self, ExportError> {
        let uri = |signal: Signal| {
            let path = match exporter.signal {
                Some(_) => exporter.base_path.clone(),
                None => format!("{}{}", exporter.base_path, signal.http_path()),
            };
            path.parse::<Uri>()
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
        if let Some(encoding) = exporter.compression.encoding() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        Ok(Self {
            paths: Signal::ALL.into_iter().map(uri).collect::<Result<_, _>>()?,
            headers: Headers::new(exporter, headers)?,
            dialer: Dialer::new(exporter, b"http/1.1", max_age)?,
            limit: exporter.timeout,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Makes one attempt. An idle connection may be closed; only the failure of a fresh one counts, and that of a
    /// second one if the first was closed without an answer, as by a server that goes.
    pub(super) async fn send(&self, signal: Signal, body: &[Bytes]) -> Answer {
        let mut was_closed = false;
        loop {
            let (mut connection, reused) = match timeout(self.limit, self.connection()).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return Answer::unreachable(&error),
                Err(_) => return Answer::no_connection(self.limit),
            };
            let progress = Progress::begin();
            let request = self.request(signal, body, &progress);
            let end = connection.end.clone();
            let call = async {
                let response = connection.sender.send_request(request).await?;
                Ok(self.answer(response, connection).await)
            };
            match progress.within(self.limit, call).await {
                Some(Ok(answer)) => return answer,
                Some(Err(error)) if !reused => {
                    let error: hyper::Error = error;
                    if was_closed || !error.is_incomplete_message() {
                        return Answer::broken(end.explain(&error));
                    }
                    was_closed = true;
                }
                Some(Err(_)) => {}
                None => {
                    // TCP keeps connections to a vanished peer open for a quarter of an hour.
                    lock(&self.idle).clear();
                    return Answer::timed_out(self.limit);
                }
            }
        }
    }

    fn request(&self, signal: Signal, body: &[Bytes], progress: &Progress) -> Request<SlicedBody> {
        let body = SlicedBody::new(body.iter().cloned(), progress.clone());
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        if let Some(path) = self.paths.get(signal.index()) {
            *request.uri_mut() = path.clone();
        }
        *request.headers_mut() = (*self.headers.current()).clone();
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
        let stream = self.dialer.dial().await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(64 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        let end = ConnectionEnd::of(connection);
        sender.ready().await.map_err(ConnectError::Http)?;
        let connection = HttpConnection {
            sender,
            expires: self.dialer.expiry(),
            end,
        };
        Ok((connection, false))
    }

    async fn answer(&self, response: Response<Incoming>, mut connection: HttpConnection) -> Answer {
        let (head, body) = response.into_parts();
        let body = match answer::read(body).await {
            Ok((body, _)) => body,
            Err(_) if head.status.is_success() => Vec::new(),
            Err(error) => return Answer::broken(causes(&error)),
        };
        if connection.sender.ready().await.is_ok() {
            let mut idle = lock(&self.idle);
            let now = Instant::now();
            idle.retain(|other| !other.sender.is_closed() && now < other.expires);
            idle.push(connection);
        }
        if head.status.is_success() {
            // An invalid body is no reason to send the data again.
            let (rejected, message) = status::partial_success(&body).unwrap_or_default();
            return Answer::delivered(rejected, &message);
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
        Answer::of_http(head.status.as_u16(), &message, delay)
    }
}
