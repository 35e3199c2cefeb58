//! `service.telemetry`: what the agent reports about itself.

use super::model::{Address, LogEncoding, LogLevel, LogOutput, MetricsReader, Telemetry};
use super::section::Section;

pub(super) fn read(section: &Section<'_>) -> Telemetry {
    let logs = section.section("logs");
    Telemetry {
        metrics: metrics_reader(&section.section("metrics")),
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

/// `None` if the port stays closed.
fn metrics_reader(metrics: &Section<'_>) -> Option<MetricsReader> {
    let list = metrics.section("readers");
    let readers = list.items();
    if readers.len() > 1 {
        metrics.problem("readers", "more than one reader is not supported");
    }
    let reader = readers.first().unwrap_or(&list);
    let prometheus = reader
        .section("pull")
        .section("exporter")
        .section("prometheus");
    if !readers.is_empty() && !prometheus.is_present() {
        let message = "is missing; it is the only supported reader";
        reader.problem("pull.exporter.prometheus", message);
    }
    // The collector's own reader, which applies without any in the file, leaves all suffixes off.
    let is_left_off = |name| readers.is_empty() || prometheus.get(name);
    let reader = MetricsReader {
        listen: Address {
            host: without_brackets(&prometheus.get::<String>("host")).to_owned(),
            port: prometheus.get("port"),
        },
        without_type_suffix: is_left_off("without_type_suffix"),
        without_units: is_left_off("without_units"),
    };
    Some(reader).filter(|_| metrics.get::<String>("level") != "none")
}

/// The collector joins host and port with a colon, so an IPv6 address has brackets.
fn without_brackets(host: &str) -> &str {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host)
}
