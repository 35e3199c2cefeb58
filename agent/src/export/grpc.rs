//! The OTLP/gRPC client: one HTTP/2 connection with its own framing (gRPC over HTTP/2).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{Method, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use otelagent_flow::MOST_PATIENCE;
use otlp_wire::{
    Signal,
    status::{self, Code},
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::answer::{self, UpstreamAnswer, retry_after};
use super::connect::{ConnectError, Dialer};
use super::connection_end::ConnectionEnd;
use super::diagnosis::Diagnosis;
use super::error::ExportError;
use super::headers::{AGENT, Headers};
use super::progress::SendProgress;
use super::sliced_body::SlicedBody;
use crate::budget::Budget;
use crate::config::{Compression, Exporter};
use crate::encoding;
use crate::lock::lock;
use crate::logging::causes;

/// Answers are small; a larger window would only let the upstream fill our memory.
const WINDOW: u32 = 64 * 1024;

/// The bytes of a body that wait in this process, beyond which it makes no progress.
const SEND_BUFFER: usize = 256 * 1024;

/// The size that a compressed answer may have.
const LARGEST_MESSAGE: usize = 64 * 1024;

/// The memory to decompress it: the largest window of zstd, and some.
const ANSWER_MEMORY: usize = 10 * 1024 * 1024;

/// The number of dead connections that one attempt tolerates.
const TRIES: usize = 3;

pub(super) struct GrpcClient {
    paths: Vec<Uri>,
    headers: Headers,
    dialer: Arc<Dialer>,
    diagnosis: Diagnosis,
    connect_limit: Duration,
    /// The time of a call whose body makes progress.
    longest: Duration,
    /// Shared with the task that connects.
    slot: Arc<Mutex<Slot>>,
}

/// The connection that calls share, and the attempt to make one, which no call's time limit ends.
#[derive(Default)]
struct Slot {
    connection: Option<GrpcConnection>,
    dialing: Option<Dialing>,
}

/// The end of an attempt to connect, once there is one.
type Dialing = watch::Receiver<Option<Dialed>>;
type Dialed = Result<GrpcConnection, Arc<ConnectError>>;

#[derive(Clone)]
struct GrpcConnection {
    sender: SendRequest<SlicedBody>,
    expires: Instant,
    end: ConnectionEnd,
    peer: SocketAddr,
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
        // The server's clock runs while the body is on its way.
        let longest = exporter.timeout.saturating_mul(MOST_PATIENCE);
        let millis = longest.as_millis().min(99_999_999);
        if let Ok(timeout) = HeaderValue::from_str(&format!("{millis}m")) {
            headers.insert(HeaderName::from_static("grpc-timeout"), timeout);
        }
        let dialer = Dialer::new(exporter, b"h2", max_age)?;
        Ok(Self {
            paths: Signal::ALL.into_iter().map(uri).collect::<Result<_, _>>()?,
            headers: Headers::new(exporter, headers)?,
            diagnosis: Diagnosis::new(&dialer, true),
            dialer,
            connect_limit: exporter.timeout,
            longest,
            slot: Arc::default(),
        })
    }

    /// Makes one attempt. If a reused connection turns out to be dead or closing (GOAWAY), repeats the call at
    /// once on a new one; only the result of a fresh connection counts.
    pub(super) async fn send(
        &self,
        signal: Signal,
        message: &[Bytes],
        compression: Compression,
        limit: Duration,
    ) -> UpstreamAnswer {
        let mut left = TRIES;
        loop {
            let connected = timeout(self.connect_limit, self.connection()).await;
            let (connection, is_fresh) = match connected {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return self.diagnosis.not_connected(&error).await,
                Err(_) => {
                    return UpstreamAnswer::no_connection(&self.dialer.address, self.connect_limit);
                }
            };
            left -= 1;
            let headers = self.headers.current().await;
            let (began, progress) = (Instant::now(), SendProgress::begin());
            let request = self.request(signal, message, compression, &headers, &progress);
            let call = async {
                let mut sender = connection.sender.clone();
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                *lock(&connection.heard) = Some(Instant::now());
                Ok(answer(response).await)
            };
            match progress.within(limit, self.longest, call).await {
                Some(Ok(answer)) => {
                    self.diagnosis.works();
                    return answer;
                }
                Some(Err(error)) => {
                    let error: hyper::Error = error;
                    self.replace(&connection.end);
                    if is_fresh || left == 0 {
                        return self.diagnosis.broken(&connection.end, &error).await;
                    }
                }
                None => {
                    // TCP keeps a connection to a vanished peer open for a quarter of an hour. One on which
                    // others get answers is well.
                    if lock(&connection.heard).is_none_or(|heard| heard < began) {
                        self.replace(&connection.end);
                        self.dialer.avoid(connection.peer);
                    }
                    return UpstreamAnswer::timed_out(limit);
                }
            }
        }
    }

    /// Drops a connection, unless another call has replaced it already. It closes once its calls have ended.
    fn replace(&self, failed: &ConnectionEnd) {
        let connection = &mut lock(&self.slot).connection;
        if (connection.as_ref()).is_some_and(|found| found.end.is(failed)) {
            *connection = None;
        }
    }

    fn request(
        &self,
        signal: Signal,
        message: &[Bytes],
        compression: Compression,
        headers: &HeaderMap,
        progress: &SendProgress,
    ) -> Request<SlicedBody> {
        let length: usize = message.iter().map(Bytes::len).sum();
        let mut prefix = BytesMut::with_capacity(5);
        prefix.put_u8(u8::from(compression != Compression::None));
        // The configuration bounds batches far below 4 GiB.
        prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        let parts = std::iter::once(prefix.freeze()).chain(message.iter().cloned());
        let mut request = Request::new(SlicedBody::new(parts, progress.clone()));
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        if let Some(path) = self.paths.get(signal.index()) {
            *request.uri_mut() = path.clone();
        }
        *request.headers_mut() = headers.clone();
        if let Some(encoding) = compression.encoding() {
            let encoding = HeaderValue::from_static(encoding);
            request.headers_mut().insert("grpc-encoding", encoding);
        }
        request
    }

    /// The connection, and whether it was made for this call. Connecting goes on if the call is given up.
    async fn connection(&self) -> Result<(GrpcConnection, bool), Arc<ConnectError>> {
        let (mut dialing, is_fresh) = {
            let mut slot = lock(&self.slot);
            if let Some(connection) = slot.usable() {
                return Ok((connection, false));
            }
            let earlier = slot.dialing.clone();
            let is_fresh = earlier.is_none();
            let dialing = earlier.unwrap_or_else(|| self.dial());
            slot.dialing = Some(dialing.clone());
            (dialing, is_fresh)
        };
        let dialed = dialing.wait_for(Option::is_some).await;
        let dialed = dialed.ok().and_then(|dialed| dialed.clone());
        let connection = dialed.unwrap_or_else(|| Err(Arc::new(ConnectError::GivenUp)))?;
        Ok((connection, is_fresh))
    }

    /// Connects in the background.
    fn dial(&self) -> Dialing {
        let (dialer, slot) = (Arc::clone(&self.dialer), Arc::clone(&self.slot));
        let (done, dialing) = watch::channel(None);
        tokio::spawn(async move {
            let opened = GrpcConnection::open(&dialer).await.map_err(Arc::new);
            {
                let mut slot = lock(&slot);
                slot.dialing = None;
                if let Ok(connection) = &opened {
                    slot.connection = Some(connection.clone());
                }
            }
            done.send_replace(Some(opened));
        });
        dialing
    }
}

