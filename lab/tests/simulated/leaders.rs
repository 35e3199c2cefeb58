//! Two replicas, and a leader that cannot reach its lease while everything else still answers it.
//!
//! The replicas of this test do not stop when they lose their term, as the real process does, so only the fence keeps
//! the first from writing. The test compares every change of a replica with the holder of the lease at that revision.
//! Both are revisions of one etcd, so no clock is involved.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{WatchEvent, WatchParams};
use kube::client::Body;
use kube::{Api, Client};
use otelagent_operator::controller::Controller;
use otelagent_operator::runtime::{
    Fence, Leadership, LeaseSettings, Metrics, ProcessError, client,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Service};

use super::faults::{self, Life, is_write};
use super::operator::settings;
use super::run::{Outcome, Reference, Run, Story, run};
use super::sample::drawn;
use super::topology::{ALL, Topology};

/// Longer than a lease takes to expire and be taken, and than a controller takes to act.
const PATIENCE: Duration = Duration::from_mins(5);
/// Namespace of the leases.
const LEASES: &str = "default";
/// Runs in `make test`.
const SAMPLE: usize = 1;

/// The fate of a write.
#[derive(Clone, Debug)]
enum LoggedWrite {
    /// It changed something, at this revision or shortly before.
    Done(&'static str, u64, String),
    /// The fence blocked it.
    Fenced(&'static str),
}

type Log = Arc<Mutex<Vec<LoggedWrite>>>;

/// Records the fate of the writes of one replica.
#[derive(Clone)]
struct Audited {
    inner: Client,
    admin: Client,
    who: &'static str,
    log: Log,
}

impl Service<Request<Body>> for Audited {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            if is_write(request.method(), request.uri()) {
                this.noted(request).await
            } else {
                Ok(this.inner.send(request).await?)
            }
        })
    }
}

impl Audited {
    async fn noted(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let before = revision(&self.admin).await?;
        let answer = self.inner.send(request).await.inspect_err(|error| {
            if is_fenced(error) {
                self.note(LoggedWrite::Fenced(self.who));
            }
        })?;
        let (parts, body) = answer.into_parts();
        let bytes = body.collect_bytes().await?;
        if parts.status.is_success() {
            let object: Value = serde_json::from_slice(&bytes)?;
            let version = object["metadata"]["resourceVersion"].as_str();
            // What was deleted at once has no version any more.
            let at = match version.and_then(|version| version.parse().ok()) {
                Some(at) => at,
                None => revision(&self.admin).await?,
            };
            // A patch that changes nothing is answered with the version there was.
            if at > before {
                self.note(LoggedWrite::Done(self.who, at, what));
            }
        }
        Ok(Response::from_parts(parts, Body::from(bytes)))
    }

    fn note(&self, write: LoggedWrite) {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(write);
    }
}

/// Whether an inner client blocked the request.
fn is_fenced(error: &kube::Error) -> bool {
    let inner = match error {
        kube::Error::Service(source) => source.downcast_ref::<kube::Error>(),
        _ => None,
    };
    matches!(ProcessError::within(error), Some(ProcessError::NotLeader))
        || inner.is_some_and(is_fenced)
}

/// The cluster's present one.
async fn revision(client: &Client) -> Result<u64, BoxError> {
    let request = Request::get("/api/v1/namespaces?limit=1").body(Vec::new())?;
    let list: Value = client.request(request).await?;
    let version = list["metadata"]["resourceVersion"].as_str();
    Ok(version.ok_or("a list without a version")?.parse()?)
}

/// A connection without answers while it is closed.
#[derive(Clone)]
struct LeaseConnection {
    inner: Client,
    closed: watch::Receiver<bool>,
}

impl Service<Request<Body>> for LeaseConnection {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut this = self.clone();
        Box::pin(async move {
            if *this.closed.borrow_and_update() {
                return std::future::pending().await;
            }
            Ok(this.inner.send(request).await?)
        })
    }
}

/// One replica: watches at once, writes from its first election on.
struct Replica {
    leadership: Arc<Leadership>,
    fence: Fence,
    closed: watch::Sender<bool>,
    works: JoinHandle<()>,
}

impl Replica {
    async fn start(run: &Run, who: &'static str, log: &Log) -> Self {
        let fence = Fence::closed();
        let (closed, receiver) = watch::channel(false);
        let config = run.cluster.as_operator().await;
        let inner = client::connect(config, &fence).unwrap();
        let inner = faults::client(inner, run.faults.clone(), Life::new(), &run.namespace);
        let audited = Audited {
            inner,
            admin: run.admin.clone(),
            who,
            log: log.clone(),
        };
        let lease = LeaseConnection {
            inner: run.admin.clone(),
            closed: receiver,
        };
        let standing = LeaseSettings {
            namespace: LEASES.into(),
            name: run.namespace.clone(),
            identity: who.into(),
        };
        let leadership = Arc::new(Leadership::campaign(
            &Client::new(lease, LEASES),
            standing,
            &fence,
            &Metrics::new(),
        ));
        let (settings, elected) = (settings(&run.namespace), leadership.clone());
        let works = tokio::spawn(async move {
            let client = Client::new(audited, LEASES);
            let controller = Controller::start(client, settings, Metrics::new())
                .await
                .unwrap();
            controller.until_synced().await;
            elected.wait_until_leader().await;
            controller.run(std::future::pending()).await.unwrap();
        });
        Self {
            leadership,
            fence,
            closed,
            works,
        }
    }

