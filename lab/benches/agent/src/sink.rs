//! The upstream of the measured program: OTLP over gRPC and HTTP, acknowledges at once, and keeps what
//! it got as it came, to be counted after the measurement. Can also be slow, silent,
//! away, or find requests too large. Must not know who sends.

use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::ledger::Ledger;

/// What it does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes them.
    Take,
    /// Takes them after this.
    Slow(Duration),
    /// Accepts connections, and neither reads nor answers.
    Silent,
    /// No listener and no connection is left.
    Away,
    /// Refuses larger ones: 413, or `RESOURCE_EXHAUSTED`.
    AtMost(usize),
    /// Ends.
    Gone,
}

/// What arrived since it was last asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    /// Requests taken.
    pub requests: u64,
    /// Bytes of their bodies, compressed.
    pub bytes: u64,
    /// Spans in them.
    pub spans: u64,
    /// Requests that were no trace request after all.
    pub unreadable: u64,
}

struct Taken {
    body: Vec<u8>,
    headers: HeaderMap,
}

#[derive(Default)]
struct State {
    taken: Vec<Taken>,
    requests: u64,
    last: Option<Instant>,
}

/// A running sink; ends when dropped.
pub struct Sink {
    /// Where it listens when it is not away.
    pub address: SocketAddr,
    behaviour: watch::Sender<Behaviour>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink {
    /// Listens on `address`, in a thread of its own.
    pub fn start(address: SocketAddr) -> Outcome<Self> {
        let (behaviour, observed) = watch::channel(Behaviour::Take);
        let state = Arc::new(Mutex::new(State::default()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let first = std::net::TcpListener::bind(address)?;
        first.set_nonblocking(true)?;
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || runtime.block_on(run(address, first, observed, shared)))?;
        Ok(Self {
            address,
            behaviour,
            state,
            thread: Some(thread),
        })
    }

    /// From now on it does this.
    pub fn behave(&self, behaviour: Behaviour) {
        self.behaviour.send_replace(behaviour);
    }

    /// Requests taken since [`Self::settle`].
    pub fn requests(&self) -> u64 {
        locked(&self.state).requests
    }

    /// Waits until nothing has arrived for `quiet`, but no longer than `at_most`; whether it fell quiet.
    pub async fn quiet(&self, quiet: Duration, at_most: Duration) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < at_most {
            let last = locked(&self.state).last;
            if last.map_or(begun, |last| last.max(begun)).elapsed() >= quiet {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Counts everything taken so far, and forgets it.
    pub fn settle(&self, ledger: &mut Ledger) -> Arrived {
        let taken = {
            let mut state = locked(&self.state);
            state.requests = 0;
            std::mem::take(&mut state.taken)
        };
        let mut arrived = Arrived::default();
        for request in taken {
            arrived.requests += 1;
            arrived.bytes += request.body.len() as u64;
            match message(&request).and_then(|message| ledger.received(&message)) {
                Some(spans) => arrived.spans += spans,
                None => arrived.unreadable += 1,
            }
        }
        arrived
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.behave(Behaviour::Gone);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Without framing, decompressed.
fn message(request: &Taken) -> Option<Vec<u8>> {
    let header = |name: &str| request.headers.get(name).map(HeaderValue::as_bytes);
    let (body, encoding) = if is_grpc(&request.headers) {
        let (prefix, message) = request.body.split_at_checked(5)?;
        let encoding = header("grpc-encoding").filter(|_| prefix.first() == Some(&1));
        (message, encoding)
    } else {
        (request.body.as_slice(), header(CONTENT_ENCODING.as_str()))
    };
    let mut message = Vec::new();
    match encoding {
        None | Some(b"identity") => message.extend_from_slice(body),
        Some(b"gzip") => {
            flate2::read::MultiGzDecoder::new(body)
                .read_to_end(&mut message)
                .ok()?;
        }
        Some(b"zstd") => {
            zstd::stream::read::Decoder::new(body)
                .ok()?
                .read_to_end(&mut message)
                .ok()?;
        }
        Some(_) => return None,
    }
    Some(message)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn run(
    address: SocketAddr,
    first: std::net::TcpListener,
    mut behaviour: watch::Receiver<Behaviour>,
    state: Arc<Mutex<State>>,
) {
    let mut listener = TcpListener::from_std(first).ok();
    let mut connections = JoinSet::new();
    loop {
        let now = *behaviour.borrow_and_update();
        match now {
            Behaviour::Gone => return,
            Behaviour::Away => {
                listener = None;
                connections.shutdown().await;
                if behaviour.changed().await.is_err() {
                    return;
                }
                continue;
            }
            _ if listener.is_none() => listener = TcpListener::bind(address).await.ok(),
            _ => {}
        }
        let accept = async {
            if let Some(listener) = &listener {
                return listener.accept().await.ok();
            }
            // The port is not free yet.
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        };
        tokio::select! {
            changed = behaviour.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            accepted = accept => {
                if let Some((stream, _)) = accepted {
                    connections.spawn(serve(stream, behaviour.clone(), Arc::clone(&state)));
                }
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, behaviour: watch::Receiver<Behaviour>, state: Arc<Mutex<State>>) {
    let _ = stream.set_nodelay(true);
    let mut beginning = [0; 3];
    let is_http2 = matches!(stream.peek(&mut beginning).await, Ok(3) if &beginning == b"PRI");
    let service = service_fn(|request| answer(request, behaviour.clone(), Arc::clone(&state)));
    let io = TokioIo::new(stream);
    if is_http2 {
        let _ = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(8 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .serve_connection(io, service)
            .await;
    } else {
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    mut behaviour: watch::Receiver<Behaviour>,
    state: Arc<Mutex<State>>,
) -> Result<Response<Body>, hyper::Error> {
    let awake = behaviour.wait_for(|behaviour| *behaviour != Behaviour::Silent);
    let now = awake.await.map_or(Behaviour::Gone, |behaviour| *behaviour);
    let (head, mut incoming) = request.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame?.into_data() {
            body.extend_from_slice(&data);
        }
    }
    match now {
        Behaviour::AtMost(limit) if body.len() > limit => {
            return Ok(too_large(is_grpc(&head.headers)));
        }
        Behaviour::Slow(wait) => tokio::time::sleep(wait).await,
        _ => {}
    }
    let response = success(&head.headers);
    let mut state = locked(&state);
    state.last = Some(Instant::now());
    state.requests += 1;
    state.taken.push(Taken {
        body,
        headers: head.headers,
    });
    Ok(response)
}

fn success(headers: &HeaderMap) -> Response<Body> {
    if !is_grpc(headers) {
        let mut response = Response::new(Full::default().boxed());
        let kind = HeaderValue::from_static("application/x-protobuf");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        return response;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(Bytes::from_static(&[0; 5]));
    let body = body.with_trailers(async move { Some(Ok(trailers)) });
    grpc(body.boxed())
}

fn too_large(is_grpc: bool) -> Response<Body> {
    let mut response = grpc(Full::default().boxed());
    if is_grpc {
        let code = HeaderValue::from_static("8");
        response.headers_mut().insert("grpc-status", code);
    } else {
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    }
    response
}

fn grpc(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
