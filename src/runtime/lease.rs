//! Leadership by a `coordination.k8s.io` Lease.
//!
//! Three rules ensure that two processes never write at the same time. A leader writes until
//! [`RENEW_DEADLINE`] after the *start* of the last request that renewed its lease; the [`Fence`] enforces
//! this even after a pause. Other processes take the lease only after they have seen it unchanged for the
//! longer [`LEASE_DURATION`]. Every write of the lease names the version that it replaces.
//!
//! The existing crates either rely on wall clocks and unversioned patches, or cannot stop a write in
//! progress. Does not know what the leader does.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::election::{Record, SeenRecord, Step, next};
use super::{Fence, Metrics};

/// How long a lease lasts unless it is renewed.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long after its last renewal a leader may still write.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews. An idle operator writes nothing else.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How often a failed renewal is retried, and how often other processes read the lease.
const RETRY_EVERY: Duration = Duration::from_secs(2);
/// How long a leader waits for an answer before it tries again on another connection. The second attempt has what is
/// left before the deadline: on a slow server it must read and write.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The same for others, which read before they write.
const FIRST_ATTEMPT: Duration = Duration::from_secs(6);

/// Which lease, and which candidate.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Name of this candidate, unique among running processes. One that restarts with the same name (a
    /// container in the same pod) continues with its lease.
    pub identity: String,
}

impl LeaseSettings {
    /// A unique name, for processes without a pod name.
    pub fn unique_identity() -> String {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!(
            "{}-{}-{}",
            host.trim(),
            std::process::id(),
            Timestamp::now().as_microsecond()
        )
    }
}

/// This process's part in the election. When dropped, it stops renewing; prefer [`Leadership::release`].
#[derive(Debug)]
pub struct Leadership {
    /// `None` while another leads.
    term: watch::Receiver<Option<Term>>,
    fence: Fence,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// One uninterrupted time of leadership.
#[derive(Clone, Debug, Default)]
pub struct Term(CancellationToken);

impl Leadership {
    /// Leads from the start, for processes without an election.
    pub fn without_election(fence: &Fence, metrics: &Metrics) -> Self {
        fence.open_for_good();
        metrics.leads(true);
        Self {
            term: watch::channel(Some(Term::default())).1,
            fence: fence.clone(),
            stop: CancellationToken::new(),
            task: None,
        }
    }

    /// Campaigns for the lease from now on, and again after every loss.
    ///
    /// `client` must not be fenced by `fence`, because the election opens it.
    pub fn campaign(
        client: &Client,
        settings: LeaseSettings,
        fence: &Fence,
        metrics: &Metrics,
    ) -> Self {
        let (sender, term) = watch::channel(None);
        let candidate = Candidate {
            api: Api::namespaced(client.clone(), &settings.namespace),
            settings,
            fence: fence.clone(),
            metrics: metrics.clone(),
            origin: Instant::now(),
            asked: Instant::now(),
            lease: None,
            seen: None,
            term: sender,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(candidate.run(stop.clone()));
        Self {
            term,
            fence: fence.clone(),
            stop,
            task: Some(task),
        }
    }

    /// Whether this process may act now.
    pub fn is_leader(&self) -> bool {
        self.term.borrow().is_some() && self.fence.is_open()
    }

    /// Waits until this process leads.
    pub async fn wait_until_leader(&self) -> Term {
        let mut current = self.term.clone();
        let seen = current.wait_for(Option::is_some).await;
        let Some(term) = seen.ok().and_then(|term| term.clone()) else {
            // The campaign has ended, so this process never leads.
            return std::future::pending().await;
        };
        term
    }

    /// Releases the lease, so that another process need not wait until it expires. Call it after the work
    /// has stopped: nothing can be written afterwards.
    pub async fn release(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // It ends by itself after one bounded attempt.
            let _ = task.await;
        }
        self.fence.close();
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
            self.fence.close();
        }
    }
}

impl Term {
    /// Waits until this term is over.
    pub async fn lost(&self) {
        self.0.cancelled().await;
    }
}

