//! An API client whose calls are bounded in time and whose writes stop when leadership ends.
//!
//! By default, the client library waits without limit on a silent connection, and retries one call up to
//! sixteen times, for minutes, while the server answers 503. Either would block an object, and a late retry
//! could write after another process has taken the lease. So here:
//!
//! - a call is not retried: its caller (reconcile, watch, lease) tries again with back-off, after reading
//!   the cluster again;
//! - every call ends within [`CALL_TIMEOUT`], answer included; for a watch, only the response's headers are
//!   bounded, and the watcher handles silence;
//! - a call that times out closes its connection, so that the next call gets a new one;
//! - a write starts only while the [`Fence`] is open, and ends when it closes;
//! - a watch resumes only if etcd was not restored meanwhile ([`history`]).
//!
//! Does not know which calls are made.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Either, Full};
use kube::api::{ListMeta, ListParams};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tokio::time::{Instant, sleep_until};
use tower::layer::layer_fn;
use tower::{BoxError, Service};

use super::history::{self, is_watch};
use super::{Fence, ProcessError};

/// The time limit for a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time limit for a call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The user agent, for the API server's logs.
const AGENT: &str = concat!("otelagent-operator/", env!("CARGO_PKG_VERSION"));

/// How to reach the API server: KUBECONFIG, or the pod's service account.
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
    Ok(history::checked(builder.with_layer(&bounds).build(), fence))
}

/// A service that bounds the time of each call.
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

/// Ends a call `limit` from now, even if it is first polled later.
fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, BoxError>>,
) -> impl Future<Output = Result<T, BoxError>> {
    let deadline = Instant::now() + limit;
    async move {
        let (mut timer, mut call) = (pin!(sleep_until(deadline)), pin!(call));
        std::future::poll_fn(|context| {
            // Checked before each poll: after a pause of the process the timer may fire too late.
            if Instant::now() >= deadline || timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(ProcessError::CallTimedOut(limit).into()));
            }
            call.as_mut().poll(context)
        })
        .await
    }
}

/// Makes `query` ask for the next page of a list, if there is one.
pub(crate) fn next_page(query: &mut ListParams, page: &ListMeta) -> bool {
    query.continue_token = page.continue_.clone().filter(|token| !token.is_empty());
    query.continue_token.is_some()
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

    /// Longer than a request needs to reach the server, on a busy machine too.
    const LIMIT: Duration = Duration::from_secs(2);
    /// Longer than anything takes that ends by itself.
    const PATIENCE: Duration = Duration::from_mins(1);

    /// A server that answers every request with `first` and then stays silent, and the requests it gets.
    async fn server(first: &'static str) -> (Config, Arc<Mutex<Vec<String>>>) {
        test_server::serve(move |_| first.to_owned()).await
    }

    fn namespaces(config: Config, fence: &Fence, limit: Duration) -> Api<Namespace> {
        Api::all(connect_within(config, fence, limit).unwrap())
    }

    async fn in_time<T>(call: impl Future<Output = T>) -> T {
        let outcome = tokio::time::timeout(PATIENCE / 2, call).await;
        outcome.expect("the call goes on and on")
    }

    #[tokio::test]
    async fn call_to_a_server_that_never_answers_ends() {
        let (config, requests) = server("").await;
        let api = namespaces(config, &Fence::open(), LIMIT);
        let started = Instant::now();
        let error = in_time(api.get("default")).await.unwrap_err();
        let within = ProcessError::within(&error).unwrap();
        assert!(matches!(within, ProcessError::CallTimedOut(_)), "{error}");
        assert!(started.elapsed() >= LIMIT);
        assert_eq!(requests.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn call_whose_answer_stops_half_way_ends() {
        let (config, _) = server("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"kind\"").await;
        let api = namespaces(config, &Fence::open(), LIMIT);
        assert!(in_time(api.list(&ListParams::default())).await.is_err());
    }

    #[tokio::test]
    async fn one_call_to_an_overloaded_server_is_one_request() {
        let overloaded =
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n";
        let (config, requests) = server(overloaded).await;
        let api = namespaces(config, &Fence::open(), PATIENCE);
        assert!(in_time(api.get("default")).await.is_err());
        assert_eq!(requests.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn watch_may_last_once_it_has_begun() {
        let (config, _) = server("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let api = namespaces(config, &Fence::open(), LIMIT);
        let mut events = Box::pin(api.watch(&WatchParams::default(), "0").await.unwrap());
        assert!(
            tokio::time::timeout(LIMIT * 2, events.try_next())
                .await
                .is_err(),
            "the watch ended"
        );
    }

    #[tokio::test]
    async fn watch_that_does_not_begin_ends() {
        let (config, _) = server("").await;
        let api = namespaces(config, &Fence::open(), LIMIT);
        let watch = in_time(api.watch(&WatchParams::default(), "0")).await;
        assert!(watch.is_err());
    }

    #[tokio::test]
    async fn without_the_lease_reads_pass_and_writes_do_not_leave_the_process() {
        let (config, requests) =
            server("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let fence = Fence::closed();
        let api = namespaces(config, &fence, PATIENCE);
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
    async fn write_ends_with_the_leadership() {
        let (config, requests) = server("").await;
        let fence = Fence::closed();
        let api = namespaces(config, &fence, PATIENCE);
        fence.open_until(Instant::now() + LIMIT);
        let (parameters, namespace) = (PostParams::default(), Namespace::default());
        let write = in_time(api.create(&parameters, &namespace)).await;
        assert!(write.is_err());
        assert_eq!(requests.lock().unwrap().len(), 1, "it was under way");
    }
}
