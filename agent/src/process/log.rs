//! The log: one subscriber for the process, with a changeable level.

use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogEncoding, LogLevel, LogOutput, Telemetry};

/// The handle to change the level later.
pub(super) struct Level(reload::Handle<LevelFilter, Registry>);

impl Level {
    pub(super) fn set(&self, level: LogLevel) {
        // Fails only after the end of the subscriber, which lives as long as the process.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

pub(super) fn start(telemetry: &Telemetry) -> Level {
    let (level, handle) = reload::Layer::new(filter(telemetry.log_level));
    let writer = match telemetry.log_output {
        LogOutput::Stderr => BoxMakeWriter::new(std::io::stderr),
        LogOutput::Stdout => BoxMakeWriter::new(std::io::stdout),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(writer);
    // Only our own lines: otherwise a client that violates HTTP/2 could fill the log.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::TRACE);
    let registry = tracing_subscriber::registry().with(level).with(ours);
    match telemetry.log_encoding {
        LogEncoding::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogEncoding::Console => registry.with(lines).init(),
    }
    Level(handle)
}
