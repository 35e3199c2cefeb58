//! A watch resumes only if etcd was not restored to an older revision meanwhile.
//!
//! An API server accepts a watch from a revision that it has not reached yet, and sends nothing until it
//! has. After a restore of etcd, caches could stay outdated for hours. So before a watch resumes from a
//! revision, the client asks the server for its current one. If that is older, the watch gets 410 Expired
//! and lists again. Watches notice this one after the other, so for a while caches mix both histories. The
//! first one that notices therefore breaks the [`Fence`]: nothing is written any more, and a process that
//! writes must restart.
//!
//! The client does not ask if the previous watch lasted for its whole time: a restore restarts the server,
//! which ends its watches early.
//!
//! Does not know what is watched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{ACCEPT, HeaderValue};
use http::{Method, Request, Response, Uri};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::Fence;

/// Names and versions are enough.
const METADATA: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// A watch that ends at most this early counts as complete, because clocks and messages are not exact.
const EARLY: Duration = Duration::from_secs(2);

/// A client that checks for a restore before a watch resumes, and breaks `fence` after one.
pub(super) fn checked(inner: Client, fence: &Fence) -> Client {
    let namespace = inner.default_namespace().to_owned();
    let valid_until = *inner.valid_until();
    let history = Arc::new(History {
        inner,
        ends: Mutex::default(),
        fence: fence.clone(),
    });
    let service = service_fn(move |request| {
        let history = history.clone();
        async move { history.send(request).await }
    });
    Client::new(service, namespace).with_valid_until(valid_until)
}

/// Asks for the current revision before a watch resumes.
struct History {
    inner: Client,
    /// When watches end regularly, by what is watched.
    ends: Mutex<HashMap<String, Instant>>,
    fence: Fence,
}

impl History {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let has_lasted = self.has_lasted(request.uri());
        let Some((version, question)) = goes_on(&request).filter(|_| !has_lasted) else {
            return self.inner.send(request).await;
        };
        let answer = self.inner.send(question).await?;
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let body = answer.into_body().collect_bytes().await?;
        match present(&body) {
            Some(present) if present < version => {
                self.fence.break_off();
                let path = request.uri().path();
                tracing::warn!(
                    path,
                    version,
                    present,
                    "etcd was restored to an older revision; listing again"
                );
                Ok(Response::new(Body::from(expired(version, present))))
            }
            _ => self.inner.send(request).await,
        }
    }

    /// Whether the previous watch lasted for its whole time.
    fn has_lasted(&self, uri: &Uri) -> bool {
        lasts(uri).is_some_and(|(what, lasting)| {
            let now = Instant::now();
            let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
            let before = ends.insert(what, now + lasting);
            before.is_some_and(|end| end <= now + EARLY)
        })
    }
}

/// Whether the request is a watch.
pub(super) fn is_watch(uri: &Uri) -> bool {
    pairs(uri).any(|pair| pair == ("watch", "true"))
}

/// The pairs of a query, not decoded.
fn pairs(uri: &Uri) -> impl Iterator<Item = (&str, &str)> {
    let query = uri.query().unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('='))
}

/// What is watched, without the revision, and the watch's timeout if it has one.
fn lasts(uri: &Uri) -> Option<(String, Duration)> {
    let mut asked = pairs(uri).filter(|_| is_watch(uri));
    let (_, seconds) = asked.find(|(key, _)| *key == "timeoutSeconds")?;
    let lasting = Duration::from_secs(seconds.parse().ok()?);
    let rest = pairs(uri).filter(|(key, _)| *key != "resourceVersion");
    let what = rest.fold(uri.path().to_owned(), |what, (key, value)| {
        format!("{what}&{key}={value}")
    });
    Some((what, lasting))
}

