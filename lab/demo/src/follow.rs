//! Listening to what programs say of themselves until their end, since a pod that is gone cannot be asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use crate::apps::{self, Report};
use crate::kubectl::Kubectl;

/// How often new pods are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// What a program has said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its latest report.
    pub report: Report,
    /// What its SDK complained of, in its own words.
    pub complaints: Vec<String>,
    /// Whether a follower listens to it now.
    pub(crate) listening: bool,
}

type Shared = Arc<Mutex<BTreeMap<String, Said>>>;

/// Listens to every application pod of a namespace until it is dropped.
#[derive(Debug)]
pub struct Follower {
    said: Shared,
    over: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Follower {
    /// Begins to listen.
    pub fn new(kubectl: &Kubectl, namespace: &str) -> Self {
        let (said, over) = (Shared::default(), Arc::new(AtomicBool::new(false)));
        let (kubectl, namespace) = (kubectl.clone(), namespace.to_owned());
        let (shared, ended) = (Arc::clone(&said), Arc::clone(&over));
        let looking = spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let pods = apps::pods(&kubectl, &namespace).unwrap_or_default();
                for pod in pods.into_iter().filter(|pod| pod.ready) {
                    let mut said = lock(&shared);
                    let entry = said.entry(pod.name.clone()).or_default();
                    if !entry.listening {
                        entry.listening = true;
                        listen(&kubectl, &namespace, pod.name, &shared, &ended);
                    }
                }
                sleep(LOOK);
            }
        });
        let looking = Some(looking);
        Self {
            said,
            over,
            looking,
        }
    }

    /// What has been said so far, by run.
    pub fn said(&self) -> BTreeMap<String, Said> {
        lock(&self.said).clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            // A thread that panicked has been heard of already.
            let _ = looking.join();
        }
    }
}

/// Reads one pod's log to its end. A log that breaks off is taken up again, from its beginning: reports are
/// totals.
fn listen(
    kubectl: &Kubectl,
    namespace: &str,
    pod: String,
    shared: &Shared,
    over: &Arc<AtomicBool>,
) {
    let args = [
        "logs",
        "--follow",
        &pod,
        "--namespace",
        namespace,
        "--container=app",
    ];
    let started = kubectl.start(&args);
    let (shared, over) = (Arc::clone(shared), Arc::clone(over));
    spawn(move || {
        let mut complaints = Vec::new();
        if let Ok(mut child) = started {
            let lines = child.stdout.take().map(BufReader::new);
            for line in lines.into_iter().flat_map(BufReader::lines) {
                let Ok(line) = line else { break };
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let mut said = lock(&shared);
                let entry = said.entry(pod.clone()).or_default();
                match serde_json::from_str(&line) {
                    Ok(report) => entry.report = report,
                    Err(_) => complaints.push(line),
                }
                entry.complaints.clone_from(&complaints);
            }
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        lock(&shared).entry(pod).or_default().listening = false;
    });
}

fn lock(shared: &Shared) -> MutexGuard<'_, BTreeMap<String, Said>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
