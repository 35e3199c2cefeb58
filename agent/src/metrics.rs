//! Counters of what happens to telemetry, and their Prometheus text under the collector's names. The
//! books balance at all times: accepted = delivered + in queue + lost by reason. Must not know how
//! telemetry is received or sent.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::scan::Signal;

/// The transport a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Grpc, Self::Http];

    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its bytes are no OTLP request.
    Malformed,
    /// It is larger than the limit.
    TooLarge,
    /// The queue of its signal is full.
    QueueFull,
    /// The memory limit is reached.
    Memory,
    /// No such path, signal, encoding or method.
    Unsupported,
    /// The client went away or was too slow.
    Aborted,
}

/// Why acknowledged telemetry was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The upstream said that it will never take it.
    Permanent,
    /// The upstream took the request and rejected some of its items.
    Rejected,
    /// A single request is larger than the upstream takes.
    TooLarge,
    /// `max_elapsed_time` ran out, or retrying is switched off.
    GivenUp,
    /// The grace period of a shutdown ran out.
    Shutdown,
}

impl Refused {
    const ALL: [Self; 6] = [
        Self::Malformed,
        Self::TooLarge,
        Self::QueueFull,
        Self::Memory,
        Self::Unsupported,
        Self::Aborted,
    ];

    /// The value of the `reason` label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::QueueFull => "queue_full",
            Self::Memory => "memory_limit",
            Self::Unsupported => "unsupported",
            Self::Aborted => "aborted",
        }
    }
}

impl Lost {
    const ALL: [Self; 5] = [
        Self::Permanent,
        Self::Rejected,
        Self::TooLarge,
        Self::GivenUp,
        Self::Shutdown,
    ];

    /// The value of the `reason` label.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::GivenUp => "given_up",
            Self::Shutdown => "shutdown",
        }
    }
}

#[derive(Debug, Default)]
struct SignalCounts {
    accepted: [AtomicU64; 2],
    refused_items: [AtomicU64; 2],
    sent: AtomicU64,
    lost: [AtomicU64; 5],
    enqueue_failed: AtomicU64,
    memory_refused: AtomicU64,
    queue_items: AtomicU64,
    queue_bytes: AtomicU64,
    in_flight: AtomicU64,
}

/// Every counter of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: Instant,
    signals: [SignalCounts; 3],
    requests_refused: [[AtomicU64; 6]; 2],
    attempts_failed: AtomicU64,
    connections: AtomicU64,
    handshakes_failed: AtomicU64,
}

/// What a signal's books say, in items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Books {
    /// Acknowledged to clients.
    pub(crate) accepted: u64,
    /// Acknowledged by the upstream.
    pub(crate) delivered: u64,
    /// Held now.
    pub(crate) in_queue: u64,
    /// Gone, all reasons together.
    pub(crate) lost: u64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            signals: Default::default(),
            requests_refused: Default::default(),
            attempts_failed: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "every index is an enum's own position"
)]
impl Metrics {
    fn of(&self, signal: Signal) -> &SignalCounts {
        &self.signals[signal.index()]
    }

    /// Items are held from now on and will be acknowledged.
    pub(crate) fn accepted(
        &self,
        signal: Signal,
        transport: Transport,
        items: usize,
        bytes: usize,
    ) {
        let counts = self.of(signal);
        add(&counts.accepted[transport as usize], items as u64);
        add(&counts.queue_items, items as u64);
        add(&counts.queue_bytes, bytes as u64);
    }

    /// A request was refused; `items` as far as they are known.
    pub(crate) fn refused(
        &self,
        signal: Option<Signal>,
        transport: Transport,
        reason: Refused,
        items: usize,
    ) {
        add(
            &self.requests_refused[transport as usize][reason as usize],
            1,
        );
        if let Some(signal) = signal {
            let counts = self.of(signal);
            add(&counts.refused_items[transport as usize], items as u64);
            match reason {
                Refused::QueueFull => add(&counts.enqueue_failed, items as u64),
                Refused::Memory => add(&counts.memory_refused, items as u64),
                _ => {}
            }
        }
    }

    /// The upstream has taken items.
    pub(crate) fn delivered(&self, signal: Signal, items: u64) {
        add(&self.of(signal).sent, items);
    }

