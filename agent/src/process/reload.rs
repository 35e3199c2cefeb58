//! A changed configuration taken over while the agent runs: all of it or nothing. Must not know where
//! configurations come from.

use std::sync::Arc;
use std::time::Duration;

use otlp_wire::Edits;
use tracing::{error, info, warn};

use super::log::Level;
use super::run::{Agent, limits};
use super::source::Source;
use crate::config::{self, Changes, Config, Problem};
use crate::export::Way;
use crate::metrics::Reload;
use crate::queue::Lane;
use crate::receive::{Intake, Route};

impl Agent {
    /// Reads the configuration again and takes over what it changes; goes on with what it has if that
    /// cannot be done.
    pub(super) fn reload(&mut self, source: &mut Source, level: &Level) {
        let result = source.load().and_then(|new| {
            let changes = config::changes(&self.config, &new)?;
            let ways = ways(&changes, &new, self.options.upstream_age)?;
            Ok((new, changes, ways))
        });
        let (new, changes, ways) = match result {
            Ok(found) => found,
            Err(problems) => {
                for problem in problems {
                    error!(path = problem.path, "configuration refused: {problem}");
                }
                self.metrics.reloaded(Reload::Refused);
                return;
            }
        };
        for warning in &new.warnings {
            warn!("{warning}");
        }
        self.metrics.configured(source.fingerprint);
        let result = if changes.paths.is_empty() {
            Reload::Unchanged
        } else {
            level.set(new.telemetry.log_level);
            self.apply(new, ways);
            Reload::Applied
        };
        self.metrics.reloaded(result);
        info!(changed = changes.paths.join(", "), "configuration read");
    }

    /// Puts a configuration in place; `ways` are those of exporters that differ, by name.
    fn apply(&mut self, new: Config, ways: Vec<(String, Arc<Way>)>) {
        for (name, way) in ways {
            for upstream in self.upstreams.iter().filter(|of| of.name() == name) {
                upstream.change(Arc::clone(&way));
            }
        }
        self.budget.set_limits(new.memory.limit, new.memory.spike);
        let mut routes = Vec::new();
        for pipeline in &new.pipelines {
            let exporter = new.exporters.get(pipeline.exporter);
            let same = |lane: &&Arc<Lane>| lane.signal == pipeline.signal;
            if let (Some(lane), Some(exporter)) = (self.lanes.iter().find(same), exporter) {
                lane.set_limits(exporter.queue);
                routes.push(Route {
                    lane: Arc::clone(lane),
                    edits: Edits::new(&pipeline.attributes),
                });
            }
        }
        self.door.change(Intake::new(
            routes,
            Arc::clone(&self.budget),
            self.door.places(),
            Arc::clone(&self.metrics),
            limits(&new.receiver),
            new.receiver.url_paths.clone(),
        ));
        self.report.relabel(&new);
        self.config = new;
    }
}

fn ways(
    changes: &Changes,
    new: &Config,
    age: Duration,
) -> Result<Vec<(String, Arc<Way>)>, Vec<Problem>> {
    let mut ways = Vec::new();
    let mut problems = Vec::new();
    for exporter in changes
        .exporters
        .iter()
        .filter_map(|&index| new.exporters.get(index))
    {
        match Way::new(exporter, age) {
            Ok(way) => ways.push((exporter.name(), way)),
            Err(error) => problems.push(Problem {
                path: format!("exporters.{}", exporter.id),
                message: error.to_string(),
            }),
        }
    }
    if problems.is_empty() {
        Ok(ways)
    } else {
        Err(problems)
    }
}
