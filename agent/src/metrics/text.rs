//! The counters as Prometheus text (format 0.0.4), under the collector's names where it has one. Must
//! not know how they are counted.
//!
//! Written by hand, because `prometheus-client` writes `OpenMetrics`: it cannot leave `_total` off a counter, which the
//! collector's default reader does.

use std::fmt::{Display, Write as _};
use std::sync::atomic::AtomicU64;

use otlp_wire::Signal;

use super::counters::{
    BYTE_BOUNDS, Histogram, ITEM_BOUNDS, Lost, Metrics, Refused, Reload, SignalCounts, Transport,
    get,
};
use super::process::Usage;

/// What the text needs to know beside the counters.
pub(crate) struct Labels<'a> {
    /// Id of the receiver.
    pub(crate) receiver: &'a str,
    /// Signals with a pipeline.
    pub(crate) pipelines: &'a [PipelineLabels],
    /// Leave `_total` off counters.
    pub(crate) without_type_suffix: bool,
    /// Leave `_bytes` and `_seconds` off.
    pub(crate) without_units: bool,
    /// Bytes of telemetry held, and the limit above which it is refused.
    pub(crate) memory: (usize, usize),
    /// Connections there may be at a time.
    pub(crate) connections: usize,
}

/// The ids of a pipeline's components.
#[derive(Clone, Debug)]
pub(crate) struct PipelineLabels {
    /// What it carries.
    pub(crate) signal: Signal,
    /// In order.
    pub(crate) processors: Vec<String>,
    /// Where it ends.
    pub(crate) exporter: String,
    /// Of its queue, in bytes.
    pub(crate) capacity: usize,
}

/// The Prometheus type of a family.
#[derive(Clone, Copy, PartialEq)]
enum FamilyType {
    Counter,
    Gauge,
}

use FamilyType::{Counter, Gauge};

/// Labels with braces, or nothing, and the value.
type Series<V = u64> = (String, V);