    /// Acknowledged items are gone.
    pub(crate) fn lost(&self, signal: Signal, reason: Lost, items: u64) {
        add(&self.of(signal).lost[reason as usize], items);
    }

    /// Items are no longer held; their delivery or loss has been counted.
    pub(crate) fn released(&self, signal: Signal, items: u64, bytes: u64) {
        let counts = self.of(signal);
        counts.queue_items.fetch_sub(items, Ordering::Relaxed);
        counts.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An attempt to send failed and will be made again.
    pub(crate) fn attempt_failed(&self) {
        add(&self.attempts_failed, 1);
    }

    /// A request to the upstream begins or has ended.
    pub(crate) fn in_flight(&self, signal: Signal, begins: bool) {
        let counter = &self.of(signal).in_flight;
        if begins {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            counter.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A client connection was accepted.
    pub(crate) fn connected(&self) {
        add(&self.connections, 1);
    }

    /// A client connection ended before TLS was agreed on.
    pub(crate) fn handshake_failed(&self) {
        add(&self.handshakes_failed, 1);
    }

    /// The books of one signal.
    pub(crate) fn books(&self, signal: Signal) -> Books {
        let counts = self.of(signal);
        Books {
            accepted: counts.accepted.iter().map(get).sum(),
            delivered: get(&counts.sent),
            in_queue: get(&counts.queue_items),
            lost: counts.lost.iter().map(get).sum(),
        }
    }

    /// Items lost by reason, all signals; reasons without losses left out.
    pub(crate) fn losses(&self) -> Vec<(Signal, &'static str, u64)> {
        let mut losses = Vec::new();
        for signal in Signal::ALL {
            for reason in Lost::ALL {
                let items = get(&self.of(signal).lost[reason as usize]);
                if items > 0 {
                    losses.push((signal, reason.reason(), items));
                }
            }
        }
        losses
    }
}

/// What the text needs to know beside the counters.
pub(crate) struct Labels<'a> {
    /// Signals with a pipeline: id of its exporter, capacity of its queue in bytes.
    pub(crate) pipelines: &'a [(Signal, String, usize)],
    /// Leave `_total` off counters.
    pub(crate) without_type_suffix: bool,
    /// Leave `_bytes` and `_seconds` off.
    pub(crate) without_units: bool,
    /// Bytes of telemetry held, and the limit above which it is refused.
    pub(crate) memory: (usize, usize),
}

struct Text<'a> {
    out: String,
    labels: &'a Labels<'a>,
}

impl Text<'_> {
    fn counter(&mut self, name: &str, unit: &str, series: &[(String, u64)]) {
        let total = if self.labels.without_type_suffix {
            ""
        } else {
            "_total"
        };
        self.family(
            &format!("{name}{}{total}", self.unit(unit)),
            "counter",
            series,
        );
    }

    fn gauge(&mut self, name: &str, unit: &str, series: &[(String, u64)]) {
        self.family(&format!("{name}{}", self.unit(unit)), "gauge", series);
    }

    fn unit<'u>(&self, unit: &'u str) -> &'u str {
        if self.labels.without_units { "" } else { unit }
    }

    fn family(&mut self, name: &str, kind: &str, series: &[(String, u64)]) {
        if series.is_empty() {
            return;
        }
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(self.out, "{name}{labels} {value}");
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "every index is an enum's own position"
)]
impl Metrics {
    /// Prometheus text format 0.0.4.
    pub(crate) fn text(&self, labels: &Labels<'_>) -> String {
        let mut text = Text {
            out: String::with_capacity(4096),
            labels,
        };
        self.receiver(&mut text);
        for (signal, exporter, _) in labels.pipelines {
            self.exporter(&mut text, *signal, exporter);
        }
        self.queues(&mut text);
        self.process(&mut text);
        text.out
    }

