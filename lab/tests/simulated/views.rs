//! Old views of the cluster for a controller: earlier lists, and watches that lag, break or lose events.
//!
//! The layer changes only what fills caches: the paged lists and the watches of the client library's watcher. It lets a
//! read of one object, or of one page of one item, through, because the server answers that from the present.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http::{Method, Request, Response, Uri};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;
use tower::BoxError;

/// What an answer is made of.
pub(super) type Bent = UnsyncBoxBody<Bytes, BoxError>;

/// How watches of held kinds go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// With everything that was delayed.
    Late,
    /// Their connections break, and new ones go on where these stood.
    Cut,
    /// They get the answer that what they missed is no longer known (410), and list again.
    Gone,
}

/// The views of one run, shared by all its controllers.
#[derive(Clone)]
pub(super) struct Views(Arc<Shared>);

struct Shared {
    /// Lists that watchers have asked for, by plural.
    asked: Mutex<BTreeMap<String, HashSet<Uri>>>,
    /// Answers that replace lists now, by address.
    old: Mutex<HashMap<Uri, Bytes>>,
    /// How many of them were given.
    given: AtomicUsize,
    held: watch::Sender<Held>,
}

#[derive(Clone, Default)]
struct Held {
    /// Plurals.
    kinds: BTreeSet<&'static str>,
    /// How often watches were ended, and how they were the last time.
    ended: (usize, Option<Release>),
}

/// Answers to the lists of some kinds, at one moment.
#[derive(Default)]
pub(super) struct Snapshot(HashMap<Uri, Bytes>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn plural(uri: &Uri) -> &str {
    uri.path().rsplit('/').next().unwrap_or_default()
}

impl Views {
    /// Of a run that sees the present.
    pub(super) fn present() -> Self {
        Self(Arc::new(Shared {
            asked: Mutex::default(),
            old: Mutex::default(),
            given: AtomicUsize::new(0),
            held: watch::channel(Held::default()).0,
        }))
    }

    /// Lists `kinds` as a controller of this run lists them.
    pub(super) async fn snapshot(
        &self,
        client: &Client,
        kinds: &[&'static str],
    ) -> Result<Snapshot, String> {
        let asked = lock(&self.0.asked).clone();
        let mut found = HashMap::new();
        for uri in kinds.iter().filter_map(|kind| asked.get(*kind)).flatten() {
            let request = Request::get(uri.clone()).body(Body::empty());
            let request = request.map_err(|error| error.to_string())?;
            let answer = client.send(request).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let bytes = answer.into_body().collect_bytes().await;
            found.insert(uri.clone(), bytes.map_err(|error| error.to_string())?);
        }
        Ok(Snapshot(found))
    }

    /// From now on, watches of `kinds` deliver nothing, and their lists are those of `old`.
    pub(super) fn hold(&self, kinds: &[&'static str], old: Snapshot) {
        *lock(&self.0.old) = old.0;
        self.0
            .held
            .send_modify(|held| held.kinds = kinds.iter().copied().collect());
    }

    /// How many old lists controllers got.
    pub(super) fn given(&self) -> usize {
        self.0.given.load(Ordering::Relaxed)
    }

    /// Ends all watches as `how` says, held or not.
    pub(super) fn end(&self, how: Release) {
        self.0
            .held
            .send_modify(|held| held.ended = (held.ended.0 + 1, Some(how)));
    }

    /// Shows the present again.
    pub(super) fn release(&self, how: Release) {
        lock(&self.0.old).clear();
        self.0.held.send_modify(|held| {
            held.kinds.clear();
            if how != Release::Late {
                held.ended = (held.ended.0 + 1, Some(how));
            }
        });
    }

    /// An old answer, where one replaces this list; notes which lists there are.
    pub(super) fn old_answer(&self, method: &Method, uri: &Uri) -> Option<Response<Bent>> {
        let query = uri.query().unwrap_or_default();
        if method != Method::GET || !query.contains("limit=500") {
            return None;
        }
        lock(&self.0.asked)
            .entry(plural(uri).to_owned())
            .or_default()
            .insert(uri.clone());
        let old = lock(&self.0.old).get(uri).cloned()?;
        self.0.given.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(whole(old));
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert("content-type", json);
        Some(response)
    }

    /// The answer as it is shown: watches may be held.
    pub(super) fn shown(&self, uri: &Uri, answer: Response<Body>) -> Response<Bent> {
        let is_watch = uri
            .query()
            .is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if !is_watch {
            return answer.map(|body| body.map_err(BoxError::from).boxed_unsync());
        }
        let kind = plural(uri).to_owned();
        let held = self.0.held.subscribe();
        answer.map(|body| {
            let events = bent(body, kind, held).map(|event| event.map(Frame::data));
            StreamBody::new(events).boxed_unsync()
        })
    }
}

/// A body that is there already.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Bent {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// The events of a watch, whole lines, as its view lets them pass.
fn bent(
    body: Body,
    kind: String,
    held: watch::Receiver<Held>,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    let ended = held.borrow().ended.0;
    let lines = Lines {
        body,
        rest: BytesMut::new(),
    };
    stream::unfold(Some((lines, kind, held)), move |state| async move {
        let (mut lines, kind, held) = state?;
        let (mut breaking, mut holding) = (held.clone(), held.clone());
        let how = async move {
            let now = breaking.wait_for(|held| held.ended.0 != ended).await;
            now.ok().and_then(|held| held.ended.1)
        };
        let event = async {
            let event = lines.next().await;
            let _ = holding
                .wait_for(|held| !held.kinds.contains(kind.as_str()))
                .await;
            event
        };
        let event = tokio::select! {
            biased;
            how = how => return Some((match how {
                Some(Release::Gone) => Ok(Bytes::from_static(GONE)),
                _ => Err("the connection broke".into()),
            }, None)),
            event = event => event?,
        };
        Some((event, Some((lines, kind, held))))
    })
}

/// What a server says of a version it no longer knows.
const GONE: &[u8] = br#"{"type":"ERROR","object":{"apiVersion":"v1","kind":"Status","status":"Failure","code":410,"reason":"Expired","message":"a fault of the test"}}
"#;

/// A body by lines.
struct Lines {
    body: Body,
    rest: BytesMut,
}

impl Lines {
    /// The next whole line; what is left of a broken one is lost with it.
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                return Some(Ok(self.rest.split_to(end + 1).freeze()));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.rest.extend_from_slice(&data);
                    }
                }
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
