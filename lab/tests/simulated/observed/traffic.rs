//! Applications that send, and an upstream that takes what they send, or does not.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::run::Outcome;

/// Between two requests of an application.
const PAUSE: Duration = Duration::from_millis(250);
/// How long an application may flood before the agent refuses it.
const PATIENCE: Duration = Duration::from_mins(3);
/// Bytes of a request that is large.
const LARGE: usize = 256 << 10;

/// An upstream that answers everything with one status.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    status: Arc<AtomicU16>,
    _server: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(AtomicU16::new(200));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&status)));
        Self {
            address,
            status,
            _server: server,
        }
    }

    /// Answers like that from now on.
    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

async fn serve(listener: TcpListener, status: Arc<AtomicU16>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let status = Arc::clone(&status);
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let status = Arc::clone(&status);
            async move {
                request.into_body().collect().await?;
                let mut response = Response::new(Full::<Bytes>::default());
                let code = StatusCode::from_u16(status.load(Ordering::Relaxed));
                *response.status_mut() = code.unwrap();
                Ok::<_, hyper::Error>(response)
            }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move {
            // The agent may close in the middle of a request.
            let _ = connection.await;
        });
    }
}

/// Where a request goes, and its body.
type Request = (&'static str, String);

/// One log record, and one point of a metric.
fn others() -> [Request; 2] {
    let logs =
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"text"}}]}]}]}"#;
    let metrics = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"size","gauge":{"dataPoints":[{"asInt":"1"}]}}]}]}]}"#;
    [("/v1/logs", logs.into()), ("/v1/metrics", metrics.into())]
}

/// One span in which there is text that hardly compresses.
fn span(padding: usize) -> Request {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(padding + 16);
    while text.len() < padding {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{state:016x}");
    }
    let body = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"{number:032x}","spanId":"{number:016x}","name":"span","attributes":[{{"key":"text","value":{{"stringValue":"{text}"}}}}]}}]}}]}}]}}"#
    );
    ("/v1/traces", body)
}

/// Sends one request from an address of this machine; its status.
async fn send(from: Ipv4Addr, to: SocketAddr, (path, body): Request) -> std::io::Result<u16> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut stream = socket.connect(to).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // Who refuses a request need not read all of it.
    let _ = stream.write_all((head + &body).as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other(answer))
}

/// Sends requests of every signal now and then until it is dropped.
pub(super) fn application(from: Ipv4Addr, to: SocketAddr) -> JoinSet<()> {
    repeating(from, to, || {
        let [logs, metrics] = others();
        vec![span(0), logs, metrics]
    })
}

/// Sends large requests until it is dropped; returns once one is refused.
pub(super) async fn flood(from: Ipv4Addr, to: SocketAddr) -> Outcome<JoinSet<()>> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // An answer can get lost with a connection that ends early.
        match send(from, to, span(LARGE)).await {
            Ok(503) => return Ok(repeating(from, to, || vec![span(LARGE)])),
            Ok(200) | Err(_) => {}
            Ok(other) => return Err(format!("neither taken nor refused: {other}")),
        }
    }
    Err("no request was refused".into())
}

fn repeating(from: Ipv4Addr, to: SocketAddr, requests: fn() -> Vec<Request>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            for request in requests() {
                // Whether it is taken shows in the metrics of the agent.
                let _ = send(from, to, request).await;
            }
            sleep(PAUSE).await;
        }
    });
    task
}