/// A candidate for the lease.
struct Candidate {
    api: Api<Lease>,
    settings: LeaseSettings,
    fence: Fence,
    metrics: Metrics,
    origin: Instant,
    /// When the last write of the lease began.
    asked: Instant,
    /// As last read or written.
    lease: Option<Lease>,
    seen: Option<SeenRecord>,
    term: watch::Sender<Option<Term>>,
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        let LeaseSettings {
            namespace,
            name,
            identity,
        } = &self.settings;
        tracing::info!(namespace, name, identity, "waiting for the Lease");
        let mut ended = Box::pin(stop.cancelled());
        loop {
            let pause = self.round().await;
            if timeout(self.within_term(pause), &mut ended).await.is_ok() {
                break;
            }
        }
        let _ = timeout(ATTEMPT, self.release()).await;
        self.resign("the process ends");
    }

    fn leads(&self) -> bool {
        self.term.borrow().is_some()
    }

    /// `time`, or less if this process's leadership could end sooner.
    fn within_term(&self, time: Duration) -> Duration {
        let left = self.fence.remaining().filter(|_| self.leads());
        left.map_or(time, |left| left.min(time))
    }

    /// One attempt. Returns how long to wait before the next.
    async fn round(&mut self) -> Duration {
        let budget = match (self.leads(), &self.lease) {
            (true, Some(_)) => self.within_term(ATTEMPT),
            (true, None) => self.within_term(RENEW_DEADLINE),
            (false, _) => FIRST_ATTEMPT,
        };
        let pause = match timeout(budget, self.attempt()).await {
            Ok(Ok(true)) => {
                // Counts from before the request: others may have seen its effect before the answer
                // arrived.
                self.fence.open_until(self.asked + RENEW_DEADLINE);
                self.elected();
                return RENEW_EVERY.saturating_sub(self.asked.elapsed());
            }
            Ok(Ok(false)) => {
                self.resign("another holds the lease");
                return RETRY_EVERY;
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "lease not reached");
                RETRY_EVERY
            }
            Err(_) => {
                tracing::warn!(seconds = budget.as_secs_f32(), "lease not reached in time");
                RETRY_EVERY.saturating_sub(budget)
            }
        };
        self.metrics.failed("LeaseUnreachable");
        // The server may have executed the request anyway: read again before the next write.
        self.lease = None;
        if !self.fence.is_open() {
            self.resign("the lease could not be renewed in time");
        }
        pause
    }

    /// Reads the lease if it is unknown, and creates, takes or renews it if due. Returns whether this
    /// process holds it afterwards.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        if self.lease.is_none() || !self.leads() {
            self.read().await?;
        }
        match self.act().await {
            // Another process was faster, or somebody edited the lease: read it once more.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                self.read().await?;
                match self.act().await {
                    Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
                    outcome => outcome,
                }
            }
            outcome => outcome,
        }
    }

    async fn read(&mut self) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(&self.settings.name).await?;
        self.remember(lease);
        Ok(())
    }

    fn remember(&mut self, lease: Option<Lease>) {
        let previous = self.seen.take();
        self.seen = lease
            .as_ref()
            .map(|lease| SeenRecord::after(previous, record(lease), self.origin.elapsed()));
        self.lease = lease;
    }

    async fn act(&mut self) -> Result<bool, kube::Error> {
        let step = next(
            &self.settings.identity,
            self.seen.as_ref(),
            self.origin.elapsed(),
            LEASE_DURATION,
        );
        let previous = self.lease.as_ref().and_then(|lease| lease.spec.clone());
        let previous = previous.unwrap_or_default();
        let spec = match step {
            Step::Wait => return Ok(false),
            Step::Renew => LeaseSpec {
                renew_time: Some(MicroTime(Timestamp::now())),
                ..previous
            },
            Step::Create | Step::Take => self.taken(previous.lease_transitions),
        };
        self.write(spec).await?;
        Ok(true)
    }

    fn taken(&self, transitions: Option<i32>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions.map_or(0, |before| before.saturating_add(1))),
            ..LeaseSpec::default()
        }
    }

    /// Replaces the known version, or creates the lease.
    async fn write(&mut self, spec: LeaseSpec) -> Result<(), kube::Error> {
        let (parameters, name) = (PostParams::default(), &self.settings.name);
        let is_first = self.lease.is_none();
        let mut lease = self.lease.clone().unwrap_or_default();
        lease.metadata.name = Some(name.clone());
        lease.spec = Some(spec);
        self.asked = Instant::now();
        let written = if is_first {
            self.api.create(&parameters, &lease).await?
        } else {
            self.api.replace(name, &parameters, &lease).await?
        };
        self.remember(Some(written));
        Ok(())
    }

    fn elected(&mut self) {
        if !self.leads() {
            tracing::info!(identity = self.settings.identity, "elected leader");
            self.metrics.leads(true);
            self.term.send_replace(Some(Term::default()));
        }
    }

    fn resign(&mut self, reason: &'static str) {
        self.fence.close();
        if let Some(term) = self.term.send_replace(None) {
            tracing::warn!(
                identity = self.settings.identity,
                reason,
                "no longer leader"
            );
            self.metrics.leads(false);
            term.0.cancel();
        }
    }

    /// Releases the lease if this process holds it. A failure does no harm: the lease expires.
    async fn release(&mut self) {
        if !self.leads() {
            return;
        }
        self.fence.close();
        match self.try_release().await {
            Ok(()) => tracing::info!(identity = self.settings.identity, "lease released"),
            Err(error) => tracing::warn!(error = %error, "lease not released, it will run out"),
        }
    }

    async fn try_release(&mut self) -> Result<(), kube::Error> {
        if self.lease.is_none() {
            self.read().await?;
        }
        let Some(spec) = self.lease.as_ref().and_then(|lease| lease.spec.clone()) else {
            return Ok(());
        };
        if spec.holder_identity.as_ref() != Some(&self.settings.identity) {
            return Ok(());
        }
        self.write(LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            ..spec
        })
        .await
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let seconds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()),
        version: lease.metadata.resource_version.clone(),
        duration: Duration::from_secs(seconds.unwrap_or_default()),
    }
}
