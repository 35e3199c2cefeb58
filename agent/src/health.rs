//! Answers about the agent itself: liveness, readiness and delivery as JSON, metrics as Prometheus text. The
//! answers never contain telemetry or credentials.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use otlp_wire::status::json_string;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::budget::Budget;
use crate::config::{Config, MetricsReader};
use crate::export::Upstream;
use crate::lock::lock;
use crate::metrics::{Labels, Metrics, PipelineLabels};
use crate::queue::Lane;
use crate::receive::Answer;

/// The time limit of a probe or scrape.
const CONNECTION: Duration = Duration::from_secs(30);

/// The number of probes and scrapes at a time. One more ends the oldest, so that silent connections cannot
/// keep a probe out.
const MAX_CONNECTIONS: usize = 32;

/// The pause after an error such as "too many open files".
const PAUSE: Duration = Duration::from_millis(100);

/// Delivery that has not worked for this long is failing, unless the query names another time.
const PATIENCE: Duration = Duration::from_mins(1);

/// A queue is full from this percentage on: it is about to refuse requests.
const FULL: usize = 90;

/// What the agent reports about itself.
pub(crate) struct Report {
    listening: AtomicBool,
    draining: AtomicBool,
    metrics: Arc<Metrics>,
    budget: Arc<Budget>,
    upstreams: Vec<Arc<Upstream>>,
    lanes: Vec<Arc<Lane>>,
    connections: usize,
    receiver: String,
    labels: Mutex<Vec<PipelineLabels>>,
    /// The configured path that answers like `/ready`.
    path: String,
    reader: Option<MetricsReader>,
}

impl Report {
    /// The report of an agent that does not listen yet and accepts up to `connections`.
    pub(crate) fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        budget: Arc<Budget>,
        upstreams: Vec<Arc<Upstream>>,
        lanes: Vec<Arc<Lane>>,
        connections: usize,
    ) -> Arc<Self> {
        let path = config.health.as_ref().map(|health| health.path.clone());
        Arc::new(Self {
            listening: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            metrics,
            budget,
            upstreams,
            lanes,
            connections,
            receiver: config.receiver.id.clone(),
            labels: Mutex::new(labels(config)),
            path: path.unwrap_or_else(|| "/".to_owned()),
            reader: config.telemetry.metrics.clone(),
        })
    }

    /// Uses the pipelines of a changed configuration for labels.
    pub(crate) fn relabel(&self, config: &Config) {
        *lock(&self.labels) = labels(config);
    }

    /// Notes that every port is bound.
    pub(crate) fn set_listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// Notes that the agent is shutting down.
    pub(crate) fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn ready(&self) -> Response<Answer> {
        let (code, status) = if self.draining.load(Ordering::Relaxed) {
            (StatusCode::SERVICE_UNAVAILABLE, "draining")
        } else if self.listening.load(Ordering::Relaxed) {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "starting")
        };
        answer(code, "application/json", self.body(status, &[]))
    }

    /// Whether delivery works: 503 once an upstream has failed or a request has waited for `patience`, or if a
    /// queue is about to refuse requests.
    fn delivery(&self, patience: Duration) -> Response<Answer> {
        let mut problems = Vec::new();
        for upstream in &self.upstreams {
            if let Some((since, _)) = upstream.delivery().failing
                && since.elapsed() >= patience
            {
                problems.push(format!("{} is failing", upstream.name()));
            }
        }
        for lane in &self.lanes {
            let name = lane.signal.name();
            if lane.oldest().is_some_and(|waited| waited >= patience) {
                problems.push(format!("{name} are waiting"));
            }
            if lane.held_bytes() >= lane.capacity() / 100 * FULL {
                problems.push(format!("the queue of {name} is full"));
            }
        }
        let (code, status) = if problems.is_empty() {
            (StatusCode::OK, "delivering")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "failing")
        };
        answer(code, "application/json", self.body(status, &problems))
    }

    fn body(&self, status: &str, problems: &[String]) -> String {
        let mut body = format!("{{\"status\":\"{status}\",");
        if !problems.is_empty() {
            let problems: Vec<_> = problems.iter().map(|text| json_string(text)).collect();
            let _ = write!(body, "\"problems\":[{}],", problems.join(","));
        }
        body.push_str("\"delivery\":{");
        let now = Instant::now();
        for (index, upstream) in self.upstreams.iter().enumerate() {
            let delivery = upstream.delivery();
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{}:", json_string(upstream.name()));
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
        for (index, lane) in self.lanes.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(
                body,
                "{comma}\"{}\":{{\"bytes\":{},\"capacity\":{},\"oldest_ms\":{}}}",
                lane.signal.name(),
                lane.held_bytes(),
                lane.capacity(),
                lane.oldest().unwrap_or_default().as_millis()
            );
        }
        let _ = writeln!(
            body,
            "}},\"memory\":{{\"held\":{},\"limit\":{}}}}}",
            self.budget.used(),
            self.budget.soft_limit()
        );
        body
    }

    fn metrics(&self) -> Response<Answer> {
        let reader = self.reader.as_ref();
        let pipelines = lock(&self.labels);
        let text = self.metrics.text(&Labels {
            receiver: &self.receiver,
            pipelines: &pipelines,
            without_type_suffix: reader.is_some_and(|reader| reader.without_type_suffix),
            without_units: reader.is_some_and(|reader| reader.without_units),
            memory: (self.budget.used(), self.budget.soft_limit()),
            connections: self.connections,
        });
        drop(pipelines);
        answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text,
        )
    }
}

