//! The metric of the conditions of `OtelAgent`s, so that alerts need nothing else.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// A condition of an `OtelAgent`, for its metric.
#[derive(Clone, Debug)]
pub struct ShownCondition {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// Type of the condition.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
}

pub(super) type Source = Box<dyn Fn() -> Vec<ShownCondition> + Send + Sync>;

/// The conditions of all objects, by status.
#[derive(Clone, Default)]
pub(super) struct Conditions(Arc<Mutex<Option<Source>>>);

impl Conditions {
    /// None yet, on a page of metrics.
    pub(super) fn shown_on(registry: &mut Registry) -> Self {
        let conditions = Self::default();
        registry.register_collector(Box::new(conditions.clone()));
        conditions
    }

    /// Shows what the source has whenever the page is read.
    pub(super) fn read_from(&self, source: Source) {
        *self.lock() = Some(source);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Source>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conditions")
    }
}

impl Collector for Conditions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let source = self.lock();
        let Some(source) = &*source else {
            return Ok(());
        };
        let help = "1 for the status of each condition of an OtelAgent";
        let kind = MetricType::Gauge;
        let mut shown = encoder.encode_descriptor("condition", help, None, kind)?;
        for condition in source() {
            let labels = [
                ("namespace", condition.namespace.as_str()),
                ("name", condition.name.as_str()),
                ("type", condition.type_),
                ("status", condition.status),
            ];
            ConstGauge::new(1_i64).encode(shown.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
