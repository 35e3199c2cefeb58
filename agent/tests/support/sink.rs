//! An upstream on a real port, with HTTP/1.1 and HTTP/2: answers by a script, then accepts and keeps requests.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::client::{Duplex, gzip};
use super::telemetry::span_names;

/// How grpc-go says that a message is too large.
pub const TOO_LARGE: &str = "grpc: received message larger than max (5034010 vs. 4194304)";

/// A scripted reply.
#[derive(Clone, Debug)]
pub enum Reply {
    /// gRPC: status, and encoded `google.rpc.Status` details if any. The data is not kept.
    Grpc(u32, Option<Vec<u8>>),
    /// gRPC: status and message. The data is not kept.
    Says(u32, &'static str),
    /// HTTP: status and headers. The data is not kept.
    Http(u16, Vec<(&'static str, String)>),
    /// HTTP: status and a text. The data is not kept.
    Text(u16, &'static str),
    /// The data is kept; this is the body of the answer.
    Take(Vec<u8>),
    /// The data is kept; the answer is compressed like that, as grpc-go does it.
    TakeCompressed(&'static str, Vec<u8>),
    /// Takes the data and never answers.
    Silence,
    /// Waits, then takes the data.
    Slow(Duration),
    /// Waits until the test lets it go, then takes the data.
    Held(Arc<Notify>),
}

impl Reply {
    /// Whether the data is kept.
    fn takes(&self) -> bool {
        matches!(
            self,
            Self::Take(_)
                | Self::TakeCompressed(..)
                | Self::Silence
                | Self::Slow(_)
                | Self::Held(_)
        )
    }
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    /// Without gRPC framing, decompressed.
    pub message: Vec<u8>,
    pub taken: bool,
}

#[derive(Default)]
struct State {
    script: VecDeque<Reply>,
    always: Option<Reply>,
    received: Vec<Received>,
    /// What TLS agreed on, connection by connection.
    protocols: Vec<Option<String>>,
    connections: usize,
    /// Replies by path, before any other.
    by_path: Vec<(&'static str, Reply)>,
    /// Larger requests are refused.
    largest: Option<usize>,
    /// The reply to whatever contains the text.
    dislikes: Option<(&'static str, Reply)>,
    /// The reply to requests in this encoding.
    unknown: Option<(&'static str, Reply)>,
}

impl State {
    /// The scripted reply to a request on this path.
    fn next_reply(&mut self, path: &str) -> Reply {
        let here = self.by_path.iter().find(|(wanted, _)| *wanted == path);
        let here = here.map(|(_, reply)| reply.clone());
        here.or_else(|| self.script.pop_front())
            .or_else(|| self.always.clone())
            .unwrap_or(Reply::Take(Vec::new()))
    }

    /// The reply to a request in an encoding that is not known.
    fn unknown(&self, headers: &HeaderMap) -> Option<Reply> {
        let (unknown, reply) = self.unknown.as_ref()?;
        let names = ["content-encoding", "grpc-encoding"];
        let encoding = names.iter().find_map(|name| headers.get(*name))?;
        (encoding == unknown).then(|| reply.clone())
    }

    /// The reply to a message that is refused for what it is.
    fn refusal(&self, message: &[u8], speaks: Speaks) -> Option<Reply> {
        if self.largest.is_some_and(|largest| message.len() > largest) {
            return Some(match speaks {
                Speaks::Grpc => Reply::Says(8, TOO_LARGE),
                Speaks::Http => Reply::Http(413, Vec::new()),
            });
        }
        let (text, reply) = self.dislikes.as_ref()?;
        let mut parts = message.windows(text.len());
        let contains = parts.any(|part| part == text.as_bytes());
        contains.then(|| reply.clone())
    }
}

/// A running upstream; stops when dropped.
pub struct Sink {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
    leave: watch::Sender<()>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Speaks {
    Grpc,
    Http,
}

impl Sink {
    pub async fn grpc() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), Speaks::Grpc).await
    }

    pub async fn http() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), Speaks::Http).await
    }

    /// Listens on a given address, for upstreams that come back.
    pub async fn at(address: SocketAddr, speaks: Speaks) -> Self {
        Self::on(TcpListener::bind(address).await.unwrap(), speaks, None)
    }

    /// Speaks TLS on a port of its own.
    pub async fn secure(speaks: Speaks, tls: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, speaks, Some(tls))
    }

    /// Serves an existing socket.
    pub fn on(listener: TcpListener, speaks: Speaks, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (leave, left) = watch::channel(());
        let task = tokio::spawn(accept(listener, Arc::clone(&state), speaks, tls, left));
        Self {
            address,
            state,
            task,
            leave,
        }
    }

    /// Adds replies that come before data is accepted, in order.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.state.lock().unwrap().script.extend(replies);
    }

    /// The reply to everything the script does not cover.
    pub fn always(&self, reply: Option<Reply>) {
        self.state.lock().unwrap().always = reply;
    }

    /// The reply to everything sent to this path, from now on.
    pub fn always_at(&self, path: &'static str, reply: Reply) {
        self.state.lock().unwrap().by_path = vec![(path, reply)];
    }

    /// Refuses requests of more bytes, uncompressed, as too large.
    pub fn largest(&self, bytes: usize) {
        self.state.lock().unwrap().largest = Some(bytes);
    }

    /// The reply to every request that contains the text, before any other.
    pub fn dislikes(&self, text: &'static str, reply: Reply) {
        self.state.lock().unwrap().dislikes = Some((text, reply));
    }

    /// The reply to every request in this encoding, before any other.
    pub fn does_not_know(&self, encoding: &'static str, reply: Reply) {
        self.state.lock().unwrap().unknown = Some((encoding, reply));
    }

    /// Ends every connection in good order: GOAWAY, or `connection: close`.
    pub fn leave(&self) {
        self.leave.send_replace(());
    }

    /// The protocols TLS has agreed on, connection by connection.
    pub fn protocols(&self) -> Vec<Option<String>> {
        self.state.lock().unwrap().protocols.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.lock().unwrap().received.clone()
    }

    /// Requests that were taken.
    pub fn taken(&self) -> Vec<Received> {
        self.received()
            .into_iter()
            .filter(|request| request.taken)
            .collect()
    }

    /// Names of all spans taken.
    pub fn spans(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let taken = state.received.iter().filter(|request| request.taken);
        let traces = taken.filter(|request| request.path.to_lowercase().contains("trace"));
        traces
            .flat_map(|request| {
                let request = ExportTraceServiceRequest::decode(request.message.as_slice());
                span_names(&request.unwrap())
            })
            .collect()
    }

    /// What a failed test is shown: the last requests.
    fn print(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, connections) = (state.received.len(), state.connections);
        println!(
            "{} has had {connections} connections and {all} requests; the last:",
            self.address
        );
        for request in state.received.iter().skip(all.saturating_sub(20)) {
            let (path, bytes, taken) = (&request.path, request.message.len(), request.taken);
            println!("  {path}, {bytes} bytes, taken: {taken}");
        }
    }

