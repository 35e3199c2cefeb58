//! The dashboard and the alerts by the tools that read them: promtool, Prometheus, Grafana's schema. What operator and
//! agents really expose is asked in `crate::simulated::observed`.

pub(crate) mod files;
pub(crate) mod prometheus;
#[path = "../../../tests/observability/promql.rs"]
#[allow(dead_code, reason = "the tests of the files use the rest")]
mod promql;
mod promtool;
mod schema;