type ItemSeries = fn(&Scrape<'_>, &PipelineLabels) -> Vec<Series>;
type PipelineValue = fn(&SignalCounts, &PipelineLabels) -> Option<u64>;
type AgentValue = fn(&Metrics, &Labels<'_>) -> u64;
type ProcessValue = fn(&Usage) -> u64;

/// Families that each signal has under a name of its own, which ends in `_spans` for example.
#[rustfmt::skip]
const OF_ITEMS: &[(&str, FamilyType, ItemSeries)] = &[
    ("otelcol_receiver_accepted", Counter, |scrape, of| scrape.by_transport(Some(&scrape.counts(of).accepted))),
    ("otelcol_receiver_refused", Counter, |scrape, of| scrape.by_transport(Some(&scrape.counts(of).refused_items))),
    // Nothing fails inside the agent that is neither refused nor lost.
    ("otelcol_receiver_failed", Counter, |scrape, _| scrape.by_transport(None)),
    ("otelcol_processor_memory_limiter_accepted", Counter, |scrape, of| vec![(limiter(of), accepted(scrape.counts(of)))]),
    ("otelcol_processor_memory_limiter_refused", Counter, |scrape, of| vec![(limiter(of), get(&scrape.counts(of).memory_refused))]),
    ("otelcol_exporter_sent", Counter, |scrape, of| vec![(exporter(of), get(&scrape.counts(of).sent))]),
    ("otelcol_exporter_send_failed", Counter, |scrape, of| vec![(exporter(of), scrape.counts(of).lost.iter().map(get).sum())]),
    ("otelcol_exporter_enqueue_failed", Counter, |scrape, of| vec![(exporter(of), get(&scrape.counts(of).enqueue_failed))]),
    ("otelagent_lost", Counter, |scrape, of| scrape.by_loss(of)),
    ("otelagent_recovered", Counter, |scrape, of| vec![(exporter(of), get(&scrape.counts(of).recovered))]),
    ("otelagent_queue", Gauge, |scrape, of| vec![(exporter(of), get(&scrape.counts(of).queue_items))]),
];

/// Families with one series for each pipeline; those of storages only for queues that should be on disk.
#[rustfmt::skip]
const OF_PIPELINES: &[(&str, &str, FamilyType, PipelineValue)] = &[
    ("otelcol_exporter_queue_size", "", Gauge, |counts, _| Some(get(&counts.queue_bytes) + get(&counts.leftover_bytes))),
    ("otelcol_exporter_queue_capacity", "", Gauge, |_, of| Some(of.capacity as u64)),
    ("otelcol_exporter_in_flight_requests", "", Gauge, |counts, _| Some(get(&counts.in_flight))),
    ("otelagent_exporter_plain", "_bytes", Counter, |counts, _| Some(get(&counts.plain_bytes))),
    ("otelagent_exporter_wire", "_bytes", Counter, |counts, _| Some(get(&counts.wire_bytes))),
    ("otelagent_storage_failing", "", Gauge, |counts, _| stored(counts, u64::from(get(&counts.storage) == 2))),
    ("otelagent_storage_damaged_records", "", Counter, |counts, _| stored(counts, get(&counts.damaged_records))),
    ("otelagent_storage_damaged", "_bytes", Counter, |counts, _| stored(counts, get(&counts.damaged_bytes))),
];

/// Families with one series.
#[rustfmt::skip]
const OF_AGENT: &[(&str, &str, FamilyType, AgentValue)] = &[
    ("otelagent_exporter_failed_attempts", "", Counter, |metrics, _| get(&metrics.attempts_failed)),
    ("otelagent_connections", "", Counter, |metrics, _| get(&metrics.connections)),
    ("otelagent_open_connections", "", Gauge, |metrics, _| get(&metrics.connections_open)),
    ("otelagent_connections_limit", "", Gauge, |_, labels| labels.connections as u64),
    ("otelagent_accept_errors", "", Counter, |metrics, _| get(&metrics.accept_errors)),
    ("otelagent_tls_handshakes_failed", "", Counter, |metrics, _| get(&metrics.handshakes_failed)),
    ("otelagent_config_last_success_timestamp", "_seconds", Gauge, |metrics, _| get(&metrics.configured[0])),
    ("otelagent_memory_held", "_bytes", Gauge, |_, labels| labels.memory.0 as u64),
    ("otelagent_memory_limit", "_bytes", Gauge, |_, labels| labels.memory.1 as u64),
    ("otelcol_process_uptime", "_seconds", Counter, |metrics, _| metrics.started.elapsed().as_secs()),
];

/// What the operating system says; the last two are the nearest there is to what Go's runtime reports.
#[rustfmt::skip]
const OF_PROCESS: &[(&str, &str, ProcessValue)] = &[
    ("otelcol_process_memory_rss", "_bytes", |usage| usage.resident),
    ("otelcol_process_runtime_heap_alloc_bytes", "", |usage| usage.anonymous),
    ("otelcol_process_runtime_total_sys_memory_bytes", "", |usage| usage.virtual_memory),
];

impl Metrics {
    /// Everything.
    pub(crate) fn text(&self, labels: &Labels<'_>) -> String {
        let mut scrape = Scrape {
            out: String::with_capacity(16 * 1024),
            metrics: self,
            labels,
        };
        scrape.tables();
        scrape.requests();
        scrape.processors();
        scrape.batches();
        scrape.state();
        scrape.out
    }
}

struct Scrape<'a> {
    out: String,
    metrics: &'a Metrics,
    labels: &'a Labels<'a>,
}

impl<'a> Scrape<'a> {
    fn tables(&mut self) {
        let pipelines = self.labels.pipelines;
        for of in pipelines {
            for (name, kind, series) in OF_ITEMS {
                let series = series(self, of);
                self.family(&format!("{name}_{}", of.signal.items()), "", *kind, &series);
            }
        }
        for (name, unit, kind, value) in OF_PIPELINES {
            let series = pipelines.iter().filter_map(|of| {
                let value = value(self.counts(of), of)?;
                Some((pipeline(of), value))
            });
            let series: Vec<_> = series.collect();
            self.family(name, unit, *kind, &series);
        }
        for (name, unit, kind, value) in OF_AGENT {
            let value = value(self.metrics, self.labels);
            self.family(name, unit, *kind, &[(String::new(), value)]);
        }
        let Some(usage) = Usage::now() else { return };
        for (name, unit, value) in OF_PROCESS {
            self.family(name, unit, Gauge, &[(String::new(), value(&usage))]);
        }
        let cpu = format!("{}.{:02}", usage.cpu_ticks / 100, usage.cpu_ticks % 100);
        let cpu = [(String::new(), cpu)];
        self.family("otelcol_process_cpu_seconds", "", Counter, &cpu);
    }

    fn family<V: Display>(
        &mut self,
        name: &str,
        unit: &str,
        kind: FamilyType,
        series: &[Series<V>],
    ) {
        if series.is_empty() {
            return;
        }
        let unit = if self.labels.without_units { "" } else { unit };
        let (total, kind) = match kind {
            Counter if self.labels.without_type_suffix => ("", "counter"),
            Counter => ("_total", "counter"),
            Gauge => ("", "gauge"),
        };
        let name = format!("{name}{unit}{total}");
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(self.out, "{name}{labels} {value}");
        }
    }

    fn counts(&self, of: &PipelineLabels) -> &'a SignalCounts {
        self.metrics.of(of.signal)
    }

    fn by_transport(&self, counters: Option<&[AtomicU64; 2]>) -> Vec<Series> {
        let series = Transport::ALL.map(|transport| {
            let receiver = self.labels.receiver;
            let labels = label([("receiver", receiver), ("transport", transport.name())]);
            let value = counters.map_or(0, |counters| get(&counters[transport as usize]));
            (labels, value)
        });
        series.to_vec()
    }

    fn by_loss(&self, of: &PipelineLabels) -> Vec<Series> {
        let lost = &self.counts(of).lost;
        let series = Lost::ALL.map(|reason| {
            let labels = label([("exporter", &of.exporter), ("reason", reason.reason())]);
            (labels, get(&lost[reason as usize]))
        });
        series.to_vec()
    }

    fn requests(&mut self) {
        let receiver = self.labels.receiver;
        let (mut outcomes, mut refused) = (Vec::new(), Vec::new());
        for transport in Transport::ALL {
            let name = ("transport", transport.name());
            let taken = &self.metrics.requests_taken[transport as usize];
            let reasons = &self.metrics.requests_refused[transport as usize];
            let all_refused = reasons.iter().map(get).sum();
            for (outcome, value) in [("success", get(taken)), ("refused", all_refused)] {
                let labels = label([("outcome", outcome), ("receiver", receiver), name]);
                outcomes.push((labels, value));
            }
            for reason in Refused::ALL {
                let value = get(&reasons[reason as usize]);
                refused.push((label([("reason", reason.reason()), name]), value));
            }
        }
        self.family("otelcol_receiver_requests", "", Counter, &outcomes);
        self.family("otelagent_refused_requests", "", Counter, &refused);
    }

    fn processors(&mut self) {
        let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
        for of in self.labels.pipelines {
            let counts = self.counts(of);
            let out = accepted(counts);
            for id in &of.processors {
                let labels = label([("otel_signal", of.signal.name()), ("processor", id)]);
                let refused = if is_limiter(id) {
                    get(&counts.memory_refused)
                } else {
                    0
                };
                incoming.push((labels.clone(), out + refused));
                outgoing.push((labels, out));
            }
        }
        self.family("otelcol_processor_incoming_items", "", Counter, &incoming);
        self.family("otelcol_processor_outgoing_items", "", Counter, &outgoing);
    }

    fn batches(&mut self) {
        let name = "otelcol_exporter_queue_batch_send_size";
        self.histogram(name, &ITEM_BOUNDS, |counts| &counts.batch_items);
        let name = "otelcol_exporter_queue_batch_send_size_bytes";
        self.histogram(name, &BYTE_BOUNDS, |counts| &counts.batch_bytes);
    }

    fn histogram<const N: usize>(
        &mut self,
        name: &str,
        bounds: &[u64; N],
        of: fn(&SignalCounts) -> &Histogram<N>,
    ) {
        let _ = writeln!(self.out, "# TYPE {name} histogram");
        for pipeline in self.labels.pipelines {
            let histogram = of(self.counts(pipeline));
            let labels = self::pipeline(pipeline);
            let open = labels.trim_end_matches('}');
            let mut count = 0;
            for (bound, counter) in bounds.iter().zip(&histogram.counts) {
                count += get(counter);
                let _ = writeln!(self.out, "{name}_bucket{open},le=\"{bound}\"}} {count}");
            }
            count += get(&histogram.above);
            let _ = writeln!(self.out, "{name}_bucket{open},le=\"+Inf\"}} {count}");
            let _ = writeln!(self.out, "{name}_sum{labels} {}", get(&histogram.sum));
            let _ = writeln!(self.out, "{name}_count{labels} {count}");
        }
    }

    /// Whether the books balance, the configuration and the version.
    fn state(&mut self) {
        let pipelines = self.labels.pipelines.iter();
        let imbalance = pipelines.map(|of| {
            let books = self.metrics.books(of.signal);
            (label([("signal", of.signal.name())]), books.imbalance())
        });
        let imbalance: Vec<_> = imbalance.collect();
        self.family("otelagent_books_imbalance", "", Gauge, &imbalance);
        let reloads = Reload::ALL.map(|result| {
            let value = get(&self.metrics.reloads[result as usize]);
            (label([("result", result.result())]), value)
        });
        self.family("otelagent_config_reloads", "", Counter, &reloads);
        let fingerprint = format!("{:016x}", get(&self.metrics.configured[1]));
        let info = [(label([("fingerprint", &fingerprint)]), 1)];
        self.family("otelagent_config_info", "", Gauge, &info);
        let build = [(label([("version", env!("CARGO_PKG_VERSION"))]), 1)];
        self.family("otelagent_build_info", "", Gauge, &build);
    }
}

fn label<const N: usize>(pairs: [(&str, &str); N]) -> String {
    let pairs = pairs.map(|(name, value)| format!("{name}=\"{value}\""));
    format!("{{{}}}", pairs.join(","))
}

fn pipeline(of: &PipelineLabels) -> String {
    label([("data_type", of.signal.name()), ("exporter", &of.exporter)])
}

fn exporter(of: &PipelineLabels) -> String {
    label([("exporter", &of.exporter)])
}

fn limiter(of: &PipelineLabels) -> String {
    let id = of.processors.iter().find(|id| is_limiter(id));
    label([("processor", id.map_or("memory_limiter", String::as_str))])
}

fn is_limiter(id: &str) -> bool {
    id.split('/').next() == Some("memory_limiter")
}

fn accepted(counts: &SignalCounts) -> u64 {
    counts.accepted.iter().map(get).sum()
}

fn stored(counts: &SignalCounts, value: u64) -> Option<u64> {
    (get(&counts.storage) > 0).then_some(value)
}