    /// Closes the port and every connection.
    pub async fn stop(mut self) -> SocketAddr {
        self.halt().await;
        self.address
    }

    /// The same; what was received stays known.
    pub async fn halt(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print();
        }
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    state: Arc<Mutex<State>>,
    speaks: Speaks,
    tls: Option<TlsAcceptor>,
    left: watch::Receiver<()>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        state.lock().unwrap().connections += 1;
        let (state, tls, mut left) = (Arc::clone(&state), tls.clone(), left.clone());
        left.mark_unchanged();
        connections.spawn(async move {
            let stream: Box<dyn Duplex> = match tls {
                None => Box::new(stream),
                Some(tls) => {
                    let Ok(stream) = tls.accept(stream).await else {
                        return;
                    };
                    let protocol = stream.get_ref().1.alpn_protocol();
                    let protocol = protocol.map(|name| String::from_utf8(name.into()).unwrap());
                    state.lock().unwrap().protocols.push(protocol);
                    Box::new(stream)
                }
            };
            let service = service_fn(move |request| answer(request, Arc::clone(&state), speaks));
            let io = TokioIo::new(stream);
            if speaks == Speaks::Grpc {
                let builder = http2::Builder::new(TokioExecutor::new());
                let mut connection = pin!(builder.serve_connection(io, service));
                while tokio::select! {
                    _ = connection.as_mut() => false,
                    changed = left.changed() => changed.is_ok(),
                } {
                    connection.as_mut().graceful_shutdown();
                }
            } else {
                let mut connection = pin!(http1::Builder::new().serve_connection(io, service));
                while tokio::select! {
                    _ = connection.as_mut() => false,
                    changed = left.changed() => changed.is_ok(),
                } {
                    connection.as_mut().graceful_shutdown();
                }
            }
        });
    }
}

