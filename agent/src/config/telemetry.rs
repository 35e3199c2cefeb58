//! `service.telemetry`: what the agent reports about itself.

use super::model::{
    Address, LogEncoding, LogLevel, LogOutput, MetricsPush, MetricsReader, Telemetry,
};
use super::push;
use super::section::Section;
use super::tree::Node;

pub(super) fn read(section: &Section<'_>) -> Telemetry {
    let logs = section.section("logs");
    let (metrics, push) = readers(&section.section("metrics"));
    Telemetry {
        metrics,
        push,
        resource: resource(&section.section("resource")),
        log_level: match logs.get::<String>("level").as_str() {
            "debug" => LogLevel::Debug,
            "warn" => LogLevel::Warn,
            "error" => LogLevel::Error,
            _ => LogLevel::Info,
        },
        log_encoding: match logs.get::<String>("encoding").as_str() {
            "json" => LogEncoding::Json,
            _ => LogEncoding::Console,
        },
        log_output: log_output(&logs),
    }
}

fn log_output(logs: &Section<'_>) -> LogOutput {
    match logs.ids("output_paths").as_slice() {
        [] | [(_, "stderr")] => LogOutput::Stderr,
        [(_, "stdout")] => LogOutput::Stdout,
        _ => {
            logs.problem("output_paths", "only [stderr] and [stdout] are supported");
            LogOutput::Stderr
        }
    }
}

/// The readers that are in use.
fn readers(metrics: &Section<'_>) -> (Option<MetricsReader>, Option<MetricsPush>) {
    let list = metrics.section("readers");
    let readers = list.items();
    let (mut pulls, mut pushes) = (Vec::new(), Vec::new());
    for reader in &readers {
        let (pull, periodic) = (reader.section("pull"), reader.section("periodic"));
        match (pull.is_present(), periodic.is_present()) {
            (true, true) => {
                reader.problem("", "has both pull and periodic; make two readers of it");
            }
            (false, false) => reader.problem("", "is no reader; write pull or periodic"),
            _ => {}
        }
        pulls.extend(pull.is_present().then(|| pull_reader(&pull, false)));
        pushes.extend(periodic.is_present().then(|| push::read(&periodic)));
    }
    for (kind, count) in [("pull", pulls.len()), ("periodic", pushes.len())] {
        if count > 1 {
            metrics.problem(
                "readers",
                format!("more than one {kind} reader is not supported"),
            );
        }
    }
    if readers.is_empty() {
        // The collector's default reader, which applies if the file has none, leaves all suffixes off.
        pulls.push(pull_reader(&list.section("pull"), true));
    }
    if metrics.get::<String>("level") == "none" {
        return (None, None);
    }
    (pulls.into_iter().next(), pushes.into_iter().next())
}

fn pull_reader(pull: &Section<'_>, is_default: bool) -> MetricsReader {
    let prometheus = pull.section("exporter").section("prometheus");
    let is_left_off = |name| is_default || prometheus.get(name);
    MetricsReader {
        listen: Address {
            host: without_brackets(&prometheus.get::<String>("host")).to_owned(),
            port: prometheus.get("port"),
        },
        without_type_suffix: is_left_off("without_type_suffix"),
        without_units: is_left_off("without_units"),
    }
}

/// Keys of the declarative form, which the collector takes too.
const DECLARATIVE: [&str; 5] = [
    "attributes",
    "attributes_list",
    "detection/development",
    "detectors",
    "schema_url",
];

/// An attribute without a value is left out, even if it is one of the agent's own.
fn resource(section: &Section<'_>) -> Vec<(String, Option<String>)> {
    let mut attributes = Vec::new();
    for (name, node) in section.entries() {
        if DECLARATIVE.contains(&name.as_str()) {
            let message = "is not supported; write the attributes themselves, as in `resource: {k8s.node.name: a}`";
            section.problem(name, message);
        } else if *node == Node::Null {
            attributes.push((name.clone(), None));
        } else if let Some(text) = node.text() {
            attributes.push((name.clone(), Some(text.to_owned())));
        } else {
            let kind = node.kind();
            section.problem(name, format!("expected a string, found {kind}"));
        }
    }
    attributes
}

/// The collector joins host and port with a colon, so an IPv6 address has brackets.
fn without_brackets(host: &str) -> &str {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host)
}
