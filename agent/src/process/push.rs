//! Pushes the agent's own metrics in an interval, and a last time at the end, in a task of its own. If the endpoint fails
//! or hangs, the log says so at most once a minute, a counter counts it, and nothing else waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{info, warn};

use crate::config::MetricsPush;
use crate::export::{Destination, ExportError, MissingFiles, Pushed, Shared};
use crate::health::Report;
use crate::logging::LogThrottle;
use crate::metrics::Push;

/// The time limit of the last push.
const LAST: Duration = Duration::from_secs(2);

/// What is left of the grace period for it, if sending takes all of the rest.
const RESERVE: Duration = Duration::from_secs(1);

/// Where and how often metrics are pushed, with the connections there.
pub(super) struct Target {
    settings: MetricsPush,
    destination: Arc<Destination>,
}

impl Target {
    /// Reads certificates; does not connect yet. Connections live for `age` at most.
    pub(super) fn new(
        settings: &MetricsPush,
        age: Duration,
        missing: MissingFiles,
    ) -> Result<Arc<Self>, ExportError> {
        Ok(Arc::new(Self {
            settings: settings.clone(),
            destination: Destination::new(&settings.exporter, age, missing)?,
        }))
    }

    /// The target for changed settings: the one in use if they are the same, so that its connections stay.
    pub(super) fn after(
        in_use: Option<&Arc<Self>>,
        settings: &MetricsPush,
        age: Duration,
    ) -> Result<Arc<Self>, ExportError> {
        match in_use {
            Some(in_use) if in_use.settings == *settings => Ok(Arc::clone(in_use)),
            _ => Self::new(settings, age, MissingFiles::Refuse),
        }
    }
}

/// The pushing of metrics, which a configuration may switch on and off.
pub(super) struct Pusher {
    target: watch::Sender<Option<Arc<Target>>>,
    source: Arc<Source>,
    task: JoinSet<()>,
}

/// What is pushed.
struct Source {
    report: Arc<Report>,
    shared: Shared,
    log: LogThrottle,
}

impl Pusher {
    pub(super) fn start(target: Option<Arc<Target>>, report: Arc<Report>, shared: Shared) -> Self {
        let source = Arc::new(Source {
            report,
            shared,
            log: LogThrottle::default(),
        });
        let target = watch::Sender::new(target);
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&source).run(target.subscribe()));
        Self {
            target,
            source,
            task,
        }
    }

    pub(super) fn in_use(&self) -> Option<Arc<Target>> {
        self.target.borrow().clone()
    }

    /// Uses this target from now on. A push to another one is given up.
    pub(super) fn change(&self, target: Option<Arc<Target>>) {
        self.target.send_if_modified(|in_use| {
            let is_same = in_use.as_ref().map(Arc::as_ptr) == target.as_ref().map(Arc::as_ptr);
            *in_use = target;
            !is_same
        });
    }

    /// The time that the last push should have.
    pub(super) fn reserve(&self) -> Duration {
        match *self.target.borrow() {
            Some(_) => RESERVE,
            None => Duration::ZERO,
        }
    }

    /// Ends the task and pushes what the metrics are at the end.
    pub(super) async fn finish(&mut self, deadline: Instant) {
        self.task.shutdown().await;
        if let Some(target) = self.in_use() {
            let left = deadline.saturating_duration_since(Instant::now());
            self.source.push(&target, left.min(LAST)).await;
        }
    }
}

impl Source {
    async fn run(self: Arc<Self>, mut target: watch::Receiver<Option<Arc<Target>>>) {
        loop {
            let in_use = target.borrow_and_update().clone();
            let pushes = async {
                match in_use {
                    Some(target) => self.repeat(&target).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = target.changed() => if changed.is_err() { return },
                () = pushes => {}
            }
        }
    }

    /// Pushes once in each interval, first after the first one.
    async fn repeat(&self, target: &Target) {
        let interval = target.settings.interval;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.push(target, target.settings.timeout).await;
        }
    }

    async fn push(&self, target: &Target, limit: Duration) {
        let metrics = self.report.otlp().into();
        let push = target.destination.push(metrics, limit, &self.shared);
        let pushed = timeout(limit, push).await.unwrap_or_else(|_| Pushed {
            result: Push::Failed,
            message: format!("no answer within {limit:?}"),
        });
        self.report.metrics.pushed(pushed.result);
        let endpoint = target.destination.in_use().1;
        let what = match pushed.result {
            Push::Delivered => {
                if self.log.ended() {
                    info!(endpoint, "the agent's own metrics are pushed again");
                }
                return;
            }
            Push::Rejected => "the endpoint rejects some of the agent's own metrics",
            Push::Failed => "the agent's own metrics cannot be pushed",
        };
        if let Some(left_out) = self.log.due() {
            let why = pushed.message;
            warn!(endpoint, why, left_out, "{what}");
        }
    }
}
