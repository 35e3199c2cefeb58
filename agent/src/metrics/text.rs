//! The counters as Prometheus text (format 0.0.4), under the collector's names where it has one.
//!
//! Written by hand, because `prometheus-client` writes `OpenMetrics`: it cannot leave `_total` off a counter, which the
//! collector's default reader does.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::counters::{
    BYTE_BOUNDS, Count, Distribution, FailedAttempt, ITEM_BOUNDS, Lost, Metrics, Refused, Reload,
    SignalCounts, StorageHealth, Transport,
};
use super::help::help;
use super::process::Usage;
use crate::config::{Config, Exporter, Pipeline};
use crate::lock::lock;
use crate::senders::{Sender, Senders};

/// The number of senders that have series of their own.
const TOP_SENDERS: usize = 10;

/// What the text needs besides the counters.
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a Config,
    /// Bytes of telemetry held, and the limit above which the agent refuses it.
    pub(crate) memory: (usize, usize),
    pub(crate) senders: &'a Senders,
    /// The maximum number of connections.
    pub(crate) connections: usize,
    pub(crate) uptime: Duration,
    /// The exporters, each with the number of its endpoint in use.
    pub(crate) endpoints: Vec<(&'a str, usize)>,
}

/// The Prometheus type of a family.
#[derive(Clone, Copy, PartialEq)]
enum FamilyType {
    Counter,
    Gauge,
    Histogram,
}

use FamilyType::{Counter, Gauge, Histogram};

/// The labels with braces, or nothing, and the value.
type Series = (String, String);

