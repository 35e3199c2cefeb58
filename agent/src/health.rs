//! What the agent says of itself: liveness, readiness and delivery as JSON, metrics as Prometheus text and as OTLP. It
//! never contains telemetry or credentials.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use otlp_wire::status::json_string;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::budget::Budget;
use crate::config::Config;
use crate::export::Upstream;
use crate::lock::lock;
use crate::metrics::{Metrics, MetricsOrigin, Surroundings, UpstreamNow};
use crate::queue::Lane;
use crate::receive::{Answer, response};
use crate::stream::Stream;

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
    pub(crate) status: Mutex<Status>,
    pub(crate) started: Instant,
    /// Whose metrics are pushed.
    pub(crate) origin: MetricsOrigin,
    pub(crate) config: Mutex<Arc<Config>>,
    /// Where the file's present content has problems, if that is why it is not in use.
    pub(crate) refused: Mutex<Option<String>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) lanes: Vec<Arc<Lane>>,
    /// The number of client connections there may be.
    pub(crate) connections: usize,
}

/// How far the agent is, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Starting,
    /// Every port is bound, but the node's port does not lead here.
    PortUnmapped(SocketAddr, Unmapped),
    Ready,
    Draining,
}

/// What the node's port does instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmapped {
    RefusesConnections,
    LeadsElsewhere,
}

impl Status {
    fn order(self) -> u8 {
        match self {
            Self::Starting => 0,
            Self::PortUnmapped(..) => 1,
            Self::Ready => 2,
            Self::Draining => 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Starting | Self::PortUnmapped(..) => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }

    /// What a person has to mend.
    pub(crate) fn problem(self) -> Option<String> {
        match self {
            Self::PortUnmapped(port, how) => {
                let how = match how {
                    Unmapped::RefusesConnections => "refuses connections",
                    Unmapped::LeadsElsewhere => "leads to another program",
                };
                Some(format!(
                    "{port} {how}, though this pod claims that port of its node: does the network plugin of the \
                     cluster map host ports?"
                ))
            }
            _ => None,
        }
    }
}

impl Report {
    /// Goes on to another status that is not an earlier one; false if it is not, or the same.
    pub(crate) fn proceed(&self, to: Status) -> bool {
        let mut status = lock(&self.status);
        let is_news = status.order() <= to.order() && *status != to;
        if is_news {
            *status = to;
        }
        is_news
    }

    fn ready(&self) -> Response<Answer> {
        let status = *lock(&self.status);
        let code = if status == Status::Ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let problem: Vec<String> = status.problem().into_iter().collect();
        response(code, "application/json", self.body(status.name(), &problem))
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
        response(code, "application/json", self.body(status, &problems))
    }