    fn receiver(&self, text: &mut Text<'_>) {
        for (signal, _, _) in text.labels.pipelines {
            let counts = self.of(*signal);
            let items = signal.items();
            let series = |counters: &[AtomicU64; 2]| {
                Transport::ALL.map(|transport| {
                    let labels =
                        format!("{{receiver=\"otlp\",transport=\"{}\"}}", transport.name());
                    (labels, get(&counters[transport as usize]))
                })
            };
            let accepted = series(&counts.accepted);
            let refused = series(&counts.refused_items);
            text.counter(&format!("otelcol_receiver_accepted_{items}"), "", &accepted);
            text.counter(&format!("otelcol_receiver_refused_{items}"), "", &refused);
            let memory = [(
                "{processor=\"memory_limiter\"}".to_owned(),
                get(&counts.memory_refused),
            )];
            let name = format!("otelcol_processor_memory_limiter_refused_{items}");
            text.counter(&name, "", &memory);
        }
        let mut refused = Vec::new();
        for transport in Transport::ALL {
            for reason in Refused::ALL {
                let labels = format!(
                    "{{reason=\"{}\",transport=\"{}\"}}",
                    reason.reason(),
                    transport.name()
                );
                let value = get(&self.requests_refused[transport as usize][reason as usize]);
                refused.push((labels, value));
            }
        }
        text.counter("otelagent_refused_requests", "", &refused);
    }

    fn exporter(&self, text: &mut Text<'_>, signal: Signal, id: &str) {
        let counts = self.of(signal);
        let items = signal.items();
        let label = format!("{{exporter=\"{id}\"}}");
        let failed: u64 = counts.lost.iter().map(get).sum();
        let one = |value| [(label.clone(), value)];
        text.counter(
            &format!("otelcol_exporter_sent_{items}"),
            "",
            &one(get(&counts.sent)),
        );
        text.counter(
            &format!("otelcol_exporter_send_failed_{items}"),
            "",
            &one(failed),
        );
        let enqueue = get(&counts.enqueue_failed);
        text.counter(
            &format!("otelcol_exporter_enqueue_failed_{items}"),
            "",
            &one(enqueue),
        );
        let lost: Vec<_> = Lost::ALL
            .into_iter()
            .map(|reason| {
                let labels = format!("{{exporter=\"{id}\",reason=\"{}\"}}", reason.reason());
                (labels, get(&counts.lost[reason as usize]))
            })
            .collect();
        text.counter(&format!("otelagent_lost_{items}"), "", &lost);
        text.gauge(
            &format!("otelagent_queue_{items}"),
            "",
            &one(get(&counts.queue_items)),
        );
    }

    fn queues(&self, text: &mut Text<'_>) {
        let series = |value: &dyn Fn(Signal, usize) -> u64| -> Vec<(String, u64)> {
            text.labels
                .pipelines
                .iter()
                .map(|(signal, id, capacity)| {
                    let labels = format!("{{data_type=\"{}\",exporter=\"{id}\"}}", signal.name());
                    (labels, value(*signal, *capacity))
                })
                .collect()
        };
        let size = series(&|signal, _| get(&self.of(signal).queue_bytes));
        let capacity = series(&|_, capacity| capacity as u64);
        let in_flight = series(&|signal, _| get(&self.of(signal).in_flight));
        text.gauge("otelcol_exporter_queue_size", "", &size);
        text.gauge("otelcol_exporter_queue_capacity", "", &capacity);
        text.gauge("otelcol_exporter_in_flight_requests", "", &in_flight);
        let failed = [(String::new(), get(&self.attempts_failed))];
        text.counter("otelagent_exporter_failed_attempts", "", &failed);
    }

    fn process(&self, text: &mut Text<'_>) {
        let one = |value| [(String::new(), value)];
        let (held, limit) = text.labels.memory;
        text.gauge("otelagent_memory_held", "_bytes", &one(held as u64));
        text.gauge("otelagent_memory_limit", "_bytes", &one(limit as u64));
        text.counter("otelagent_connections", "", &one(get(&self.connections)));
        let failed = one(get(&self.handshakes_failed));
        text.counter("otelagent_tls_handshakes_failed", "", &failed);
        text.counter(
            "otelcol_process_uptime",
            "_seconds",
            &one(self.started.elapsed().as_secs()),
        );
        if let Some((rss, cpu)) = process_usage() {
            text.gauge("otelcol_process_memory_rss", "_bytes", &one(rss));
            text.counter("otelcol_process_cpu_seconds", "", &one(cpu));
        }
    }
}

/// Resident bytes and CPU seconds from `/proc/self`; absent where there is no such file system.
fn process_usage() -> Option<(u64, u64)> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command name in parentheses may hold spaces.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux reports both in units of 4 KiB pages and 100 Hz ticks to every process on the
    // architectures this runs on.
    Some((pages * 4096, (user + system) / 100))
}