/// The revision from which a watch resumes, and a request for the current one; `None` for any other
/// request.
fn goes_on(request: &Request<Body>) -> Option<(u64, Request<Body>)> {
    let uri = request.uri();
    if request.method() != Method::GET || !is_watch(uri) {
        return None;
    }
    // Absent if the watch starts with all objects, and 0 if any revision will do.
    let (_, version) = pairs(uri).find(|(key, _)| *key == "resourceVersion")?;
    let version = version.parse().ok().filter(|version| *version > 0)?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{}?limit=1", uri.path()).parse().ok()?);
    let mut question = Request::new(Body::empty());
    *question.uri_mut() = Uri::from_parts(parts).ok()?;
    question
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static(METADATA));
    Some((version, question))
}

/// The version of a list.
fn present(body: &[u8]) -> Option<u64> {
    let list: Value = serde_json::from_slice(body).ok()?;
    list["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// What a server sends to a watch from a revision that it no longer knows.
fn expired(version: u64, present: u64) -> Vec<u8> {
    let message =
        format!("revision {version} is newer than the server's, {present}: etcd was restored");
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "reason": "Expired", "code": 410, "message": message,
    });
    format!("{}\n", json!({"type": "ERROR", "object": status})).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::TryStreamExt;
    use k8s_openapi::api::core::v1::Namespace;
    use kube::Api;
    use kube::api::{WatchEvent, WatchParams};

    use crate::runtime::{Fence, client, test_server};

    /// A server at version 100, and the requests it gets.
    async fn server() -> (Api<Namespace>, Arc<Mutex<Vec<String>>>, Fence) {
        let (config, requests) = test_server::serve(|line| {
            let body = if line.contains("watch=true") {
                r#"{"type":"BOOKMARK","object":{"apiVersion":"v1","kind":"Namespace","metadata":{"resourceVersion":"100"}}}"#
            } else {
                r#"{"kind":"NamespaceList","apiVersion":"v1","metadata":{"resourceVersion":"100"},"items":[]}"#
            };
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        })
        .await;
        let fence = Fence::open();
        let client = client::connect(config, &fence).unwrap();
        (Api::all(client), requests, fence)
    }

    async fn first(api: &Api<Namespace>, version: &str) -> WatchEvent<Namespace> {
        let stream = api.watch(&WatchParams::default(), version).await.unwrap();
        let mut stream = std::pin::pin!(stream);
        stream.try_next().await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn watch_from_a_version_that_the_server_has_not_reached_lists_anew_and_nothing_is_written()
     {
        let (api, requests, fence) = server().await;
        match first(&api, "101").await {
            WatchEvent::Error(status) => assert_eq!(status.code, 410, "{status:?}"),
            other => panic!("{other:?}"),
        }
        assert!(!fence.is_open());
        let requests = requests.lock().unwrap();
        assert_eq!(*requests, ["GET /api/v1/namespaces?limit=1 HTTP/1.1"]);
    }

    #[tokio::test]
    async fn watch_from_a_version_that_the_server_has_goes_on() {
        let (api, requests, fence) = server().await;
        for version in ["99", "100"] {
            let event = first(&api, version).await;
            assert!(matches!(event, WatchEvent::Bookmark(_)), "{event:?}");
        }
        assert_eq!(requests.lock().unwrap().len(), 4);
        assert!(fence.is_open());
    }

    #[tokio::test]
    async fn nothing_is_asked_where_the_watch_before_has_lasted_its_time() {
        let (api, requests, _) = server().await;
        let asked = || {
            let requests = requests.lock().unwrap();
            let questions = requests.iter().filter(|line| line.contains("limit=1"));
            questions.count()
        };
        // Each ends immediately, long before the timeout of the first two.
        for (seconds, questions) in [(290, 1), (290, 2), (1, 3), (1, 3)] {
            let lasting = WatchParams::default().timeout(seconds);
            let stream = api.watch(&lasting, "99").await.unwrap();
            std::pin::pin!(stream).try_next().await.unwrap().unwrap();
            assert_eq!(asked(), questions, "{seconds}");
        }
    }

    #[tokio::test]
    async fn nothing_is_asked_before_other_requests() {
        let (api, requests, _) = server().await;
        first(&api, "0").await;
        api.list(&kube::api::ListParams::default()).await.unwrap();
        assert_eq!(requests.lock().unwrap().len(), 2);
    }
}
