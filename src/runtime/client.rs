//! An API client whose calls end, and whose writes end with the leadership.
//!
//! The client library as it comes waits for ever on a connection that went silent, and tries up to
//! sixteen times, for minutes, inside of one call to a server that answers 503. Either would freeze an
//! object, and the second could write long after the lease went to another process. So here:
//!
//! - no retries inside of a call: whoever calls (reconcile, watch, lease) tries again by itself, with
//!   back-off, and reads the world anew before it does;
//! - every call ends within [`CALL_TIMEOUT`], answer included; of a watch only the beginning is bounded,
//!   its silence is the watcher's to notice;
//! - a call given up closes its connection, so the next one does not meet the same black hole;
//! - a write starts only while the [`Fence`] is open, and ends when it closes;
//! - a watch goes on only in the history that the server has ([`history`]).
//!
//! Must not know which calls are made.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Either, Full};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::{Instant, sleep_until};
use tower::layer::layer_fn;
use tower::{BoxError, Service};

use super::history::{self, is_watch};
use super::{Fence, ProcessError};

/// Within this time a connection stands, or the address is taken for dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Within this time a call has ended, one way or the other.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Who we are, in the API server's logs and flow schemas.
const AGENT: &str = concat!("otelagent-operator/", env!("CARGO_PKG_VERSION"));

/// The way to the API server: KUBECONFIG, or the pod's service account.
pub async fn config() -> Result<Config, ProcessError> {
    Config::infer()
        .await
        .map_err(|error| ProcessError::NoCluster(Box::new(error)))
}

/// A client whose writes pass only while `fence` is open.
pub fn connect(config: Config, fence: &Fence) -> Result<Client, ProcessError> {
    connect_within(config, fence, CALL_TIMEOUT)
}

fn connect_within(
    mut config: Config,
    fence: &Fence,
    limit: Duration,
) -> Result<Client, ProcessError> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(CALL_TIMEOUT);
    config
        .headers
        .push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let builder =
        ClientBuilder::try_from(config).map_err(|error| ProcessError::Client(Box::new(error)))?;
    let bounds = layer_fn(|inner| Bounded {
        inner,
        fence: fence.clone(),
        limit,
    });
    Ok(history::kept_to(builder.with_layer(&bounds).build(), fence))
}

/// A service whose calls are bounded.
struct Bounded<S> {
    inner: S,
    fence: Fence,
    limit: Duration,
}

impl<S, B> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes, Error = BoxError> + Send + 'static,
{
    type Response = Response<Either<Full<Bytes>, B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let left = if request.method().is_safe() {
            Some(self.limit)
        } else {
            self.fence.remaining()
        };
        let Some(left) = left else {
            return Box::pin(std::future::ready(Err(ProcessError::NotLeader.into())));
        };
        let is_stream = is_watch(request.uri());
        let answer = self.inner.call(request);
        let whole = async move {
            let (head, body) = answer.await?.into_parts();
            let body = if is_stream {
                Either::Right(body)
            } else {
                Either::Left(Full::new(body.collect().await?.to_bytes()))
            };
            Ok(Response::from_parts(head, body))
        };
        Box::pin(within(left.min(self.limit), whole))
    }
}

/// Ends a call `limit` from now, whenever it is polled first.
fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, BoxError>>,
) -> impl Future<Output = Result<T, BoxError>> {
    let deadline = Instant::now() + limit;
    async move {
        let (mut timer, mut call) = (pin!(sleep_until(deadline)), pin!(call));
        std::future::poll_fn(|context| {
            // Before the call: a process that was paused must not go on where it stood, and the timer alone
            // may be told late by a runtime that was paused.
            if Instant::now() >= deadline || timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(ProcessError::CallTimedOut(limit).into()));
            }
            call.as_mut().poll(context)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::TryStreamExt;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use kube::api::{ListParams, PostParams, WatchParams};

    use super::super::test_server;
    use super::*;

    const LIMIT: Duration = Duration::from_millis(400);
    /// Far above what a bounded call takes, far below what an unbounded one does.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// A server that says `first` to every request, then nothing, and the requests it gets.
    async fn server(first: &'static str) -> (Config, Arc<Mutex<Vec<String>>>) {
        test_server::serve(move |_| first.to_owned()).await
    }

    fn namespaces(config: Config, fence: &Fence) -> Api<Namespace> {
        Api::all(connect_within(config, fence, LIMIT).unwrap())
    }

    async fn in_time<T>(call: impl Future<Output = T>) -> (T, Duration) {
        let started = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, call)
            .await
            .expect("the call went on and on");
        (outcome, started.elapsed())
    }

    #[tokio::test]
    async fn a_call_to_a_server_that_never_answers_ends() {
        let (config, requests) = server("").await;
        let api = namespaces(config, &Fence::open());
        let (outcome, took) = in_time(api.get("default")).await;
        let error = outcome.unwrap_err();
        let within = ProcessError::within(&error).unwrap();
        assert!(matches!(within, ProcessError::CallTimedOut(_)), "{error}");
        assert!(took >= LIMIT && took < LIMIT * 4, "{took:?}");
        assert_eq!(requests.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_call_whose_answer_stops_half_way_ends() {
        let (config, _) = server("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"kind\"").await;
        let api = namespaces(config, &Fence::open());
        assert!(in_time(api.list(&ListParams::default())).await.0.is_err());
    }

    #[tokio::test]
    async fn one_call_to_an_overloaded_server_is_one_request() {
        let overloaded =
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
        let (config, requests) = server(overloaded).await;
        let api = namespaces(config, &Fence::open());
        let (outcome, took) = in_time(api.get("default")).await;
        assert!(outcome.is_err() && took < LIMIT, "{took:?}");
        assert_eq!(requests.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_watch_may_last_once_it_has_begun() {
        let (config, _) = server("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let api = namespaces(config, &Fence::open());
        let mut events = Box::pin(api.watch(&WatchParams::default(), "0").await.unwrap());
        assert!(
            tokio::time::timeout(LIMIT * 3, events.try_next())
                .await
                .is_err(),
            "the watch ended"
        );
    }

    #[tokio::test]
    async fn a_watch_that_does_not_begin_ends() {
        let (config, _) = server("").await;
        let api = namespaces(config, &Fence::open());
        assert!(
            in_time(api.watch(&WatchParams::default(), "0"))
                .await
                .0
                .is_err()
        );
    }

    #[tokio::test]
    async fn without_the_lease_reads_pass_and_writes_do_not_leave_the_process() {
        let (config, requests) =
            server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let fence = Fence::closed();
        let api = namespaces(config, &fence);
        let error = api
            .create(&PostParams::default(), &Namespace::default())
            .await
            .unwrap_err();
        let within = ProcessError::within(&error).unwrap();
        assert!(matches!(within, ProcessError::NotLeader), "{error}");
        assert_eq!(requests.lock().unwrap().len(), 0);
        assert!(api.get("default").await.is_err());
        assert_eq!(requests.lock().unwrap().len(), 1);
        fence.open_for_good();
        assert!(
            api.create(&PostParams::default(), &Namespace::default())
                .await
                .is_err()
        );
        assert_eq!(requests.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_write_ends_with_the_leadership() {
        let (config, _) = server("").await;
        let fence = Fence::closed();
        fence.open_until(Instant::now() + LIMIT / 4);
        let api = namespaces(config, &fence);
        let (outcome, took) =
            in_time(api.create(&PostParams::default(), &Namespace::default())).await;
        assert!(outcome.is_err() && took < LIMIT, "{took:?}");
    }
}
