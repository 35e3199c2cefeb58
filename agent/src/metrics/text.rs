//! The counters as Prometheus text (format 0.0.4), under the collector's names where it has one. Must
//! not know how they are counted.

use std::fmt::{Display, Write as _};
use std::sync::atomic::AtomicU64;

use otlp_wire::Signal;

use super::process::Usage;
use super::{Histogram, Lost, Metrics, Refused, Reload, Transport, get};

/// Bounds of the collector's histograms of batches, in items.
pub(super) const ITEM_BOUNDS: [u64; 22] = [
    10, 25, 50, 75, 100, 250, 500, 750, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000,
    10_000, 20_000, 30_000, 50_000, 100_000,
];

/// The same in bytes, where the collector's bounds would end far below a usual batch.
pub(super) const BYTE_BOUNDS: [u64; 10] = [
    1000, 4000, 16_000, 64_000, 256_000, 512_000, 1_000_000, 2_000_000, 4_000_000, 16_000_000,
];

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

struct Text<'a> {
    out: String,
    labels: &'a Labels<'a>,
}

type Series<V> = [(String, V)];

fn one<V>(value: V) -> [(String, V); 1] {
    [(String::new(), value)]
}

impl Text<'_> {
    fn counter<V: Display>(&mut self, name: &str, unit: &str, series: &Series<V>) {
        let total = if self.labels.without_type_suffix {
            ""
        } else {
            "_total"
        };
        let name = format!("{name}{}{total}", self.unit(unit));
        self.family(&name, "counter", series);
    }

    fn gauge<V: Display>(&mut self, name: &str, unit: &str, series: &Series<V>) {
        self.family(&format!("{name}{}", self.unit(unit)), "gauge", series);
    }

    fn unit<'u>(&self, unit: &'u str) -> &'u str {
        if self.labels.without_units { "" } else { unit }
    }

    fn family<V: Display>(&mut self, name: &str, kind: &str, series: &Series<V>) {
        if series.is_empty() {
            return;
        }
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        for (labels, value) in series {
            let _ = writeln!(self.out, "{name}{labels} {value}");
        }
    }

    /// One series of a histogram; `labels` without braces.
    fn histogram<const N: usize>(
        &mut self,
        name: &str,
        labels: &str,
        bounds: &[u64; N],
        histogram: &Histogram<N>,
    ) {
        let mut count = 0;
        for (bound, counter) in bounds.iter().zip(&histogram.counts) {
            count += get(counter);
            let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        count += get(&histogram.above);
        let _ = writeln!(self.out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(self.out, "{name}_sum{{{labels}}} {}", get(&histogram.sum));
        let _ = writeln!(self.out, "{name}_count{{{labels}}} {count}");
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "every index is an enum's own position"
)]
impl Metrics {
    /// Everything.
    pub(crate) fn text(&self, labels: &Labels<'_>) -> String {
        let mut text = Text {
            out: String::with_capacity(16 * 1024),
            labels,
        };
        self.receiver(&mut text);
        self.requests(&mut text);
        for pipeline in labels.pipelines {
            self.limiter(&mut text, pipeline);
            self.exporter(&mut text, pipeline.signal, &pipeline.exporter);
        }
        self.processors(&mut text);
        self.queues(&mut text);
        self.storages(&mut text);
        self.batches(&mut text);
        self.books_balance(&mut text);
        self.connections(&mut text);
        self.configuration(&mut text);
        self.process(&mut text);
        text.out
    }

    fn receiver(&self, text: &mut Text<'_>) {
        for pipeline in text.labels.pipelines {
            let counts = self.of(pipeline.signal);
            let items = pipeline.signal.items();
            let receiver = text.labels.receiver;
            let series = |counters: Option<&[AtomicU64; 2]>| {
                Transport::ALL.map(|transport| {
                    let transport_name = transport.name();
                    let labels =
                        format!("{{receiver=\"{receiver}\",transport=\"{transport_name}\"}}");
                    let value = counters.map_or(0, |counters| get(&counters[transport as usize]));
                    (labels, value)
                })
            };
            for (what, counters) in [
                ("accepted", Some(&counts.accepted)),
                ("refused", Some(&counts.refused_items)),
                // Inside of the agent nothing fails that is not refused or lost.
                ("failed", None),
            ] {
                let name = format!("otelcol_receiver_{what}_{items}");
                text.counter(&name, "", &series(counters));
            }
        }
    }

    fn requests(&self, text: &mut Text<'_>) {
        let receiver = text.labels.receiver;
        let mut outcomes = Vec::new();
        let mut refused = Vec::new();
        for transport in Transport::ALL {
            let name = transport.name();
            let reasons = &self.requests_refused[transport as usize];
            for (outcome, value) in [
                ("success", get(&self.requests_taken[transport as usize])),
                ("refused", reasons.iter().map(get).sum()),
            ] {
                let labels = format!(
                    "{{outcome=\"{outcome}\",receiver=\"{receiver}\",transport=\"{name}\"}}"
                );
                outcomes.push((labels, value));
            }
            for reason in Refused::ALL {
                let labels = format!("{{reason=\"{}\",transport=\"{name}\"}}", reason.reason());
                refused.push((labels, get(&reasons[reason as usize])));
            }
        }
        text.counter("otelcol_receiver_requests", "", &outcomes);
        text.counter("otelagent_refused_requests", "", &refused);
    }

    fn limiter(&self, text: &mut Text<'_>, pipeline: &PipelineLabels) {
        let counts = self.of(pipeline.signal);
        let items = pipeline.signal.items();
        let id = pipeline.processors.iter().find(|id| is_limiter(id));
        let id = id.map_or("memory_limiter", String::as_str);
        for (what, value) in [
            ("accepted", counts.accepted.iter().map(get).sum()),
            ("refused", get(&counts.memory_refused)),
        ] {
            let name = format!("otelcol_processor_memory_limiter_{what}_{items}");
            text.counter(&name, "", &[(format!("{{processor=\"{id}\"}}"), value)]);
        }
    }

    fn processors(&self, text: &mut Text<'_>) {
        let mut incoming = Vec::new();
        let mut outgoing = Vec::new();
        for pipeline in text.labels.pipelines {
            let counts = self.of(pipeline.signal);
            let signal = pipeline.signal.name();
            let out: u64 = counts.accepted.iter().map(get).sum();
            for id in &pipeline.processors {
                let labels = format!("{{otel_signal=\"{signal}\",processor=\"{id}\"}}");
                let refused = if is_limiter(id) {
                    get(&counts.memory_refused)
                } else {
                    0
                };
                incoming.push((labels.clone(), out + refused));
                outgoing.push((labels, out));
            }
        }
        text.counter("otelcol_processor_incoming_items", "", &incoming);
        text.counter("otelcol_processor_outgoing_items", "", &outgoing);
    }

    fn exporter(&self, text: &mut Text<'_>, signal: Signal, id: &str) {
        let counts = self.of(signal);
        let items = signal.items();
        let label = format!("{{exporter=\"{id}\"}}");
        for (what, value) in [
            ("sent", get(&counts.sent)),
            ("send_failed", counts.lost.iter().map(get).sum()),
            ("enqueue_failed", get(&counts.enqueue_failed)),
        ] {
            let name = format!("otelcol_exporter_{what}_{items}");
            text.counter(&name, "", &[(label.clone(), value)]);
        }
        let lost: Vec<_> = Lost::ALL
            .into_iter()
            .map(|reason| {
                let labels = format!("{{exporter=\"{id}\",reason=\"{}\"}}", reason.reason());
                (labels, get(&counts.lost[reason as usize]))
            })
            .collect();
        text.counter(&format!("otelagent_lost_{items}"), "", &lost);
        let recovered = [(label.clone(), get(&counts.recovered))];
        text.counter(&format!("otelagent_recovered_{items}"), "", &recovered);
        let held = [(label, get(&counts.queue_items))];
        text.gauge(&format!("otelagent_queue_{items}"), "", &held);
    }

    fn queues(&self, text: &mut Text<'_>) {
        let series = |value: &dyn Fn(&PipelineLabels) -> u64| -> Vec<(String, u64)> {
            let pipelines = text.labels.pipelines.iter();
            pipelines
                .map(|pipeline| (of_pipeline(pipeline), value(pipeline)))
                .collect()
        };
        let of = |counter: fn(&super::SignalCounts) -> &AtomicU64| {
            series(&|pipeline| get(counter(self.of(pipeline.signal))))
        };
        let size = series(&|pipeline| {
            let counts = self.of(pipeline.signal);
            get(&counts.queue_bytes) + get(&counts.leftover_bytes)
        });
        let capacity = series(&|pipeline| pipeline.capacity as u64);
        let in_flight = of(|counts| &counts.in_flight);
        let plain = of(|counts| &counts.plain_bytes);
        let wire = of(|counts| &counts.wire_bytes);
        text.gauge("otelcol_exporter_queue_size", "", &size);
        text.gauge("otelcol_exporter_queue_capacity", "", &capacity);
        text.gauge("otelcol_exporter_in_flight_requests", "", &in_flight);
        text.counter("otelagent_exporter_plain", "_bytes", &plain);
        text.counter("otelagent_exporter_wire", "_bytes", &wire);
        let failed = one(get(&self.attempts_failed));
        text.counter("otelagent_exporter_failed_attempts", "", &failed);
    }

    /// Only for queues that should be on disk.
    fn storages(&self, text: &mut Text<'_>) {
        let series = |value: &dyn Fn(&super::SignalCounts) -> u64| -> Vec<(String, u64)> {
            let stored = text.labels.pipelines.iter().filter_map(|pipeline| {
                let counts = self.of(pipeline.signal);
                (get(&counts.storage) > 0).then(|| (of_pipeline(pipeline), value(counts)))
            });
            stored.collect()
        };
        let failing = series(&|counts| u64::from(get(&counts.storage) == 2));
        let records = series(&|counts| get(&counts.damaged_records));
        let bytes = series(&|counts| get(&counts.damaged_bytes));
        text.gauge("otelagent_storage_failing", "", &failing);
        text.counter("otelagent_storage_damaged_records", "", &records);
        text.counter("otelagent_storage_damaged", "_bytes", &bytes);
    }

    fn batches(&self, text: &mut Text<'_>) {
        for name in [
            "otelcol_exporter_queue_batch_send_size",
            "otelcol_exporter_queue_batch_send_size_bytes",
        ] {
            let _ = writeln!(text.out, "# TYPE {name} histogram");
            for pipeline in text.labels.pipelines {
                let counts = self.of(pipeline.signal);
                let labels = of_pipeline(pipeline);
                let labels = labels.trim_matches(['{', '}']);
                if name.ends_with("_bytes") {
                    text.histogram(name, labels, &BYTE_BOUNDS, &counts.batch_bytes);
                } else {
                    text.histogram(name, labels, &ITEM_BOUNDS, &counts.batch_items);
                }
            }
        }
    }

    fn books_balance(&self, text: &mut Text<'_>) {
        let pipelines = text.labels.pipelines.iter();
        let imbalance: Vec<_> = pipelines
            .map(|pipeline| {
                let labels = format!("{{signal=\"{}\"}}", pipeline.signal.name());
                (labels, self.books(pipeline.signal).imbalance())
            })
            .collect();
        text.gauge("otelagent_books_imbalance", "", &imbalance);
    }

    fn connections(&self, text: &mut Text<'_>) {
        let limit = text.labels.connections as u64;
        text.counter("otelagent_connections", "", &one(get(&self.connections)));
        let open = get(&self.connections_open);
        text.gauge("otelagent_open_connections", "", &one(open));
        text.gauge("otelagent_connections_limit", "", &one(limit));
        let errors = one(get(&self.accept_errors));
        text.counter("otelagent_accept_errors", "", &errors);
        let failed = one(get(&self.handshakes_failed));
        text.counter("otelagent_tls_handshakes_failed", "", &failed);
    }

    fn configuration(&self, text: &mut Text<'_>) {
        let reloads = Reload::ALL.map(|result| {
            let labels = format!("{{result=\"{}\"}}", result.result());
            (labels, get(&self.reloads[result as usize]))
        });
        text.counter("otelagent_config_reloads", "", &reloads);
        let [since, fingerprint] = &self.configured;
        let name = "otelagent_config_last_success_timestamp";
        text.gauge(name, "_seconds", &one(get(since)));
        let labels = format!("{{fingerprint=\"{:016x}\"}}", get(fingerprint));
        text.gauge("otelagent_config_info", "", &[(labels, 1)]);
    }

    fn process(&self, text: &mut Text<'_>) {
        let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        text.gauge("otelagent_build_info", "", &[(version, 1)]);
        let (held, limit) = text.labels.memory;
        text.gauge("otelagent_memory_held", "_bytes", &one(held));
        text.gauge("otelagent_memory_limit", "_bytes", &one(limit));
        let uptime = one(self.started.elapsed().as_secs());
        text.counter("otelcol_process_uptime", "_seconds", &uptime);
        let Some(usage) = Usage::now() else { return };
        text.gauge("otelcol_process_memory_rss", "_bytes", &one(usage.resident));
        let cpu = format!("{}.{:02}", usage.cpu_ticks / 100, usage.cpu_ticks % 100);
        text.counter("otelcol_process_cpu_seconds", "", &one(cpu));
        // The nearest there is to what Go's runtime tells under these names.
        let heap = one(usage.anonymous);
        text.gauge("otelcol_process_runtime_heap_alloc_bytes", "", &heap);
        let mapped = one(usage.virtual_memory);
        text.gauge(
            "otelcol_process_runtime_total_sys_memory_bytes",
            "",
            &mapped,
        );
    }
}

fn of_pipeline(pipeline: &PipelineLabels) -> String {
    format!(
        "{{data_type=\"{}\",exporter=\"{}\"}}",
        pipeline.signal.name(),
        pipeline.exporter
    )
}

fn is_limiter(id: &str) -> bool {
    id.split('/').next() == Some("memory_limiter")
}
