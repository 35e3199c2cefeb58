//! From the figures of agents to the answer.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::figures::Figures;
use super::report::{AgentLoad, Order, SenderLoad, TopReport, WorkloadLoad};

/// How many senders are told.
const SENDERS: usize = 10;

/// An agent that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// Its node.
    pub node: Option<String>,
    /// Its `OtelAgent`, as `namespace.name`.
    pub agent: String,
    /// The workload of the pod, if the agent is its sidecar.
    pub workload: Option<String>,
    /// The port of its metrics.
    pub port: u16,
}

/// What an agent answered, or why not.
pub type Sample = Result<Figures, String>;

/// The answer for these agents. `before` has figures of the same agents from `seconds` ago.
pub fn assemble(
    targets: &[Target],
    samples: &[Sample],
    before: Option<(&[Sample], u32)>,
    order: Order,
) -> TopReport {
    let mut report = TopReport {
        seconds: before.map(|(_, seconds)| seconds),
        ..TopReport::default()
    };
    let mut senders: BTreeMap<&str, SenderLoad> = BTreeMap::new();
    let mut workloads: BTreeMap<(&str, &str), WorkloadLoad> = BTreeMap::new();
    for (at, (target, sample)) in targets.iter().zip(samples).enumerate() {
        let earlier = before.and_then(|(samples, seconds)| {
            let figures = samples.get(at)?.as_ref().ok()?;
            Some((figures, seconds))
        });
        let load = of_agent(target, sample, earlier);
        if let Ok(figures) = sample {
            for (sender, (held, refused)) in &figures.senders {
                let of = senders.entry(sender).or_default();
                of.held_bytes += held;
                of.refused_requests += refused;
            }
            if let Some(workload) = &target.workload {
                let of = workloads.entry((&target.namespace, workload)).or_default();
                of.sidecars += 1;
                of.items_per_second += load.items_per_second;
                of.lost += load.lost;
            }
        }
        report.items.push(load);
    }
    report.items.sort_by(|one, other| ranked(one, other, order));
    report.senders = senders
        .into_iter()
        .map(|(sender, load)| SenderLoad {
            sender: sender.to_owned(),
            ..load
        })
        .collect();
    report.senders.sort_by(|one, other| {
        let refused = other.refused_requests.total_cmp(&one.refused_requests);
        refused.then(other.held_bytes.total_cmp(&one.held_bytes))
    });
    report.senders.truncate(SENDERS);
    report.workloads = workloads
        .into_iter()
        .map(|((namespace, workload), load)| WorkloadLoad {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
            ..load
        })
        .collect();
    let rate = |load: &WorkloadLoad| load.items_per_second;
    report
        .workloads
        .sort_by(|one, other| rate(other).total_cmp(&rate(one)));
    report
}

fn of_agent(target: &Target, sample: &Sample, earlier: Option<(&Figures, u32)>) -> AgentLoad {
    let load = AgentLoad {
        namespace: target.namespace.clone(),
        pod: target.pod.clone(),
        node: target.node.clone(),
        agent: target.agent.clone(),
        ..AgentLoad::default()
    };
    let now = match sample {
        Ok(now) => now,
        Err(why) => {
            return AgentLoad {
                unanswered: Some(why.clone()),
                ..load
            };
        }
    };
    // An agent that has been restarted in between begins anew.
    let earlier = earlier.filter(|(before, _)| before.uptime <= now.uptime);
    let per_second = |of: fn(&Figures) -> f64| {
        let (change, seconds) = match earlier {
            Some((before, seconds)) => (of(now) - of(before), f64::from(seconds)),
            None => (of(now), now.uptime),
        };
        if seconds > 0.0 { change / seconds } else { 0.0 }
    };
    AgentLoad {
        items_per_second: per_second(|figures| figures.accepted),
        cpu: per_second(|figures| figures.cpu),
        accepted: now.accepted,
        sent: now.sent,
        lost: now.lost,
        refused_requests: now.refused,
        queued_bytes: now.queued,
        queue_capacity: now.capacity,
        resident_bytes: now.resident,
        failing_seconds: now.failing,
        ..load
    }
}

fn ranked(one: &AgentLoad, other: &AgentLoad, order: Order) -> Ordering {
    let most = |of: fn(&AgentLoad) -> f64| of(other).total_cmp(&of(one));
    let by = match order {
        Order::Load => most(|load| load.items_per_second),
        Order::Losses => most(|load| load.lost).then(most(|load| load.refused_requests)),
        Order::Queue => most(|load| load.queued_bytes / load.queue_capacity.max(1.0)),
    };
    let names = |load: &AgentLoad| (load.namespace.clone(), load.pod.clone());
    let answered = one.unanswered.is_some().cmp(&other.unanswered.is_some());
    answered
        .then(by)
        .then_with(|| names(one).cmp(&names(other)))
}
