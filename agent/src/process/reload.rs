//! Applies a changed configuration to the running agent, completely or not at all.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::agent::{Agent, beside_compressor, bounded, export_reserve, route};
use super::log::Log;
use super::push::Target;
use crate::config::{self, Changes, Config, Memory, MetricsPush, PUSH_READER, Problem};
use crate::export::{Destination, MissingFiles};
use crate::lock::lock;
use crate::logging::causes;
use crate::metrics::Reload;
use crate::queue::Lane;
use crate::receive::{ReceiverRules, connection_memory};

/// How many problems `/delivery` names.
const NAMED: usize = 3;

/// What the next configuration is compared with.
#[derive(Clone)]
pub(super) struct ConfigPreparation {
    current: Arc<Config>,
    upstream_age: Duration,
    /// Where the metrics are pushed now.
    target: Option<Arc<Target>>,
}

/// A configuration that can be applied, with everything that it needs from files.
pub(super) struct PreparedConfig {
    new: Config,
    changes: Changes,
    /// Those of changed exporters, by name.
    destinations: Vec<(String, Arc<Destination>)>,
    rules: ReceiverRules,
    target: Option<Arc<Target>>,
}

impl ConfigPreparation {
    /// Reads the files that a configuration names, which may take long.
    ///
    /// # Errors
    /// What prevents the configuration from being applied.
    pub(super) fn prepare(&self, new: Config) -> Result<PreparedConfig, Vec<Problem>> {
        let changes = config::changes(&self.current, &new)?;
        let destinations = destinations(&changes, &new, self.upstream_age)?;
        let rules = rules(&new)?;
        let target = self.push_target(new.telemetry.push.as_ref())?;
        Ok(PreparedConfig {
            new,
            changes,
            destinations,
            rules,
            target,
        })
    }

    fn push_target(
        &self,
        settings: Option<&MetricsPush>,
    ) -> Result<Option<Arc<Target>>, Vec<Problem>> {
        let target = settings.map(|settings| {
            Target::after(self.target.as_ref(), settings, self.upstream_age).map_err(|error| {
                vec![Problem {
                    path: PUSH_READER.to_owned(),
                    message: causes(&error),
                }]
            })
        });
        target.transpose()
    }
}

impl Agent {
    /// For the next configuration.
    pub(super) fn preparation(&self) -> ConfigPreparation {
        ConfigPreparation {
            current: Arc::clone(&self.config),
            upstream_age: self.upstream_age,
            target: self.pusher.in_use(),
        }
    }

    /// Applies the changes of a configuration; keeps the current one if it cannot be applied.
    pub(super) fn reload(
        &mut self,
        prepared: Result<PreparedConfig, Vec<Problem>>,
        fingerprint: u64,
        log: &Log,
    ) {
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(problems) => {
                for problem in &problems {
                    error!(path = problem.path, "configuration refused: {problem}");
                }
                *lock(&self.report.refused) = Some(places(&problems));
                self.report.metrics.reloaded(Reload::Refused);
                return;
            }
        };
        *lock(&self.report.refused) = None;
        for warning in &prepared.new.warnings {
            warn!("{warning}");
        }
        self.report.metrics.configured(fingerprint);
        let changed = prepared.changes.paths.join(", ");
        let result = if changed.is_empty() {
            Reload::Unchanged
        } else {
            log.set_level(prepared.new.telemetry.log_level);
            self.apply(prepared);
            Reload::Applied
        };
        self.report.metrics.reloaded(result);
        info!(changed, "configuration read");
    }

    fn apply(&mut self, prepared: PreparedConfig) {
        let PreparedConfig {
            new,
            destinations,
            rules,
            target,
            ..
        } = prepared;
        self.pusher.change(target);
        for (name, destination) in destinations {
            for upstream in self.report.upstreams.iter().filter(|of| of.name() == name) {
                upstream.change(Arc::clone(&destination));
            }
        }
        let Memory { limit, spike } = beside_compressor(&new);
        let budget = &self.report.budget;
        budget.set_limits(limit, spike, connection_memory(new.memory.limit));
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

/// Where the first problems are.
fn places(problems: &[Problem]) -> String {
    let place = |problem: &Problem| match problem.path.as_str() {
        "" => "the whole file".to_owned(),
        path => path.to_owned(),
    };
    let places: Vec<String> = problems.iter().take(NAMED).map(place).collect();
    places.join(", ")
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
        match Destination::new(exporter, age, MissingFiles::Refuse) {
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
