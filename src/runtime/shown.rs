//! The metrics of each `OtelAgent`, made of its status, so that alerts and dashboards need nothing else.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::described::{self, Described};

/// What is shown of an `OtelAgent`.
#[derive(Clone, Debug, Default)]
pub struct ShownAgent {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// What names it on its agents' pods, and by relabelling on their metrics.
    pub label: String,
    /// Type and status of each condition; a status is `True`, `False` or `Unknown`.
    pub conditions: Vec<(&'static str, &'static str)>,
    /// The mode that the spec asks for, and the one that new pods get, once there is one.
    pub modes: Option<(&'static str, &'static str)>,
    /// Numbers by their state.
    pub counts: Vec<(Counted, &'static str, i32)>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Agents by what became of them.
    Agents,
    /// Pods by how they are injected.
    Pods,
    /// Agents by what they say of their delivery.
    Delivery,
    /// Workloads by their restart.
    Restarts,
}

impl Counted {
    const ALL: [Self; 4] = [Self::Agents, Self::Pods, Self::Delivery, Self::Restarts];

    fn described(self) -> &'static Described {
        match self {
            Self::Agents => &described::AGENTS,
            Self::Pods => &described::PODS,
            Self::Delivery => &described::DELIVERY_AGENTS,
            Self::Restarts => &described::RESTARTING_WORKLOADS,
        }
    }
}

pub(super) type Source = Box<dyn Fn() -> Vec<ShownAgent> + Send + Sync>;

/// All objects; none until there is a source.
#[derive(Clone, Default)]
pub(super) struct ShownAgents(Arc<Mutex<Option<Source>>>);

impl ShownAgents {
    /// None yet, on a page of metrics.
    pub(super) fn on(registry: &mut Registry) -> Self {
        let shown = Self::default();
        registry.register_collector(Box::new(shown.clone()));
        shown
    }

    /// Shows what the source has whenever the page is read.
    pub(super) fn read_from(&self, source: Source) {
        *self.lock() = Some(source);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Source>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ShownAgents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShownAgents")
    }
}

impl Collector for ShownAgents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let source = self.lock();
        let Some(source) = &*source else {
            return Ok(());
        };
        let agents = source();
        let mut shown = begin(&mut encoder, &described::CONDITION)?;
        for agent in &agents {
            for &(type_, status) in &agent.conditions {
                write(&mut shown, agent, &[("type", type_), ("status", status)], 1)?;
            }
        }
        let mut shown = begin(&mut encoder, &described::MODE)?;
        for agent in &agents {
            if let Some((wanted, serving)) = agent.modes {
                let labels = [("wanted", wanted), ("serving", serving)];
                write(&mut shown, agent, &labels, 1)?;
            }
        }
        for counted in Counted::ALL {
            let mut shown = begin(&mut encoder, counted.described())?;
            for agent in &agents {
                for &(_, state, number) in agent.counts.iter().filter(|(of, ..)| *of == counted) {
                    write(&mut shown, agent, &[("state", state)], number)?;
                }
            }
        }
        Ok(())
    }
}

fn begin<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    of: &'static Described,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    encoder.encode_descriptor(of.name, of.meaning, None, MetricType::Gauge)
}

/// One series of an object.
fn write(
    shown: &mut MetricEncoder<'_>,
    agent: &ShownAgent,
    labels: &[(&'static str, &'static str)],
    number: i32,
) -> fmt::Result {
    let object = [
        ("namespace", agent.namespace.as_str()),
        ("name", agent.name.as_str()),
        ("otelagent", agent.label.as_str()),
    ];
    let all: Vec<(&str, &str)> = object.into_iter().chain(labels.iter().copied()).collect();
    ConstGauge::new(i64::from(number)).encode(shown.encode_family(&all)?)
}
