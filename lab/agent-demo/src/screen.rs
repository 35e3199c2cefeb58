//! What people see: a few lines drawn anew every second, or a line a second where there is no terminal.
//! Must not know where numbers come from.

use std::collections::HashMap;
use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use std::time::Instant;

use crate::sink::Arrived;

/// Everything known at one moment.
pub(crate) struct Moment {
    /// The agent's metrics.
    pub(crate) metrics: HashMap<String, f64>,
    /// Spans the load has had acknowledged.
    pub(crate) acknowledged: u64,
    /// Requests of the load that were refused.
    pub(crate) refused: u64,
    pub(crate) arrived: Arrived,
    pub(crate) at: Instant,
}

impl Moment {
    fn metric(&self, name: &str) -> f64 {
        self.metrics.get(name).copied().unwrap_or_default()
    }
}

/// The terminal.
pub(crate) struct Screen {
    title: String,
    is_terminal: bool,
    drawn: usize,
    before: Option<Moment>,
}

impl Screen {
    pub(crate) fn new(pid: u32, clients: u32, agent: SocketAddr, sink: SocketAddr) -> Self {
        Self {
            title: format!("{clients} clients > agent (pid {pid}, {agent}) > sink ({sink})"),
            is_terminal: stdout().is_terminal(),
            drawn: 0,
            before: None,
        }
    }

    pub(crate) fn show(&mut self, now: Moment) {
        let lines = self.lines(&now);
        if self.is_terminal {
            // Up to the first line drawn last time, and clear from there.
            if self.drawn > 0 {
                print!("\x1b[{}A\x1b[J", self.drawn);
            }
            println!(
                "{}\n\n{}\n\nCtrl-C ends all of it.",
                self.title,
                lines.join("\n")
            );
            self.drawn = lines.len() + 4;
        } else {
            let squeezed = lines.iter().map(|line| {
                let words: Vec<_> = line.split_whitespace().collect();
                words.join(" ")
            });
            println!("{}", squeezed.collect::<Vec<_>>().join("; "));
        }
        self.before = Some(now);
    }

    fn lines(&self, now: &Moment) -> Vec<String> {
        let rate = |value: &dyn Fn(&Moment) -> f64| {
            let Some(before) = &self.before else {
                return 0.0;
            };
            let seconds = now.at.duration_since(before.at).as_secs_f64();
            (value(now) - value(before)) / seconds
        };
        let of = |name: &'static str| move |moment: &Moment| moment.metric(name);
        let plain = now.metric("otelagent_exporter_plain_bytes_total");
        let wire = now.metric("otelagent_exporter_wire_bytes_total").max(1.0);
        let accepted = of("otelcol_receiver_accepted_spans_total");
        let batches = of("otelcol_exporter_queue_batch_send_size_count");
        let cpu = of("otelcol_process_cpu_seconds_total");
        let mib = now.metric("otelcol_process_memory_rss_bytes") / 1024.0 / 1024.0;
        vec![
            format!(
                "spans in      {:>10.0}/s {:>12} total",
                rate(&accepted),
                now.acknowledged
            ),
            format!(
                "spans out     {:>10.0}/s {:>12} total",
                rate(&of("otelcol_exporter_sent_spans_total")),
                now.arrived.spans
            ),
            format!(
                "batches out   {:>10.1}/s {:>12} total",
                rate(&batches),
                now.arrived.requests
            ),
            format!("refused       {:>10} requests", now.refused),
            format!(
                "waiting       {:>10} spans",
                now.metric("otelagent_queue_spans")
            ),
            format!("compression   {:>10.1} : 1", plain / wire),
            format!("memory        {mib:>10.1} MiB resident"),
            format!("CPU           {:>10.1} % of one core", 100.0 * rate(&cpu)),
            format!(
                "unaccounted   {:>10} spans",
                now.metric("otelagent_books_imbalance")
            ),
        ]
    }
}