impl Slot {
    fn usable(&self) -> Option<GrpcConnection> {
        let usable = |connection: &&GrpcConnection| {
            !connection.sender.is_closed() && Instant::now() < connection.expires
        };
        self.connection.as_ref().filter(usable).cloned()
    }
}

impl GrpcConnection {
    /// Connects. The connection ends when the last sender is dropped.
    async fn open(dialer: &Arc<Dialer>) -> Result<Self, ConnectError> {
        let (stream, peer) = dialer.dial().await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(16 * 1024)
            .max_send_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        Ok(Self {
            sender,
            expires: dialer.expiry(),
            end: ConnectionEnd::of(connection),
            peer,
            heard: Arc::default(),
        })
    }
}

/// What the answer to a call says.
pub(super) async fn answer(response: Response<Incoming>) -> UpstreamAnswer {
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
        return UpstreamAnswer::of_foreign_http(head.status.as_u16(), delay);
    }
    let (body, trailers) = match answer::read(body).await {
        Ok(read) => read,
        Err(error) => return UpstreamAnswer::broken(causes(&error)),
    };
    match trailers {
        Some(trailers) => of_status(&trailers, &message(&head.headers, &body)),
        None => UpstreamAnswer::broken("the call ended without a gRPC status"),
    }
}

/// The message in the body of an answer; empty if it cannot be read. Servers of grpc-go compress it as the request was,
/// whatever the client accepts.
fn message<'b>(headers: &HeaderMap, body: &'b [u8]) -> Cow<'b, [u8]> {
    // Five bytes of framing precede it; the first tells whether it is compressed.
    let message = body.get(5..).unwrap_or_default();
    if body.first() != Some(&1) {
        return message.into();
    }
    let encoding = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    let mut permit = Budget::new(ANSWER_MEMORY, 0, 0).permit(None);
    encoding::parse(encoding)
        .and_then(|kind| encoding::decode(kind, message, LARGEST_MESSAGE, &mut permit).ok())
        .unwrap_or_default()
        .into()
}

fn of_status(headers: &HeaderMap, message: &[u8]) -> UpstreamAnswer {
    let code = headers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok())
        .and_then(|status| status.parse().ok())
        .map_or(Code(2), Code);
    if code == Code::OK {
        let (rejected, message) = status::partial_success(message).unwrap_or_default();
        return UpstreamAnswer::delivered(rejected, &message);
    }
    let text = headers
        .get("grpc-message")
        .map(|text| status::percent_decode(text.as_bytes()))
        .unwrap_or_default();
    UpstreamAnswer::of_grpc(code, &text, details_delay(headers))
}

fn details_delay(headers: &HeaderMap) -> Option<Duration> {
    let details = headers.get("grpc-status-details-bin")?;
    status::retry_delay(&status::base64_decode(details.as_bytes())?)
}