fn labels(config: &Config) -> Vec<PipelineLabels> {
    let mut labels = Vec::new();
    for pipeline in &config.pipelines {
        if let Some(exporter) = config.exporters.get(pipeline.exporter) {
            labels.push(PipelineLabels {
                signal: pipeline.signal,
                processors: pipeline.processors.clone(),
                exporter: exporter.id.clone(),
                capacity: exporter.queue.capacity,
            });
        }
    }
    labels
}

/// The paths that a socket serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topic {
    /// `/live`, `/ready`, `/` and the configured path, `/delivery`.
    Health,
    Metrics,
}

impl Topic {
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
        (Topic::Health, "/live") => answer(StatusCode::OK, "text/plain", "alive\n".to_owned()),
        (Topic::Health, "/" | "/ready") => report.ready(),
        (Topic::Health, "/delivery") => match patience(request.uri().query()) {
            Some(patience) => report.delivery(patience),
            None => answer(StatusCode::BAD_REQUEST, "text/plain", String::new()),
        },
        (Topic::Health, path) if path == report.path => report.ready(),
        (Topic::Metrics, "/metrics") => report.metrics(),
        _ => answer(StatusCode::NOT_FOUND, "text/plain", String::new()),
    }
}

/// The patience by the query, `seconds=30` or none.
fn patience(query: Option<&str>) -> Option<Duration> {
    match query {
        None => Some(PATIENCE),
        Some(query) => query
            .strip_prefix("seconds=")
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
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

/// The open connections, oldest first.
#[derive(Default)]
struct ProbeConnections(VecDeque<AbortHandle>);

impl ProbeConnections {
    /// Serves an accepted connection.
    async fn serve<S, A>(
        &mut self,
        accepted: io::Result<(S, A)>,
        report: &Arc<Report>,
        topic: Topic,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Ok((stream, _)) = accepted else {
            return sleep(PAUSE).await;
        };
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() >= MAX_CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        let served = connection(stream, Arc::clone(report), topic);
        self.0.push_back(tokio::spawn(served).abort_handle());
    }
}

/// Serves a TCP port until the process ends.
pub(crate) async fn serve_tcp(listener: TcpListener, report: Arc<Report>, topic: Topic) {
    let mut connections = ProbeConnections::default();
    loop {
        let accepted = listener.accept().await;
        connections.serve(accepted, &report, topic).await;
    }
}

/// Serves health on a Unix socket until the process ends.
pub(crate) async fn serve_unix(listener: UnixListener, report: Arc<Report>) {
    let mut connections = ProbeConnections::default();
    loop {
        let accepted = listener.accept().await;
        connections.serve(accepted, &report, Topic::Health).await;
    }
}