    fn body(&self, status: &str, problems: &[String]) -> String {
        let problems = match problems {
            [] => String::new(),
            some => {
                let texts = some.iter().map(|text| json_string(text));
                format!(r#""problems":[{}],"#, join(texts))
            }
        };
        let delivery = join(self.upstreams.iter().map(|upstream| {
            let delivery = upstream.delivery();
            let state = match (&delivery.failing, delivery.succeeded) {
                (Some((since, why)), _) => {
                    let (seconds, why) = (since.elapsed().as_secs(), json_string(why));
                    format!(r#""failing","seconds":{seconds},"error":{why}"#)
                }
                (None, Some(at)) => {
                    let seconds = at.elapsed().as_secs();
                    format!(r#""ok","seconds_since_success":{seconds}"#)
                }
                (None, None) => r#""idle""#.to_owned(),
            };
            let endpoint = match upstream.endpoint().1.as_str() {
                "" => String::new(),
                address => format!(r#","endpoint":{}"#, json_string(address)),
            };
            let name = json_string(upstream.name());
            format!(r#"{name}:{{"state":{state}{endpoint}}}"#)
        }));
        let queue = join(self.lanes.iter().map(|lane| {
            let (name, bytes) = (lane.signal.name(), lane.held_bytes());
            let capacity = lane.capacity();
            let oldest = lane.oldest().unwrap_or_default().as_millis();
            format!(r#""{name}":{{"bytes":{bytes},"capacity":{capacity},"oldest_ms":{oldest}}}"#)
        }));
        let (held, limit) = (self.budget.used(), self.budget.soft_limit());
        let config = self.config_state();
        format!(
            r#"{{"status":"{status}",{problems}"config":{config},"delivery":{{{delivery}}},"queue":{{{queue}}},"memory":{{"held":{held},"limit":{limit}}}}}"#
        ) + "\n"
    }

    /// Which configuration is in use, and where the file's present content has problems. Their words are in the log
    /// only: they may quote values.
    fn config_state(&self) -> String {
        let fingerprint = self.metrics.fingerprint();
        let refused = lock(&self.refused).as_ref().map(|at| json_string(at));
        let refused = refused.map(|at| format!(r#","refused":{at}"#));
        let refused = refused.unwrap_or_default();
        format!(r#"{{"fingerprint":"{fingerprint}"{refused}}}"#)
    }

    fn metrics(&self) -> Response<Answer> {
        let config = Arc::clone(&lock(&self.config));
        let text = self.metrics.text(&self.surroundings(&config));
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        response(StatusCode::OK, kind, text)
    }

    /// The metrics as one OTLP request.
    pub(crate) fn otlp(&self) -> Vec<u8> {
        let config = Arc::clone(&lock(&self.config));
        self.metrics.otlp(&self.surroundings(&config), &self.origin)
    }

    fn surroundings<'a>(&'a self, config: &'a Config) -> Surroundings<'a> {
        Surroundings {
            config,
            memory: (self.budget.used(), self.budget.soft_limit()),
            senders: &self.budget.senders,
            connections: self.connections,
            uptime: self.started.elapsed(),
            upstreams: (self.upstreams.iter())
                .map(|upstream| UpstreamNow {
                    name: upstream.name(),
                    endpoint: upstream.endpoint().0,
                    failing: upstream
                        .delivery()
                        .failing
                        .map(|(since, _)| since.elapsed()),
                })
                .collect(),
            waiting: (self.lanes.iter())
                .map(|lane| (lane.signal, lane.oldest().unwrap_or_default()))
                .collect(),
        }
    }

    /// Whether this is the configured path that answers like `/ready`.
    fn is_ready_path(&self, path: &str) -> bool {
        let config = lock(&self.config);
        config.health.as_ref().is_some_and(|of| of.path == path)
    }
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

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn respond(report: &Report, topic: Topic, request: &Request<Incoming>) -> Response<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "");
    }
    match (topic, request.uri().path()) {
        (Topic::Health, "/live") => response(StatusCode::OK, "text/plain", "alive\n"),
        (Topic::Health, "/" | "/ready") => report.ready(),
        (Topic::Health, "/delivery") => match patience(request.uri().query()) {
            Some(patience) => report.delivery(patience),
            None => response(StatusCode::BAD_REQUEST, "text/plain", ""),
        },
        (Topic::Health, path) if report.is_ready_path(path) => report.ready(),
        (Topic::Metrics, "/metrics") => report.metrics(),
        _ => response(StatusCode::NOT_FOUND, "text/plain", ""),
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

async fn connection(stream: Stream, report: Arc<Report>, topic: Topic) {
    let service = service_fn(move |request| {
        let answer = respond(&report, topic, &request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let _ = timeout(CONNECTION, connection).await;
}

/// Serves what a listener accepts until the process ends.
pub(crate) async fn serve(
    accept: impl AsyncFn() -> io::Result<Stream>,
    report: Arc<Report>,
    topic: Topic,
) {
    // Oldest first.
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok(stream) = accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MAX_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let served = connection(stream, Arc::clone(&report), topic);
        connections.push_back(tokio::spawn(served).abort_handle());
    }
}
