//! Applies a changed configuration to the running agent, completely or not at all.

use std::sync::Arc;
use std::time::Duration;

use otlp_wire::Edits;
use tracing::{error, info, warn};

use super::agent::{Agent, bounded, export_reserve};
use super::log::Level;
use super::source::ConfigSource;
use crate::config::{self, Changes, Config, Memory, Problem};
use crate::export::Destination;
use crate::lock::lock;
use crate::metrics::Reload;
use crate::queue::Lane;
use crate::receive::{Route, connection_memory};

impl Agent {
    /// Reads the configuration again and applies its changes; keeps the current one if that fails.
    pub(super) fn reload(&mut self, source: &mut ConfigSource, level: &Level) {
        let result = source.load().and_then(|new| {
            let changes = config::changes(&self.config, &new)?;
            let destinations = destinations(&changes, &new, self.upstream_age)?;
            Ok((new, changes, destinations))
        });
        let (new, changes, destinations) = match result {
            Ok(found) => found,
            Err(problems) => {
                for problem in problems {
                    error!(path = problem.path, "configuration refused: {problem}");
                }
                self.report.metrics.reloaded(Reload::Refused);
                return;
            }
        };
        for warning in &new.warnings {
            warn!("{warning}");
        }
        self.report.metrics.configured(source.fingerprint);
        let result = if changes.paths.is_empty() {
            Reload::Unchanged
        } else {
            level.set(new.telemetry.log_level);
            self.apply(new, destinations);
            Reload::Applied
        };
        self.report.metrics.reloaded(result);
        info!(changed = changes.paths.join(", "), "configuration read");
    }

    /// Applies a configuration; `destinations` are those of changed exporters, by name.
    fn apply(&mut self, new: Config, destinations: Vec<(String, Arc<Destination>)>) {
        for (name, destination) in destinations {
            for upstream in self.report.upstreams.iter().filter(|of| of.name() == name) {
                upstream.change(Arc::clone(&destination));
            }
        }
        let Memory { limit, spike } = new.memory;
        let budget = &self.report.budget;
        budget.set_limits(limit, spike, connection_memory(limit));
        let mut routes = Vec::new();
        for pipeline in &new.pipelines {
            let exporter = new.exporters.get(pipeline.exporter);
            let same = |lane: &&Arc<Lane>| lane.signal == pipeline.signal;
            if let (Some(lane), Some(exporter)) = (self.report.lanes.iter().find(same), exporter) {
                let reserve = export_reserve(exporter, &new.memory);
                lane.set_limits(bounded(exporter.queue, reserve));
                routes.push(Route {
                    lane: Arc::clone(lane),
                    edits: Edits::new(&pipeline.attributes),
                    reserve,
                });
            }
        }
        self.server.change(routes, &new.receiver);
        self.config = Arc::new(new);
        *lock(&self.report.config) = Arc::clone(&self.config);
    }
}

fn destinations(
    changes: &Changes,
    new: &Config,
    age: Duration,
) -> Result<Vec<(String, Arc<Destination>)>, Vec<Problem>> {
    let mut destinations = Vec::new();
    let mut problems = Vec::new();
    let indices = changes.exporters.iter();
    for exporter in indices.filter_map(|&index| new.exporters.get(index)) {
        match Destination::new(exporter, age) {
            Ok(destination) => destinations.push((exporter.name(), destination)),
            Err(error) => problems.push(Problem {
                path: format!("exporters.{}", exporter.id),
                message: error.to_string(),
            }),
        }
    }
    if problems.is_empty() {
        Ok(destinations)
    } else {
        Err(problems)
    }
}