type SeriesOfPipeline = fn(&PipelineCounts<'_>) -> Vec<Series>;
type SeriesOfAll = fn(&Scrape<'_>) -> Vec<Series>;

/// A pipeline and what happened to its signal.
struct PipelineCounts<'a> {
    receiver: &'a str,
    pipeline: &'a Pipeline,
    exporter: &'a Exporter,
    counts: &'a SignalCounts,
}

/// Families that have a name for each signal, which ends in `_spans` for example.
#[rustfmt::skip]
const OF_ITEMS: &[(&str, FamilyType, SeriesOfPipeline)] = &[
    ("otelcol_receiver_accepted", Counter, |of| of.by_transport(|transport| of.counts.accepted[transport as usize].get())),
    ("otelcol_receiver_refused", Counter, |of| of.by_transport(|transport| of.counts.refused_items[transport as usize].get())),
    // Nothing fails inside the agent that is neither refused nor lost.
    ("otelcol_receiver_failed", Counter, |of| of.by_transport(|_| 0)),
    ("otelcol_processor_memory_limiter_accepted", Counter, |of| of.by_limiter(of.accepted())),
    ("otelcol_processor_memory_limiter_refused", Counter, |of| of.by_limiter(of.counts.memory_refused.get())),
    ("otelcol_exporter_sent", Counter, |of| of.by_exporter(&of.counts.sent)),
    ("otelcol_exporter_send_failed", Counter, |of| vec![series([("exporter", &of.exporter.id)], sum(&of.counts.lost))]),
    ("otelcol_exporter_enqueue_failed", Counter, |of| of.by_exporter(&of.counts.enqueue_failed)),
    ("otelagent_lost", Counter, |of| of.by_loss()),
    ("otelagent_recovered", Counter, |of| of.by_exporter(&of.counts.recovered)),
    ("otelagent_queue", Gauge, |of| of.by_exporter(&of.counts.queue_items)),
];

/// All others: the name, the unit, the type and the series. Families of storages appear only for queues that
/// should be on disk. Heap and system memory are the closest equivalents of what Go's runtime reports.
#[rustfmt::skip]
const OTHERS: &[(&str, &str, FamilyType, SeriesOfAll)] = &[
    ("otelcol_exporter_queue_size", "", Gauge, |scrape| scrape.pipelines(|of| Some(of.counts.queue_bytes.get() + of.counts.leftover_bytes.get()))),
    ("otelcol_exporter_queue_capacity", "", Gauge, |scrape| scrape.pipelines(|of| Some(of.exporter.queue.capacity as u64))),
    ("otelcol_exporter_in_flight_requests", "", Gauge, |scrape| scrape.pipelines(|of| Some(of.counts.in_flight.get()))),
    ("otelagent_exporter_plain", "_bytes", Counter, |scrape| scrape.pipelines(|of| Some(of.counts.plain_bytes.get()))),
    ("otelagent_exporter_wire", "_bytes", Counter, |scrape| scrape.pipelines(|of| Some(of.counts.wire_bytes.get()))),
    ("otelagent_storage_failing", "", Gauge, |scrape| scrape.storages()),
    ("otelagent_storage_damaged_records", "", Counter, |scrape| scrape.pipelines(|of| of.stored(of.counts.damaged_records.get()))),
    ("otelagent_storage_damaged", "_bytes", Counter, |scrape| scrape.pipelines(|of| of.stored(of.counts.damaged_bytes.get()))),
    ("otelagent_exporter_failed_attempts", "", Counter, |scrape| scrape.failed_attempts()),
    ("otelagent_exporter_endpoint_index", "", Gauge, |scrape| scrape.endpoints()),
    ("otelagent_repaired_strings", "", Counter, |scrape| one(scrape.metrics.repaired_strings.get())),
    ("otelagent_connections", "", Counter, |scrape| one(scrape.metrics.connections.get())),
    ("otelagent_open_connections", "", Gauge, |scrape| one(scrape.metrics.connections_open.get())),
    ("otelagent_connections_limit", "", Gauge, |scrape| one(scrape.around.connections)),
    ("otelagent_accept_errors", "", Counter, |scrape| one(scrape.metrics.accept_errors.get())),
    ("otelagent_tls_handshakes_failed", "", Counter, |scrape| one(scrape.metrics.handshakes_failed.get())),
    ("otelagent_config_last_success_timestamp", "_seconds", Gauge, |scrape| one(scrape.metrics.configured[0].get())),
    ("otelagent_memory_held", "_bytes", Gauge, |scrape| one(scrape.around.memory.0)),
    ("otelagent_memory_limit", "_bytes", Gauge, |scrape| one(scrape.around.memory.1)),
    ("otelagent_sender_held", "_bytes", Gauge, |scrape| scrape.senders(|sender| sender.held() as u64)),
    ("otelagent_sender_refused_requests", "", Counter, |scrape| scrape.senders(Sender::refused)),
    ("otelcol_process_uptime", "_seconds", Counter, |scrape| one(scrape.around.uptime.as_secs())),
    ("otelcol_process_memory_rss", "_bytes", Gauge, |scrape| scrape.process(|usage| one(usage.resident))),
    ("otelcol_process_runtime_heap_alloc_bytes", "", Gauge, |scrape| scrape.process(|usage| one(usage.anonymous))),
    ("otelcol_process_runtime_total_sys_memory_bytes", "", Gauge, |scrape| scrape.process(|usage| one(usage.virtual_memory))),
    ("otelcol_process_cpu_seconds", "", Counter, |scrape| scrape.process(|usage| one(format!("{}.{:02}", usage.cpu_ticks / 100, usage.cpu_ticks % 100)))),
    ("otelcol_receiver_requests", "", Counter, |scrape| scrape.requests()),
    ("otelagent_refused_requests", "", Counter, |scrape| scrape.refusals()),
    ("otelcol_processor_incoming_items", "", Counter, |scrape| scrape.processors(|of, id| of.accepted() + if is_limiter(id) { of.counts.memory_refused.get() } else { 0 })),
    ("otelcol_processor_outgoing_items", "", Counter, |scrape| scrape.processors(|of, _| of.accepted())),
    ("otelcol_exporter_queue_batch_send_size", "", Histogram, |scrape| scrape.histograms(&ITEM_BOUNDS, |counts| &counts.batch_items)),
    ("otelcol_exporter_queue_batch_send_size_bytes", "", Histogram, |scrape| scrape.histograms(&BYTE_BOUNDS, |counts| &counts.batch_bytes)),
    ("otelagent_books_imbalance", "", Gauge, |scrape| scrape.imbalance()),
    ("otelagent_config_reloads", "", Counter, |scrape| scrape.reloads()),
    ("otelagent_config_info", "", Gauge, |scrape| vec![series([("fingerprint", &format!("{:016x}", scrape.metrics.configured[1].get()))], 1)]),
    ("otelagent_build_info", "", Gauge, |_| vec![series([("version", env!("CARGO_PKG_VERSION"))], 1)]),
];

impl Metrics {
    /// All metrics as text.
    pub(crate) fn text(&self, around: &Surroundings<'_>) -> String {
        let pipelines = around.config.pipelines.iter().filter_map(|pipeline| {
            Some(PipelineCounts {
                receiver: &around.config.receiver.id,
                pipeline,
                exporter: around.config.exporters.get(pipeline.exporter)?,
                counts: self.of(pipeline.signal),
            })
        });
        let scrape = Scrape {
            metrics: self,
            around,
            pipelines: pipelines.collect(),
            usage: Usage::now(),
        };
        let mut out = String::with_capacity(16 * 1024);
        for of in &scrape.pipelines {
            for (name, kind, series) in OF_ITEMS {
                let items = of.pipeline.signal.items();
                scrape.write(
                    &mut out,
                    (name, &format!("_{items}"), ""),
                    *kind,
                    &series(of),
                );
            }
        }
        for (name, unit, kind, series) in OTHERS {
            scrape.write(&mut out, (name, "", unit), *kind, &series(&scrape));
        }
        out
    }
}

struct Scrape<'a> {
    metrics: &'a Metrics,
    around: &'a Surroundings<'a>,
    pipelines: Vec<PipelineCounts<'a>>,
    usage: Option<Usage>,
}

