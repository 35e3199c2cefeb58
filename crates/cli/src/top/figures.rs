//! Reads an agent's metrics, the text format of Prometheus.

use std::collections::BTreeMap;

/// The figures of one agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Items that it acknowledged: spans, points, records and samples.
    pub accepted: f64,
    /// Items that the upstream took.
    pub sent: f64,
    /// Items that it lost after it had acknowledged them.
    pub lost: f64,
    /// Requests that it refused.
    pub refused: f64,
    /// Bytes that wait.
    pub queued: f64,
    /// Bytes that may wait.
    pub capacity: f64,
    /// Processor time, in seconds.
    pub cpu: f64,
    /// Resident memory, in bytes.
    pub resident: f64,
    /// Seconds since its start.
    pub uptime: f64,
    /// Seconds since which every attempt has failed, of the exporter that is worst.
    pub failing: f64,
    /// Bytes held, and requests refused, by sender.
    pub senders: BTreeMap<String, (f64, f64)>,
}

impl Figures {
    /// Reads the text; `None` if it is not that of an agent.
    pub fn read(text: &str) -> Option<Self> {
        let mut read = Self::default();
        let mut is_agent = false;
        for line in text.lines() {
            let Some((name, labels, value)) = sample(line) else {
                continue;
            };
            is_agent |= read.take(name, labels, value);
        }
        is_agent.then_some(read)
    }

    /// Notes a sample; whether it is one that every agent has.
    fn take(&mut self, name: &str, labels: &str, value: f64) -> bool {
        // A reader may be configured to write suffixes of units and types.
        let name = name.strip_suffix("_total").unwrap_or(name);
        let name = ["_bytes", "_seconds"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .filter(|name| !name.ends_with("cpu"))
            .unwrap_or(name);
        let sum = match name {
            _ if name.starts_with("otelcol_receiver_accepted_") => &mut self.accepted,
            _ if name.starts_with("otelcol_exporter_sent_") => &mut self.sent,
            _ if name.starts_with("otelagent_lost_") => &mut self.lost,
            "otelagent_refused_requests" => &mut self.refused,
            "otelcol_exporter_queue_size" => &mut self.queued,
            "otelcol_exporter_queue_capacity" => &mut self.capacity,
            "otelcol_process_cpu_seconds" => &mut self.cpu,
            "otelcol_process_memory_rss" => &mut self.resident,
            "otelcol_process_uptime" => {
                self.uptime = value;
                return true;
            }
            "otelagent_exporter_failing" => {
                self.failing = self.failing.max(value);
                return false;
            }
            "otelagent_sender_held" => &mut self.senders.entry(sender(labels)).or_default().0,
            "otelagent_sender_refused_requests" => {
                &mut self.senders.entry(sender(labels)).or_default().1
            }
            _ => return false,
        };
        *sum += value;
        false
    }
}

/// Name, labels and value of a line; `None` for comments and what is no sample.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.trim().rsplit_once(' ')?;
    let value: f64 = value.parse().ok()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end().strip_suffix('}')?),
        None => (series, ""),
    };
    value.is_finite().then_some((name, labels, value))
}

/// The label `sender`, which holds an address or a word.
fn sender(labels: &str) -> String {
    let of = labels.split("sender=\"").nth(1).unwrap_or_default();
    of.split('"').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP otelcol_receiver_accepted_spans Acknowledged items.
otelcol_receiver_accepted_spans{receiver=\"otlp\",transport=\"grpc\"} 10
otelcol_receiver_accepted_spans{receiver=\"otlp\",transport=\"http\"} 5
otelcol_receiver_accepted_log_records{receiver=\"otlp\",transport=\"http\"} 1
otelcol_exporter_sent_spans{exporter=\"otlp\"} 12
otelagent_lost_spans{exporter=\"otlp\",reason=\"permanent\"} 1
otelcol_exporter_queue_size{data_type=\"traces\",exporter=\"otlp\"} 100
otelcol_exporter_queue_capacity{data_type=\"traces\",exporter=\"otlp\"} 1000
otelagent_sender_held{sender=\"10.0.0.7\"} 64
otelagent_sender_refused_requests{sender=\"10.0.0.7\"} 3
otelagent_exporter_failing{exporter=\"a\"} 0
otelagent_exporter_failing{exporter=\"b\"} 61
otelcol_process_cpu_seconds 1.5
otelcol_process_memory_rss 4096
otelcol_process_uptime 30
";

    #[test]
    fn figures_are_sums_over_signals_transports_and_exporters() {
        let read = Figures::read(TEXT).unwrap();
        assert_eq!((read.accepted, read.sent, read.lost), (16.0, 12.0, 1.0));
        assert_eq!(
            (read.queued, read.capacity, read.failing),
            (100.0, 1000.0, 61.0)
        );
        assert_eq!((read.cpu, read.resident, read.uptime), (1.5, 4096.0, 30.0));
        assert_eq!(read.senders["10.0.0.7"], (64.0, 3.0));
    }

    #[test]
    fn names_with_suffixes_mean_the_same() {
        let suffixed = TEXT
            .replace("_spans{", "_spans_total{")
            .replace("_log_records{", "_log_records_total{")
            .replace("sender_held{", "sender_held_bytes{")
            .replace("refused_requests{", "refused_requests_total{")
            .replace("failing{", "failing_seconds{")
            .replace("cpu_seconds ", "cpu_seconds_total ")
            .replace("memory_rss ", "memory_rss_bytes ")
            .replace("uptime ", "uptime_seconds_total ");
        assert_eq!(Figures::read(&suffixed), Figures::read(TEXT));
    }

    #[test]
    fn other_text_is_no_agent() {
        for text in [
            "",
            "<html>",
            "go_goroutines 7\n",
            "x{ 1",
            "{} NaN",
            "a{sender=\"} 1",
        ] {
            assert_eq!(Figures::read(text), None, "{text}");
        }
    }
}
