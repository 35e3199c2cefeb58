//! Creates pods all the time, and notes what the API server made of each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use kube::Client;
use otelagent_core::names;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::world::{PATIENCE, name_of, pods_path, send, unplaced, until};

/// A created pod.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    /// When the request was sent.
    pub(super) begun: Instant,
    /// Its name.
    pub(super) name: String,
    /// The mode it got; `None` if it was not injected.
    pub(super) mode: Option<String>,
}

/// The results of all requests.
#[derive(Default)]
pub(super) struct Outcomes {
    /// Pods, in the order of the answers.
    pub(super) answered: Vec<Answered>,
    /// Refusals, in the server's words.
    pub(super) refused: Vec<String>,
}

impl Outcomes {
    /// Pods that were not injected.
    pub(super) fn missed(&self) -> Vec<&Answered> {
        let all = self.answered.iter();
        all.filter(|answered| answered.mode.is_none()).collect()
    }

    /// Modes in the order in which pods got them, without repetitions.
    pub(super) fn modes(&self) -> Vec<String> {
        let given = self.answered.iter();
        let given = given.map(|answered| answered.mode.clone().unwrap_or("none".into()));
        let mut modes: Vec<String> = given.collect();
        modes.dedup();
        modes
    }
}

/// How pods are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nothing is kept.
    DryRun,
    /// They stay.
    Kept,
}

/// Creates pods of one namespace, some at a time, until it is stopped.
pub(super) struct Creator {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    outcome: Arc<Mutex<Outcomes>>,
    running: Vec<JoinHandle<()>>,
    begun: Instant,
}

impl Creator {
    pub(super) fn start(
        client: &Client,
        namespace: &str,
        how: How,
        at_a_time: usize,
        pause: Duration,
    ) -> Self {
        let mut creator = Self {
            stop: Arc::default(),
            count: Arc::default(),
            outcome: Arc::default(),
            running: Vec::new(),
            begun: Instant::now(),
        };
        let path = match how {
            How::DryRun => format!("{}?dryRun=All", pods_path(namespace)),
            How::Kept => pods_path(namespace),
        };
        for _ in 0..at_a_time {
            let (stop, count) = (creator.stop.clone(), creator.count.clone());
            let (client, path, outcome) = (client.clone(), path.clone(), creator.outcome.clone());
            creator.running.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if create(&client, &path, &outcome).await {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    sleep(pause).await;
                }
            }));
        }
        creator
    }

    /// Pods created so far.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits for this many more answers.
    pub(super) async fn until_more(&self, more: usize) {
        let before = self.count();
        until(&format!("{more} more pods"), PATIENCE, async || {
            let now = self.count();
            (now >= before + more)
                .then_some(())
                .ok_or_else(|| format!("{now} after {before}"))
        })
        .await;
    }

    /// The last answer.
    pub(super) fn last(&self) -> Option<Answered> {
        lock(&self.outcome).answered.last().cloned()
    }

    /// Pods answered per second.
    pub(super) fn rate(&self) -> f64 {
        let pods = u32::try_from(self.count()).unwrap();
        f64::from(pods) / self.begun.elapsed().as_secs_f64()
    }

    pub(super) async fn end(self) -> Outcomes {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.running {
            task.await.unwrap();
        }
        std::mem::take(&mut lock(&self.outcome))
    }
}

fn lock(outcome: &Mutex<Outcomes>) -> std::sync::MutexGuard<'_, Outcomes> {
    outcome.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the server answered with a pod.
async fn create(client: &Client, path: &str, outcome: &Mutex<Outcomes>) -> bool {
    let begun = Instant::now();
    let answer = send(client, Method::POST, path, &unplaced()).await;
    let mut outcome = lock(outcome);
    match answer {
        Ok(pod) => {
            outcome.answered.push(Answered {
                begun,
                name: name_of(&pod).to_owned(),
                mode: mode_of(&pod),
            });
            true
        }
        Err(kube::Error::Api(status)) => {
            outcome.refused.push(status.message.clone());
            false
        }
        Err(_) => false,
    }
}

/// The mode that a pod got, if it was injected.
pub(super) fn mode_of(pod: &Value) -> Option<String> {
    let label = |key: &str| pod["metadata"]["labels"][key].as_str().map(str::to_owned);
    label(names::LABEL_AGENT).and(label(names::LABEL_MODE))
}