impl Scrape<'_> {
    /// Writes a family: its name is followed by the items and the unit.
    fn write(
        &self,
        out: &mut String,
        (family, items, unit): (&str, &str, &str),
        kind: FamilyType,
        series: &[Series],
    ) {
        if series.is_empty() {
            return;
        }
        let reader = self.around.config.telemetry.metrics.as_ref();
        let without_units = reader.is_some_and(|reader| reader.without_units);
        let without_total = reader.is_some_and(|reader| reader.without_type_suffix);
        let unit = if without_units { "" } else { unit };
        let (total, kind) = match kind {
            Counter if without_total => ("", "counter"),
            Counter => ("_total", "counter"),
            Gauge => ("", "gauge"),
            Histogram => ("", "histogram"),
        };
        let name = format!("{family}{items}{unit}{total}");
        if let Some(meaning) = help(family) {
            let _ = writeln!(out, "# HELP {name} {meaning}");
        }
        let _ = writeln!(out, "# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    }

    /// One series for each pipeline that has a value.
    fn pipelines(&self, value: impl Fn(&PipelineCounts<'_>) -> Option<u64>) -> Vec<Series> {
        let series = self.pipelines.iter().filter_map(|of| {
            let value = value(of)?;
            Some((of.labels(), value.to_string()))
        });
        series.collect()
    }

    /// Whether each storage fails, and why.
    fn storages(&self) -> Vec<Series> {
        let series = self.pipelines.iter().filter_map(|of| {
            let [data_type, exporter] = of.pairs();
            match of.storage() {
                StorageHealth::None => None,
                StorageHealth::Works => Some(series([data_type, exporter], 0)),
                StorageHealth::Fails(reason) => {
                    Some(series([data_type, exporter, ("reason", reason)], 1))
                }
            }
        });
        series.collect()
    }

    fn process(&self, series: impl Fn(&Usage) -> Vec<Series>) -> Vec<Series> {
        self.usage.as_ref().map(series).unwrap_or_default()
    }

    fn requests(&self) -> Vec<Series> {
        let mut all = Vec::new();
        for (at, transport) in Transport::ALL.iter().enumerate() {
            let taken = self.metrics.requests_taken[at].get();
            let refused = sum(&self.metrics.requests_refused[at]);
            for (outcome, value) in [("success", taken), ("refused", refused)] {
                let receiver = ("receiver", self.around.config.receiver.id.as_str());
                let transport = ("transport", transport.name());
                all.push(series([("outcome", outcome), receiver, transport], value));
            }
        }
        all
    }

    fn senders(&self, number: fn(&Sender) -> u64) -> Vec<Series> {
        let top = self.around.senders.top(TOP_SENDERS, number);
        top.iter()
            .map(|(sender, number)| series([("sender", sender)], number))
            .collect()
    }

    fn refusals(&self) -> Vec<Series> {
        let mut all = Vec::new();
        for (transport, refused) in Transport::ALL.iter().zip(&self.metrics.requests_refused) {
            for (reason, count) in Refused::ALL.iter().zip(refused) {
                let labels = [("reason", reason.name()), ("transport", transport.name())];
                all.push(series(labels, count.get()));
            }
        }
        all
    }

    /// One series for each processor of each pipeline.
    fn processors(&self, value: impl Fn(&PipelineCounts<'_>, &str) -> u64) -> Vec<Series> {
        let mut all = Vec::new();
        for of in &self.pipelines {
            for id in &of.pipeline.processors {
                let signal = ("otel_signal", of.pipeline.signal.name());
                all.push(series([signal, ("processor", id)], value(of, id)));
            }
        }
        all
    }

    fn histograms(&self, bounds: &[u64], of: fn(&SignalCounts) -> &Distribution) -> Vec<Series> {
        let mut all = Vec::new();
        for pipeline in &self.pipelines {
            let histogram = of(pipeline.counts);
            let labels = pipeline.labels();
            let open = labels.trim_end_matches('}');
            let names = bounds.iter().map(u64::to_string);
            let mut sum = 0;
            for (bound, count) in names.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
                sum += count.get();
                all.push((format!("_bucket{open},le=\"{bound}\"}}"), sum.to_string()));
            }
            all.push((format!("_sum{labels}"), histogram.sum.get().to_string()));
            all.push((format!("_count{labels}"), sum.to_string()));
        }
        all
    }

    fn imbalance(&self) -> Vec<Series> {
        let pipelines = self.pipelines.iter();
        let series = pipelines.map(|of| {
            let signal = of.pipeline.signal;
            let books = self.metrics.books(signal);
            series([("signal", signal.name())], books.imbalance())
        });
        series.collect()
    }

    fn endpoints(&self) -> Vec<Series> {
        let endpoints = self.around.endpoints.iter();
        endpoints
            .map(|(exporter, index)| series([("exporter", exporter)], index))
            .collect()
    }

    fn failed_attempts(&self) -> Vec<Series> {
        let reasons = FailedAttempt::ALL.iter().zip(&self.metrics.attempts_failed);
        reasons
            .map(|(reason, count)| series([("reason", reason.name())], count.get()))
            .collect()
    }

    fn reloads(&self) -> Vec<Series> {
        let results = Reload::ALL.iter().zip(&self.metrics.reloads);
        results
            .map(|(result, count)| series([("result", result.name())], count.get()))
            .collect()
    }
}

impl PipelineCounts<'_> {
    fn labels(&self) -> String {
        labels(self.pairs())
    }

    fn pairs(&self) -> [(&'static str, &str); 2] {
        let signal = self.pipeline.signal.name();
        [("data_type", signal), ("exporter", &self.exporter.id)]
    }

    fn by_exporter(&self, count: &Count) -> Vec<Series> {
        vec![series([("exporter", &self.exporter.id)], count.get())]
    }

    fn by_limiter(&self, value: u64) -> Vec<Series> {
        let id = self.pipeline.processors.iter().find(|id| is_limiter(id));
        let id = id.map_or("memory_limiter", String::as_str);
        vec![series([("processor", id)], value)]
    }

    fn by_transport(&self, value: impl Fn(Transport) -> u64) -> Vec<Series> {
        let series = Transport::ALL.iter().map(|transport| {
            let name = ("transport", transport.name());
            series([("receiver", self.receiver), name], value(*transport))
        });
        series.collect()
    }

    fn by_loss(&self) -> Vec<Series> {
        let reasons = Lost::ALL.iter().zip(&self.counts.lost);
        let series = reasons.map(|(reason, count)| {
            let reason = ("reason", reason.name());
            series([("exporter", &self.exporter.id), reason], count.get())
        });
        series.collect()
    }

    fn accepted(&self) -> u64 {
        sum(&self.counts.accepted)
    }

    fn storage(&self) -> StorageHealth {
        *lock(&self.counts.storage)
    }

    fn stored(&self, value: u64) -> Option<u64> {
        (self.storage() != StorageHealth::None).then_some(value)
    }
}

fn one(value: impl Display) -> Vec<Series> {
    vec![(String::new(), value.to_string())]
}

fn series<const N: usize>(pairs: [(&str, &str); N], value: impl Display) -> Series {
    (labels(pairs), value.to_string())
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> String {
    let pairs = pairs.map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
    format!("{{{}}}", pairs.join(","))
}

/// The value of a label as the text format writes it; ids of components may have any characters.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(value);
    }
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    Cow::Owned(value.replace('\n', "\\n"))
}

fn sum(counts: &[Count]) -> u64 {
    counts.iter().map(Count::get).sum()
}

fn is_limiter(id: &str) -> bool {
    id.split('/').next() == Some("memory_limiter")
}
