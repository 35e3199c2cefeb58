//! Structured logs: one JSON object per line, object keys as fields, on standard error.
//!
//! The operator handles other people's data, so no log line contains a request, a response or a Secret.

use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use super::ProcessError;

/// The client library logs bodies that it cannot read, at level warn. The operator gets the same error as a
/// value, with the object's key, and logs that.
const LOGS_BODIES: &str = "kube_client::client";

/// Sets up logging for the whole process; `directives` as in `info` or `info,kube_runtime=debug`.
pub fn init(directives: &str) -> Result<(), ProcessError> {
    let layer = layer(directives, std::io::stderr)?;
    Registry::default()
        .with(layer)
        .try_init()
        .map_err(ProcessError::LogsSetUp)
}

fn layer<S, W>(directives: &str, writer: W) -> Result<impl Layer<S>, ProcessError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let wanted: Targets = directives
        .parse()
        .map_err(|source| ProcessError::LogLevel {
            directives: directives.into(),
            source,
        })?;
    let lines = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false);
    Ok(lines
        .with_writer(writer)
        .with_filter(wanted.with_target(LOGS_BODIES, LevelFilter::OFF)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(directives: &str, act: impl FnOnce()) -> Vec<serde_json::Value> {
        let memory = Memory::default();
        let writer = memory.clone();
        let subscriber =
            Registry::default().with(layer(directives, move || writer.clone()).unwrap());
        tracing::subscriber::with_default(subscriber, act);
        let bytes = memory.0.lock().unwrap();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn line_is_json_with_the_fields_at_its_top() {
        let lines = logged("info", || {
            tracing::info!(kind = "DaemonSet", name = "node", "applied");
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(
            [&line["kind"], &line["name"], &line["message"]],
            ["DaemonSet", "node", "applied"]
        );
    }

    #[test]
    fn what_the_client_library_logs_of_bodies_never_appears() {
        for directives in [
            "info",
            "trace",
            "kube_client=trace",
            "kube_client::client=trace",
        ] {
            let lines = logged(
                directives,
                || tracing::warn!(target: "kube_client::client", "secret body"),
            );
            assert!(lines.is_empty(), "{directives}: {lines:?}");
        }
    }

    #[test]
    fn wrong_level_is_refused_with_what_was_given() {
        let error = layer::<Registry, _>("loud=very", std::io::sink)
            .err()
            .unwrap();
        assert!(matches!(error, ProcessError::LogLevel { .. }));
        assert!(error.to_string().contains("loud=very"));
    }
}
