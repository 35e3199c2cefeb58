//! Applies a changed configuration to the running agent, completely or not at all.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::agent::{Agent, bounded, export_reserve, route};
use super::log::Level;
use super::push::Target;
use crate::config::{self, Changes, Config, Memory, PUSH_READER, Problem};
use crate::export::Destination;
use crate::lock::lock;
use crate::logging::causes;
use crate::metrics::Reload;
use crate::queue::Lane;
use crate::receive::{ReceiverRules, connection_memory};

impl Agent {
    /// Applies the changes of a configuration; keeps the current one if that fails.
    pub(super) fn reload(
        &mut self,
        read: Result<Config, Vec<Problem>>,
        fingerprint: u64,
        level: &Level,
    ) {
        let result = read.and_then(|new| {
            let changes = config::changes(&self.config, &new)?;
            let destinations = destinations(&changes, &new, self.upstream_age)?;
            let rules = rules(&new)?;
            let target = self.push_target(&new)?;
            Ok((new, changes, destinations, rules, target))
        });
        let (new, changes, destinations, rules, target) = match result {
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
        self.report.metrics.configured(fingerprint);
        let result = if changes.paths.is_empty() {
            Reload::Unchanged
        } else {
            level.set(new.telemetry.log_level);
            self.pusher.change(target);
            self.apply(new, destinations, rules);
            Reload::Applied
        };
        self.report.metrics.reloaded(result);
        info!(changed = changes.paths.join(", "), "configuration read");
    }

    fn push_target(&self, new: &Config) -> Result<Option<Arc<Target>>, Vec<Problem>> {
        let target = (self.pusher).target(new.telemetry.push.as_ref(), self.upstream_age);
        target.map_err(|error| {
            vec![Problem {
                path: PUSH_READER.to_owned(),
                message: causes(&error),
            }]
        })
    }

    /// Applies a configuration; `destinations` are those of changed exporters, by name.
    fn apply(
        &mut self,
        new: Config,
        destinations: Vec<(String, Arc<Destination>)>,
        rules: ReceiverRules,
    ) {
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
                routes.push(route(Arc::clone(lane), pipeline, reserve));
            }
        }
        self.server.change(routes, rules);
        self.config = Arc::new(new);
        *lock(&self.report.config) = Arc::clone(&self.config);
    }
}

fn rules(new: &Config) -> Result<ReceiverRules, Vec<Problem>> {
    ReceiverRules::new(&new.receiver).map_err(|error| {
        let id = new.receiver.auth.as_ref().map_or("", |auth| &auth.id);
        vec![Problem {
            path: format!("extensions.{id}"),
            message: causes(&error),
        }]
    })
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