pub type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    speaks: Speaks,
) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let reply = state.lock().unwrap().next_reply(head.uri.path());
    match &reply {
        Reply::Slow(wait) => tokio::time::sleep(*wait).await,
        Reply::Held(released) => released.notified().await,
        _ => {}
    }
    let unknown = state.lock().unwrap().unknown(&head.headers);
    let reply = unknown.unwrap_or(reply);
    let body = body.as_ref();
    let message = match speaks {
        Speaks::Grpc => {
            let encoding = head.headers.get("grpc-encoding").filter(|_| body[0] == 1);
            decode(&body[5..], encoding)
        }
        Speaks::Http => decode(body, head.headers.get("content-encoding")),
    };
    let refusal = state.lock().unwrap().refusal(&message, speaks);
    let reply = refusal.unwrap_or(reply);
    let taken = reply.takes();
    state.lock().unwrap().received.push(Received {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        message,
        taken,
    });
    let body = match reply {
        Reply::Silence => std::future::pending().await,
        Reply::Take(body) => body,
        Reply::TakeCompressed(encoding, body) => {
            let compress = if encoding == "zstd" { zstd } else { gzip };
            return Ok(grpc_response(encoding, &compress(&body)));
        }
        Reply::Slow(_) | Reply::Held(_) => Vec::new(),
        Reply::Grpc(code, details) => return Ok(grpc_error(code, "as scripted", details)),
        Reply::Says(code, message) => return Ok(grpc_error(code, message, None)),
        Reply::Text(status, text) => {
            let response = Response::builder().status(status);
            let response = response.header("content-type", "text/plain; charset=utf-8");
            return Ok(response.body(Full::from(text).boxed()).unwrap());
        }
        Reply::Http(status, headers) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            return Ok(response.body(Full::default().boxed()).unwrap());
        }
    };
    Ok(match speaks {
        Speaks::Http => Response::new(Full::from(body).boxed()),
        Speaks::Grpc => grpc_ok(&body),
    })
}

fn decode(body: &[u8], encoding: Option<&http::HeaderValue>) -> Vec<u8> {
    match encoding.map(http::HeaderValue::as_bytes) {
        None | Some(b"identity") => body.to_vec(),
        Some(b"gzip") => {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(body)
                .read_to_end(&mut out)
                .unwrap();
            out
        }
        Some(b"zstd") => zstd::decode_all(body).unwrap(),
        Some(other) => panic!("unexpected encoding {other:?}"),
    }
}

fn grpc_error(code: u32, message: &str, details: Option<Vec<u8>>) -> Response<Body> {
    let mut response = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code)
        .header("grpc-message", message.replace(' ', "%20"));
    if let Some(details) = details {
        let mut metadata = tonic::metadata::MetadataMap::new();
        let value = tonic::metadata::MetadataValue::from_bytes(&details);
        metadata.insert_bin("grpc-status-details-bin", value);
        for (name, value) in &metadata.into_headers() {
            response = response.header(name, value);
        }
    }
    response.body(Full::default().boxed()).unwrap()
}

pub fn grpc_ok(message: &[u8]) -> Response<Body> {
    grpc_response("identity", message)
}

/// Compressed as a stream, with a window that is larger than what is in it.
fn zstd(message: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(23).unwrap();
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

fn grpc_response(encoding: &'static str, message: &[u8]) -> Response<Body> {
    let mut framed = vec![u8::from(encoding != "identity")];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let mut left = VecDeque::from([Frame::data(Bytes::from(framed)), Frame::trailers(trailers)]);
    let body = BodyFn(move || left.pop_front());
    Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-encoding", encoding)
        .body(body.boxed())
        .unwrap()
}

/// A body from a function, one frame at a time.
struct BodyFn<F>(F);

impl<F: FnMut() -> Option<Frame<Bytes>> + Unpin> hyper::body::Body for BodyFn<F> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready((self.0)().map(Ok))
    }
}
