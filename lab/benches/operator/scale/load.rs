//! The load: pods created at a steady rate, with either engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::world::pod_template;

/// Requests at a time. A server that cannot keep up is not buried under requests that wait, which would be
/// measuring that; the reported rate is the one that was reached.
const AT_ONCE: usize = 32;

/// Pods with the labels of `cart`, which are selected where their namespace is, created one after the
/// other in the places given.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) places: Vec<String>,
    /// Pods a second. Requests start on time, unless [`AT_ONCE`] are under way.
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    pub(crate) fate: Fate,
}

/// What becomes of created pods.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    /// They are not kept: admission is all that happens.
    DryRun,
    /// They run on these nodes in turn, without a scheduler, and are deleted after a while.
    Live {
        nodes: Vec<String>,
        lifetime: Duration,
    },
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Created {
    /// How long each request took, in ascending order.
    pub(crate) took: Vec<Duration>,
    /// From the first request to the last answer.
    pub(crate) span: Duration,
}

impl Created {
    /// Pods created a second.
    pub(crate) fn rate(&self) -> f64 {
        self.took.len() as f64 / self.span.as_secs_f64()
    }

    /// The latency that this share of the requests did not exceed; zero if there were none.
    pub(crate) fn percentile(&self, share: usize) -> Duration {
        let last = self.took.len().saturating_sub(1);
        let at = (self.took.len() * share / 100).min(last);
        self.took.get(at).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.took.extend(more.took);
        self.took.sort_unstable();
        self.span += more.span;
    }
}

impl Load {
    /// Returns when every pod was created and has met its fate.
    pub(crate) async fn run(&self, client: &Client) -> Outcome<Created> {
        let mut tick = tokio::time::interval(Duration::from_secs(1) / self.rate);
        let begun = Instant::now();
        let (mut running, free) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        for number in 0..(self.rate * self.seconds) as usize {
            tick.tick().await;
            let api = Api::namespaced(client.clone(), &self.places[number % self.places.len()]);
            let (fate, free) = (self.fate.clone(), Arc::clone(&free));
            let turn = Arc::clone(&free).acquire_owned().await?;
            running.spawn(async move {
                one(&api, number, fate, turn, &free)
                    .await
                    .map_err(|error| error.to_string())
            });
        }
        let (mut took, mut last) = (Vec::new(), begun);
        while let Some(pod) = running.join_next().await {
            let (answered, latency) = pod??;
            last = last.max(answered);
            took.push(latency);
        }
        took.sort_unstable();
        Ok(Created {
            took,
            span: last - begun,
        })
    }
}

/// When the server answered, and after how long. The turn is over then; the deletion waits for another.
async fn one(
    api: &Api<Pod>,
    number: usize,
    fate: Fate,
    turn: OwnedSemaphorePermit,
    free: &Semaphore,
) -> Outcome<(Instant, Duration)> {
    let parameters = PostParams {
        dry_run: matches!(fate, Fate::DryRun),
        ..PostParams::default()
    };
    let (name, mut object) = (format!("cart-alone-{number}"), pod_template("cart"));
    object["metadata"]["name"] = name.as_str().into();
    if let Fate::Live { nodes, .. } = &fate {
        object["spec"]["nodeName"] = nodes[number % nodes.len()].as_str().into();
    }
    let pod: Pod = serde_json::from_value(object)?;
    let begun = Instant::now();
    api.create(&parameters, &pod).await?;
    let answered = Instant::now();
    drop(turn);
    if let Fate::Live { lifetime, .. } = fate {
        tokio::time::sleep(lifetime).await;
        let _turn = free.acquire().await?;
        let at_once = DeleteParams::default().grace_period(0);
        // It may be gone: controllers delete pods too.
        match api.delete(&name, &at_once).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other?),
        }
    }
    Ok((answered, answered - begun))
}
