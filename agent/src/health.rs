//! What the agent answers about itself: readiness and delivery as JSON, metrics as Prometheus text.
//! Never shows telemetry or credentials. Must not know how the state comes about.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::budget::Budget;
use crate::config::MetricsReader;
use crate::export::Upstream;
use crate::metrics::{Labels, Metrics};
use crate::queue::Lane;
use crate::receive::Answer;
use crate::rpc_status::json_string;
use crate::scan::Signal;

/// A probe or scrape takes at most this.
const CONNECTION: Duration = Duration::from_secs(30);

/// Probes and scrapes at a time.
const PLACES: usize = 32;

/// Everything there is to tell.
pub(crate) struct Report {
    /// Every port is bound.
    pub(crate) listening: AtomicBool,
    /// The agent shuts down.
    pub(crate) draining: AtomicBool,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Memory.
    pub(crate) budget: Arc<Budget>,
    /// Exporters in use.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Lanes in use, each with its exporter's id and its capacity.
    pub(crate) lanes: Vec<(Arc<Lane>, String, usize)>,
    /// A path that answers next to `/` and `/ready`.
    pub(crate) path: String,
    /// How metrics are named.
    pub(crate) reader: Option<MetricsReader>,
}

impl Report {
    /// Whether clients are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.listening.load(Ordering::Relaxed) && !self.draining.load(Ordering::Relaxed)
    }

    fn health(&self) -> Response<Answer> {
        let (code, status) = if self.draining.load(Ordering::Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if self.is_ready() {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting")
        };
        let mut body = format!("{{\"status\":\"{status}\",\"delivery\":{{");
        let now = Instant::now();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let delivery = upstream.delivery();
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{}:", json_string(upstream.id()));
            let _ = match (&delivery.failing, delivery.succeeded) {
                (Some((since, why)), _) => write!(
                    body,
                    "{{\"state\":\"failing\",\"seconds\":{},\"error\":{}}}",
                    now.duration_since(*since).as_secs(),
                    json_string(why)
                ),
                (None, Some(at)) => write!(
                    body,
                    "{{\"state\":\"ok\",\"seconds_since_success\":{}}}",
                    now.duration_since(at).as_secs()
                ),
                (None, None) => write!(body, "{{\"state\":\"idle\"}}"),
            };
        }
        body.push_str("},\"queue\":{");
        for (index, (lane, _, capacity)) in self.lanes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(
                body,
                "{comma}\"{}\":{{\"bytes\":{},\"capacity\":{capacity},\"oldest_ms\":{}}}",
                lane.signal.name(),
                lane.held_bytes(),
                lane.oldest().unwrap_or_default().as_millis()
            );
        }
        let _ = writeln!(
            body,
            "}},\"memory\":{{\"held\":{},\"limit\":{}}}}}",
            self.budget.used(),
            self.budget.soft_limit()
        );
        answer(code, "application/json", body)
    }

    fn metrics(&self) -> Response<Answer> {
        let pipelines: Vec<(Signal, String, usize)> = self
            .lanes
            .iter()
            .map(|(lane, exporter, capacity)| (lane.signal, exporter.clone(), *capacity))
            .collect();
        let labels = Labels {
            pipelines: &pipelines,
            without_type_suffix: self.reader.as_ref().is_some_and(|r| r.without_type_suffix),
            without_units: self.reader.as_ref().is_some_and(|r| r.without_units),
            memory: (self.budget.used(), self.budget.soft_limit()),
        };
        let text = self.metrics.text(&labels);
        answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text,
        )
    }
}

/// Which questions a socket answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// `/`, `/ready` and the configured path.
    Health,
    /// `/metrics`.
    Metrics,
}

impl Topic {
    /// For the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Metrics => "metrics",
        }
    }
}

fn answer(code: StatusCode, kind: &'static str, body: String) -> Response<Answer> {
    let mut response = Response::new(Answer::full(Bytes::from(body)));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn respond(report: &Report, topic: Topic, request: &Request<Incoming>) -> Response<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new());
    }
    match (topic, request.uri().path()) {
        (Topic::Health, "/" | "/ready") => report.health(),
        (Topic::Health, path) if path == report.path => report.health(),
        (Topic::Metrics, "/metrics") => report.metrics(),
        _ => answer(StatusCode::NOT_FOUND, "text/plain", String::new()),
    }
}

async fn connection<S>(stream: S, report: Arc<Report>, topic: Topic)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let response = respond(&report, topic, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION, connection).await;
}

/// Serves a TCP port until the process ends.
pub(crate) async fn serve_tcp(listener: TcpListener, report: Arc<Report>, topic: Topic) {
    let places = Arc::new(Semaphore::new(PLACES));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = connection(stream, Arc::clone(&report), topic);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Serves health on a Unix socket until the process ends.
pub(crate) async fn serve_unix(listener: UnixListener, report: Arc<Report>) {
    let places = Arc::new(Semaphore::new(PLACES));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = connection(stream, Arc::clone(&report), Topic::Health);
                tokio::spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