    async fn leads(&self, who: &str) -> Outcome<()> {
        timeout(PATIENCE, self.leadership.wait_until_leader())
            .await
            .map(drop)
            .map_err(|_| format!("{who} was never elected"))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.works.abort();
    }
}

/// Who held the lease from which revision on.
type Holders = Vec<(u64, Option<String>)>;

/// Watches the lease.
async fn holders(admin: Client, name: String, seen: Arc<Mutex<Holders>>) {
    let api = Api::<Lease>::namespaced(admin, LEASES);
    let only = WatchParams::default().fields(&format!("metadata.name={name}"));
    loop {
        let Ok(stream) = api.watch(&only, "0").await else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (WatchEvent::Added(lease) | WatchEvent::Modified(lease)) = event else {
                continue;
            };
            let version = lease.metadata.resource_version.unwrap_or_default();
            if let Ok(revision) = version.parse() {
                let holder = lease.spec.and_then(|spec| spec.holder_identity);
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.push((revision, holder));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_without_lease_writes_nothing_and_its_successor_finishes() {
    if !testbed::skip_unless_possible("two leaders") {
        return;
    }
    let pairs: Vec<(Topology, Topology)> = (0..ALL.len())
        .map(|at| (ALL[at], ALL[(at + 2) % ALL.len()]))
        .collect();
    let outcomes: Vec<String> = futures::stream::iter(drawn(pairs, SAMPLE))
        .map(|(from, to)| async move {
            let fresh = run(Story::Create(from), None, None).await;
            let fresh = fresh.unwrap().expect("a run without a plan");
            let mut run = Run::start().await;
            let outcome = tell(&mut run, from, to, &fresh).await;
            run.end().await;
            let verdict = outcome
                .err()
                .map(|wrong| format!("{} and {} at two replicas: {wrong}", from.name, to.name));
            println!("{} and {}: {verdict:?}", from.name, to.name);
            verdict
        })
        .buffer_unordered(ALL.len())
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(outcomes.is_empty(), "{}", outcomes.join("\n"));
}

async fn tell(run: &mut Run, from: Topology, to: Topology, fresh: &Reference) -> Outcome<()> {
    run.without_controller().await;
    let (log, seen) = (Log::default(), Arc::<Mutex<Holders>>::default());
    let watching = tokio::spawn(holders(
        run.admin.clone(),
        run.namespace.clone(),
        Arc::clone(&seen),
    ));
    let first = Replica::start(run, "first", &log).await;
    first.leads("the first").await?;
    let second = Replica::start(run, "second", &log).await;
    run.create(from).await?;
    run.until_serving(from).await?;
    run.applications().await?;
    run.until_settled(from).await?;

    first.closed.send_replace(true);
    run.want(to).await?;
    // It may act until its fence closes, not a moment longer, though the server answers it as before.
    while first.fence.is_open() {
        sleep(Duration::from_millis(10)).await;
    }
    run.want(from).await?;
    second.leads("the second").await?;
    run.until_serving(from).await?;
    run.want(to).await?;
    run.until_serving(to).await?;
    run.roll().await?;
    run.until_settled(to).await?;
    first.closed.send_replace(false);
    run.want(from).await?;
    run.until_serving(from).await?;
    run.roll().await?;
    run.until_settled(from).await?;
    if first.leadership.is_leader() || !second.leadership.is_leader() {
        return Err("the first leads again, or no process does".into());
    }
    watching.abort();
    let log = log.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    verdict(&log, &seen)?;
    // The real process ends with its term. This one goes on trying to say that it reaches nothing.
    drop(first);
    run.judge(Some(from), Some(&fresh.end)).await.map(drop)
}

/// Only the leader of a term wrote, and the fence blocked some writes.
fn verdict(log: &[LoggedWrite], holders: &Holders) -> Outcome<()> {
    let mut wrong = Vec::new();
    for who in ["first", "second"] {
        if !log
            .iter()
            .any(|write| matches!(write, LoggedWrite::Done(by, ..) if *by == who))
        {
            wrong.push(format!("the {who} never wrote, so this verifies nothing"));
        }
    }
    if !log
        .iter()
        .any(|write| matches!(write, LoggedWrite::Fenced("first")))
    {
        wrong.push("the first never tried to write late, so this verifies nothing".into());
    }
    for write in log {
        let LoggedWrite::Done(by, revision, what) = write else {
            continue;
        };
        let holder = holders
            .iter()
            .filter(|(since, _)| since <= revision)
            .max_by_key(|(since, _)| *since)
            .and_then(|(_, holder)| holder.as_deref());
        if holder != Some(*by) {
            wrong.push(format!(
                "{what} of the {by} at revision {revision}, when {holder:?} held the lease"
            ));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("\n    "))
    }
}
