//! Asks the agents of every `OtelAgent`, round after round.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use otelagent_api::Mode;
use otelagent_core::build::Environment;
use otelagent_core::delivery::{Askable, Target};
use otelagent_core::names;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::ask::ask;
use super::polls::{Followed, Polls, Round};
use crate::cache::{Cached, CachedPod, Pods, Trigger};
use crate::runtime::Metrics;

/// How often it looks for rounds that are due.
const TICK: Duration = Duration::from_secs(1);
/// Most open questions of a lane.
const CONCURRENCY: usize = 64;
/// Shortest time between two questions of a lane: 200 a second.
const PACE: Duration = Duration::from_millis(5);

/// Asks for the process that leads.
pub(crate) struct Poller {
    polls: Arc<Polls>,
    pods: Arc<Cached<Pods>>,
    environment: Environment,
    trigger: Trigger,
    metrics: Metrics,
    /// For objects of platform namespaces.
    platform: Lane,
    /// For those of all others, so that many of them do not delay the first.
    others: Lane,
}

/// Limits the questions of many rounds together.
struct Lane {
    permits: Arc<Semaphore>,
    /// When the next question may be asked.
    next: Mutex<Instant>,
}

impl Lane {
    fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(CONCURRENCY)),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a turn, which lasts until the permit is dropped.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = {
            let mut next = self.next.lock().await;
            let turn = Instant::now().max(*next);
            *next = turn + PACE;
            turn
        };
        sleep_until(turn).await;
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

impl Poller {
    pub(crate) fn new(
        polls: Arc<Polls>,
        pods: Arc<Cached<Pods>>,
        environment: Environment,
        trigger: Trigger,
        metrics: Metrics,
    ) -> Self {
        Self {
            polls,
            pods,
            environment,
            trigger,
            metrics,
            platform: Lane::new(),
            others: Lane::new(),
        }
    }

    /// Never returns. What it has begun ends when it is dropped.
    pub(crate) async fn run(self) {
        let poller = Arc::new(self);
        let mut rounds = JoinSet::new();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    for round in poller.polls.due() {
                        let poller = Arc::clone(&poller);
                        rounds.spawn(async move { poller.round(round).await });
                    }
                }
                Some(_) = rounds.join_next() => {}
            }
        }
    }

    async fn round(self: Arc<Self>, round: Round) {
        let targets = self.targets(&round);
        let lane = if self.is_of_platform(&round) {
            &self.platform
        } else {
            &self.others
        };
        let round = Arc::new(round);
        let pace = round.spread / u32::try_from(targets.len().max(1)).unwrap_or(u32::MAX);
        let mut due = Instant::now();
        let mut questions = JoinSet::new();
        for target in targets {
            sleep_until(due).await;
            due += pace;
            let turn = lane.turn().await;
            let (round, metrics) = (Arc::clone(&round), self.metrics.clone());
            questions.spawn(async move {
                let answered = ask(target.address).await;
                metrics.polled(answered.is_ok());
                round.note(target.key, answered);
                drop(turn);
            });
            // A question that has ended holds its memory until it is joined.
            while questions.try_join_next().is_some() {}
        }
        while questions.join_next().await.is_some() {}
        if round.conclude() {
            self.trigger.one(round.followed.object.clone());
        }
    }

    fn is_of_platform(&self, round: &Round) -> bool {
        let namespace = round.followed.object.namespace.as_deref();
        namespace.is_some_and(|namespace| self.environment.is_platform(namespace))
    }

    /// Whom to ask now.
    fn targets(&self, round: &Round) -> Vec<Target> {
        let followed = &round.followed;
        let own = followed.object.namespace.as_deref().unwrap_or_default();
        let pods = self.pods.read();
        // Elsewhere the operator makes no agents of nodes, and tenants may set the label.
        let is_platform = self.is_of_platform(round);
        let label = followed.label.as_str();
        let of_nodes = is_platform.then(|| pods.agents_of(own, label));
        let of_nodes = of_nodes.into_iter().flatten();
        let of_nodes = of_nodes.filter_map(|(name, pod)| node_agent(followed, own, name, pod));
        let reaches = |namespace: &str| {
            !self.environment.is_excluded(namespace) && (namespace == own || is_platform)
        };
        let asks_sidecars = followed.modes.contains(&Mode::Sidecar);
        let namespaces = pods.namespaces().filter(|(name, namespace)| {
            asks_sidecars && reaches(name) && namespace.has_injected(label)
        });
        let sidecars = namespaces.flat_map(|(namespace, of)| {
            of.pods()
                .filter_map(move |(name, pod)| sidecar(followed, namespace, name, pod))
        });
        round.choose(of_nodes.chain(sidecars))
    }
}

/// An agent on a node, if it serves in a mode that is asked.
fn node_agent<'a>(
    followed: &Followed,
    namespace: &'a str,
    name: &'a str,
    pod: &'a CachedPod,
) -> Option<Askable<'a>> {
    let mode = pod.labels.get(names::LABEL_WORKLOAD)?;
    let mode = Mode::parse(mode)?;
    let askable = Askable {
        namespace,
        name,
        node: Some(pod.runs_on()?),
        address: address(followed, pod)?,
    };
    followed.modes.contains(&mode).then_some(askable)
}

/// The sidecar of a pod that was injected for the object.
fn sidecar<'a>(
    followed: &Followed,
    namespace: &'a str,
    name: &'a str,
    pod: &'a CachedPod,
) -> Option<Askable<'a>> {
    let is_injected = pod.labels.get(names::LABEL_AGENT) == Some(&followed.label);
    let askable = Askable {
        namespace,
        name,
        node: None,
        address: address(followed, pod)?,
    };
    // An agent of a node has its own label, and never this one.
    is_injected.then_some(askable)
}

/// Where a ready pod's agent answers.
fn address(followed: &Followed, pod: &CachedPod) -> Option<SocketAddr> {
    let health = pod.health.filter(|_| pod.ready && !pod.terminating)?;
    let port = health.port.unwrap_or(followed.port);
    Some(SocketAddr::new(health.ip, port))
}
