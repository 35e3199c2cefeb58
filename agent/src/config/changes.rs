//! What a new configuration changes about the one in use, and whether the agent can apply that while it runs.

use super::model::{Config, Exporter, Pipeline, ReceiverConfig, Telemetry};
use super::problem::Problem;
use super::push::PUSH_READER;
use otlp_wire::Signal;

/// What differs, if the agent can apply all of it while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths of the sections that differ, for people.
    pub paths: Vec<String>,
    /// Exporters that differ, as indices into the new [`Config::exporters`].
    pub exporters: Vec<usize>,
}

const LISTENS: &str = "what is listened on changes; that needs a restart";

/// Compares the configuration in use with a new one.
///
/// # Errors
/// Every change that needs a restart, by path. A change that is not known to be harmless needs one.
pub fn changes(old: &Config, new: &Config) -> Result<Changes, Vec<Problem>> {
    let mut found = Comparison::default();
    let receiver = format!("receivers.{}", old.receiver.id);
    let same_sockets = with_limits_of(&old.receiver, &new.receiver) == old.receiver;
    found.frozen(&receiver, !same_sockets, LISTENS);
    found.free(&receiver, old.receiver != new.receiver);
    found.free("processors.memory_limiter", old.memory != new.memory);
    found.exporters(old, new);
    found.frozen("extensions.health_check", old.health != new.health, LISTENS);
    found.pipelines(old, new);
    found.telemetry(&old.telemetry, &new.telemetry);
    // A section added to the configuration does not compile until it is compared here, too.
    let Config {
        receiver: _,
        pipelines: _,
        exporters: _,
        memory: _,
        health: _,
        telemetry: _,
        warnings: _,
    } = new;
    if found.problems.is_empty() {
        Ok(found.changes)
    } else {
        Err(found.problems)
    }
}

#[derive(Default)]
struct Comparison {
    changes: Changes,
    problems: Vec<Problem>,
}

impl Comparison {
    /// A difference that needs no restart.
    fn free(&mut self, path: &str, differs: bool) {
        if differs {
            self.changes.paths.push(path.to_owned());
        }
    }

    /// A difference that needs one.
    fn frozen(&mut self, path: &str, differs: bool, why: &str) {
        if differs {
            self.problems.push(Problem::new(path, why));
        }
    }

    fn exporters(&mut self, old: &Config, new: &Config) {
        for (index, after) in new.exporters.iter().enumerate() {
            let name = after.name();
            let Some(before) = old.exporters.iter().find(|before| before.name() == name) else {
                continue;
            };
            if before == after {
                continue;
            }
            let path = format!("exporters.{}", after.id);
            let is_resized =
                after.storage.is_some() && before.queue.capacity != after.queue.capacity;
            let moves = before.storage != after.storage || is_resized;
            let why = "where the queue is kept changes; that needs a restart";
            self.frozen(&format!("{path}.sending_queue"), moves, why);
            self.free(&path, true);
            self.changes.exporters.push(index);
        }
    }

    fn pipelines(&mut self, old: &Config, new: &Config) {
        let path = "service.pipelines";
        let why = "a pipeline is added or removed; that needs a restart";
        self.frozen(path, signals(old) != signals(new), why);
        for after in &new.pipelines {
            let same = |before: &&Pipeline| before.signal == after.signal;
            let Some(before) = old.pipelines.iter().find(same) else {
                continue;
            };
            let path = format!("{path}.{}", after.signal.name());
            let moves = exporter(old, before) != exporter(new, after);
            let why = "another exporter needs a restart";
            self.frozen(&format!("{path}.exporters"), moves, why);
            let edited =
                before.attributes != after.attributes || before.processors != after.processors;
            self.free(&format!("{path}.processors"), edited);
        }
    }

    fn telemetry(&mut self, old: &Telemetry, new: &Telemetry) {
        let path = "service.telemetry";
        let metrics = format!("{path}.metrics");
        self.frozen(&metrics, old.metrics != new.metrics, LISTENS);
        self.free(PUSH_READER, old.push != new.push);
        let resource = format!("{path}.resource");
        self.free(&resource, old.resource != new.resource);
        let rest = Telemetry {
            log_level: old.log_level,
            metrics: old.metrics.clone(),
            push: old.push.clone(),
            resource: old.resource.clone(),
            ..new.clone()
        };
        let why = "encoding and output_paths need a restart";
        self.frozen(&format!("{path}.logs"), rest != *old, why);
        let level = old.log_level != new.log_level;
        self.free(&format!("{path}.logs.level"), level);
    }
}

fn signals(config: &Config) -> [bool; Signal::COUNT] {
    Signal::ALL.map(|signal| config.pipelines.iter().any(|of| of.signal == signal))
}

fn exporter(config: &Config, pipeline: &Pipeline) -> Option<String> {
    config.exporters.get(pipeline.exporter).map(Exporter::name)
}

/// The new receiver, but for everything that can change.
fn with_limits_of(old: &ReceiverConfig, new: &ReceiverConfig) -> ReceiverConfig {
    ReceiverConfig {
        max_grpc_message: old.max_grpc_message,
        max_http_body: old.max_http_body,
        max_concurrent_streams: old.max_concurrent_streams,
        url_paths: old.url_paths.clone(),
        connections: old.connections,
        auth: old.auth.clone(),
        cors: old.cors.clone(),
        ..new.clone()
    }
}

/// FNV-1a of a text: tells configurations apart, on every machine alike.
pub fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
