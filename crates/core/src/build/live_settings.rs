//! Which settings a running agent takes over, and which it reads only when it starts.
//!
//! The bundled agent decides it (`agent/src/config/changes.rs`) and refuses a file that changes anything else. So
//! the live settings are listed here, and whatever is not listed replaces agents when it changes.

use serde_json::{Map, Value};

/// Settings of an exporter. Its queue is another matter, see [`queue_at_start`].
const EXPORTER: [&str; 6] = [
    "compression",
    "endpoint",
    "headers",
    "retry_on_failure",
    "timeout",
    "tls",
];

/// Settings of a queue on disk.
const DISK_QUEUE: [&str; 2] = ["batch", "num_consumers"];

/// A configuration without its live settings.
pub(super) fn at_start(config: &Value) -> Value {
    let mut rest = config.clone();
    take(&mut rest, "", &["processors"]);
    each(&mut rest, "/service/pipelines", |pipeline| {
        take(pipeline, "", &["processors"]);
    });
    take(&mut rest, "/service/telemetry", &["resource"]);
    take(&mut rest, "/service/telemetry/logs", &["level"]);
    each(&mut rest, "/exporters", |exporter| {
        take(exporter, "", &EXPORTER);
        queue_at_start(exporter);
    });
    rest
}

/// A queue in memory is live. One on disk stays where it is and as large as it is.
fn queue_at_start(exporter: &mut Value) {
    if exporter["sending_queue"]["storage"].is_string() {
        take(exporter, "/sending_queue", &DISK_QUEUE);
    } else {
        take(exporter, "", &["sending_queue"]);
    }
}

fn take(config: &mut Value, at: &str, keys: &[&str]) {
    if let Some(section) = section(config, at) {
        section.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

fn each(config: &mut Value, at: &str, change: impl Fn(&mut Value)) {
    let section = section(config, at).into_iter();
    section.flat_map(Map::values_mut).for_each(change);
}

fn section<'a>(config: &'a mut Value, at: &str) -> Option<&'a mut Map<String, Value>> {
    config.pointer_mut(at)?.as_object_mut()
}
