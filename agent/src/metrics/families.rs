//! One description of all metrics: their names, units, types and meanings, and where their values come from. The text
//! of `/metrics` and the OTLP form are both made from it.

use std::borrow::Cow;
use std::time::Duration;

use super::counters::{
    BYTE_BOUNDS, Count, Distribution, FailedAttempt, ITEM_BOUNDS, Lost, Metrics, Push, Refused,
    Reload, SignalCounts, StorageHealth, Transport,
};
use super::process::Usage;
use crate::config::{Config, Exporter, Pipeline};
use crate::lock::lock;
use crate::senders::{Sender, Senders};

/// The number of senders that have series of their own.
const TOP_SENDERS: usize = 10;

/// The version of this program.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What a snapshot needs besides the counters.
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

/// The type of a family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// A family and its values now.
pub(super) struct Family<'a> {
    /// Its name in the OTLP form.
    pub(super) name: String,
    /// What the text may write after the name.
    pub(super) suffix: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: &'static str,
    /// What its values count, if that has a name for each signal.
    pub(super) items: Option<&'static str>,
    /// Never empty.
    pub(super) points: Vec<Point<'a>>,
}

/// One series and its value now.
pub(super) struct Point<'a> {
    pub(super) labels: Vec<(&'static str, Cow<'a, str>)>,
    pub(super) value: PointValue,
}

/// A value.
pub(super) enum PointValue {
    Whole(u64),
    Signed(i64),
    Time(Duration),
    Buckets {
        /// The upper bounds of all but the last bucket.
        bounds: &'static [u64],
        counts: Vec<u64>,
        sum: u64,
    },
}

type Points<'a> = Vec<Point<'a>>;
type PointsOfPipeline = for<'a> fn(&PipelineCounts<'a>) -> Points<'a>;
type PointsOfAll = for<'a> fn(&Snapshot<'a>) -> Points<'a>;

/// A pipeline and what happened to its signal.
struct PipelineCounts<'a> {
    receiver: &'a str,
    pipeline: &'a Pipeline,
    exporter: &'a Exporter,
    counts: &'a SignalCounts,
}

/// Families that have a name for each signal, which ends in `_spans` for example: the name without that, the type, the
/// meaning and the values.
#[rustfmt::skip]
const OF_ITEMS: &[(&str, Kind, &str, PointsOfPipeline)] = &[
    ("otelcol_receiver_accepted", Counter, "Acknowledged items.", |of| of.by_transport(|transport| of.counts.accepted[transport as usize].get())),
    ("otelcol_receiver_refused", Counter, "Items refused after they were counted.", |of| of.by_transport(|transport| of.counts.refused_items[transport as usize].get())),
    // Nothing fails inside the agent that is neither refused nor lost.
    ("otelcol_receiver_failed", Counter, "Always 0: what fails is refused or lost.", |of| of.by_transport(|_| 0)),
    ("otelcol_processor_memory_limiter_accepted", Counter, "Items accepted under the memory limit.", |of| of.by_limiter(of.accepted())),
    ("otelcol_processor_memory_limiter_refused", Counter, "Items refused because of the memory limit.", |of| of.by_limiter(of.counts.memory_refused.get())),
    ("otelcol_exporter_sent", Counter, "Delivered items.", |of| of.by_exporter(&of.counts.sent)),
    ("otelcol_exporter_send_failed", Counter, "Lost items, all reasons together.", |of| vec![point([("exporter", &of.exporter.id)], sum(&of.counts.lost))]),
    ("otelcol_exporter_enqueue_failed", Counter, "Items refused because the queue was full.", |of| of.by_exporter(&of.counts.enqueue_failed)),
    ("otelagent_lost", Counter, "Lost items by reason.", |of| of.by_loss()),
    ("otelagent_recovered", Counter, "Items taken over from an earlier process through the disk.", |of| of.by_exporter(&of.counts.recovered)),
    ("otelagent_queue", Gauge, "Items held in the queue.", |of| of.by_exporter(&of.counts.queue_items)),
];

/// All others: the name, the suffix of its unit, the type, the meaning and the values. Families of storages appear only
/// for queues that should be on disk. Heap and system memory are the closest equivalents of what Go's runtime reports.
#[rustfmt::skip]
const OTHERS: &[(&str, &str, Kind, &str, PointsOfAll)] = &[
    ("otelcol_exporter_queue_size", "", Gauge, "Bytes held in the queue.", |all| all.pipelines(|of| Some(of.counts.queue_bytes.get() + of.counts.leftover_bytes.get()))),
    ("otelcol_exporter_queue_capacity", "", Gauge, "Limit of the queue in bytes.", |all| all.pipelines(|of| Some(of.exporter.queue.capacity as u64))),
    ("otelcol_exporter_in_flight_requests", "", Gauge, "Requests to the upstream in flight.", |all| all.pipelines(|of| Some(of.counts.in_flight.get()))),
    ("otelagent_exporter_plain", "_bytes", Counter, "Bytes of all attempts before compression.", |all| all.pipelines(|of| Some(of.counts.plain_bytes.get()))),
    ("otelagent_exporter_wire", "_bytes", Counter, "Bytes of all attempts after compression.", |all| all.pipelines(|of| Some(of.counts.wire_bytes.get()))),
    ("otelagent_storage_failing", "", Gauge, "1 while the queue cannot be on disk.", |all| all.storages()),
    ("otelagent_storage_damaged_records", "", Counter, "Records skipped on disk because of a wrong checksum.", |all| all.pipelines(|of| of.stored(of.counts.damaged_records.get()))),
    ("otelagent_storage_damaged", "_bytes", Counter, "Bytes skipped on disk because of a wrong checksum.", |all| all.pipelines(|of| of.stored(of.counts.damaged_bytes.get()))),
    ("otelagent_exporter_failed_attempts", "", Counter, "Attempts that failed and were repeated.", |all| all.failed_attempts()),
    ("otelagent_exporter_endpoint_index", "", Gauge, "Which endpoint is in use: 0 is the first, others are of failover.", |all| all.endpoints()),
    ("otelagent_repaired_strings", "", Counter, "Strings that were not UTF-8; their bad bytes became question marks.", |all| one(all.metrics.repaired_strings.get())),
    ("otelagent_connections", "", Counter, "Accepted connections.", |all| one(all.metrics.connections.get())),
    ("otelagent_open_connections", "", Gauge, "Open connections.", |all| one(all.metrics.connections_open.get())),
    ("otelagent_connections_limit", "", Gauge, "Limit of open connections.", |all| one(all.around.connections as u64)),
    ("otelagent_accept_errors", "", Counter, "Connections that the system could not accept.", |all| one(all.metrics.accept_errors.get())),
    ("otelagent_tls_handshakes_failed", "", Counter, "Connections that ended before the TLS handshake was complete.", |all| one(all.metrics.handshakes_failed.get())),
    ("otelagent_config_last_success_timestamp", "_seconds", Gauge, "When the configuration in use was read, in seconds since 1970.", |all| one(all.metrics.configured[0].get())),
    ("otelagent_memory_held", "_bytes", Gauge, "Telemetry in memory, in bytes.", |all| one(all.around.memory.0 as u64)),
    ("otelagent_memory_limit", "_bytes", Gauge, "The limit above which telemetry is refused, in bytes.", |all| one(all.around.memory.1 as u64)),
    ("otelagent_sender_held", "_bytes", Gauge, "Bytes held of one of the senders that hold the most.", |all| all.senders(|sender| sender.held() as u64)),
    ("otelagent_sender_refused_requests", "", Counter, "Requests refused for lack of room, of one of the senders refused most often.", |all| all.senders(Sender::refused)),
    ("otelcol_process_uptime", "_seconds", Counter, "Seconds since the start of the process.", |all| one(all.around.uptime.as_secs())),
    ("otelcol_process_memory_rss", "_bytes", Gauge, "Resident memory in bytes.", |all| all.process(|usage| one(usage.resident))),
    ("otelcol_process_runtime_heap_alloc_bytes", "", Gauge, "Anonymous memory in bytes.", |all| all.process(|usage| one(usage.anonymous))),
    ("otelcol_process_runtime_total_sys_memory_bytes", "", Gauge, "Address space in bytes.", |all| all.process(|usage| one(usage.virtual_memory))),
    ("otelcol_process_cpu_seconds", "", Counter, "CPU time of the process.", |all| all.process(|usage| of_time(usage.cpu_time))),
    ("otelcol_receiver_requests", "", Counter, "Requests by outcome.", |all| all.requests()),
    ("otelagent_refused_requests", "", Counter, "Refused requests by reason.", |all| all.refusals()),
    ("otelcol_processor_incoming_items", "", Counter, "Items into a processor.", |all| all.processors(|of, id| of.accepted() + if is_limiter(id) { of.counts.memory_refused.get() } else { 0 })),
    ("otelcol_processor_outgoing_items", "", Counter, "Items out of a processor.", |all| all.processors(|of, _| of.accepted())),
    ("otelcol_exporter_queue_batch_send_size", "", Histogram, "Sizes of batches in items.", |all| all.histograms(&ITEM_BOUNDS, |counts| &counts.batch_items)),
    ("otelcol_exporter_queue_batch_send_size_bytes", "", Histogram, "Sizes of batches in uncompressed bytes.", |all| all.histograms(&BYTE_BOUNDS, |counts| &counts.batch_bytes)),
    ("otelagent_books_imbalance", "", Gauge, "Accepted + recovered - delivered - held - lost: always 0.", |all| all.imbalance()),
    ("otelagent_config_reloads", "", Counter, "How often the configuration was read, by result.", |all| all.reloads()),
    ("otelagent_metrics_pushes", "", Counter, "Pushes of these metrics by result.", |all| all.pushes()),
    ("otelagent_config_info", "", Gauge, "1, with the fingerprint of the configuration in use.", |all| all.fingerprint()),
    ("otelagent_build_info", "", Gauge, "1, with the version.", |_| vec![point([("version", VERSION)], 1)]),
];

impl Metrics {
    /// Every family that has a value now.
    pub(super) fn families<'a>(&'a self, around: &'a Surroundings<'a>) -> Vec<Family<'a>> {
        let pipelines = around.config.pipelines.iter().filter_map(|pipeline| {
            Some(PipelineCounts {
                receiver: &around.config.receiver.id,
                pipeline,
                exporter: around.config.exporters.get(pipeline.exporter)?,
                counts: self.of(pipeline.signal),
            })
        });
        let snapshot = Snapshot {
            metrics: self,
            around,
            pipelines: pipelines.collect(),
            usage: Usage::now(),
        };
        let mut families = Vec::with_capacity(128);
        for of in &snapshot.pipelines {
            let items = of.pipeline.signal.items();
            families.extend(OF_ITEMS.iter().map(|(name, kind, meaning, points)| Family {
                name: format!("{name}_{items}"),
                suffix: "",
                kind: *kind,
                meaning,
                items: Some(items),
                points: points(of),
            }));
        }
        families.extend(
            OTHERS
                .iter()
                .map(|(name, suffix, kind, meaning, points)| Family {
                    name: (*name).to_owned(),
                    suffix,
                    kind: *kind,
                    meaning,
                    items: None,
                    points: points(&snapshot),
                }),
        );
        families.retain(|family| !family.points.is_empty());
        families
    }
}

/// The counters at one moment.
struct Snapshot<'a> {
    metrics: &'a Metrics,
    around: &'a Surroundings<'a>,
    pipelines: Vec<PipelineCounts<'a>>,
    usage: Option<Usage>,
}

impl<'a> Snapshot<'a> {
    /// One series for each pipeline that has a value.
    fn pipelines(&self, value: impl Fn(&PipelineCounts<'a>) -> Option<u64>) -> Points<'a> {
        let points = self.pipelines.iter();
        points
            .filter_map(|of| Some(point(of.pairs(), value(of)?)))
            .collect()
    }

    /// Whether each storage fails, and why.
    fn storages(&self) -> Points<'a> {
        let points = self.pipelines.iter().filter_map(|of| {
            let [data_type, exporter] = of.pairs();
            match of.storage() {
                StorageHealth::None => None,
                StorageHealth::Works => Some(point([data_type, exporter], 0)),
                StorageHealth::Fails(reason) => {
                    Some(point([data_type, exporter, ("reason", reason)], 1))
                }
            }
        });
        points.collect()
    }

    fn process(&self, points: impl Fn(&Usage) -> Points<'a>) -> Points<'a> {
        self.usage.as_ref().map(points).unwrap_or_default()
    }

    fn requests(&self) -> Points<'a> {
        let mut all = Vec::new();
        for (at, transport) in Transport::ALL.iter().enumerate() {
            let taken = self.metrics.requests_taken[at].get();
            let refused = sum(&self.metrics.requests_refused[at]);
            for (outcome, value) in [("success", taken), ("refused", refused)] {
                let receiver = ("receiver", self.around.config.receiver.id.as_str());
                let transport = ("transport", transport.name());
                all.push(point([("outcome", outcome), receiver, transport], value));
            }
        }
        all
    }

    fn senders(&self, number: fn(&Sender) -> u64) -> Points<'a> {
        let top = self.around.senders.top(TOP_SENDERS, number).into_iter();
        top.map(|(sender, number)| Point {
            labels: vec![("sender", sender.into())],
            value: PointValue::Whole(number),
        })
        .collect()
    }

    fn refusals(&self) -> Points<'a> {
        let mut all = Vec::new();
        for (transport, refused) in Transport::ALL.iter().zip(&self.metrics.requests_refused) {
            for (reason, count) in Refused::ALL.iter().zip(refused) {
                let labels = [("reason", reason.name()), ("transport", transport.name())];
                all.push(point(labels, count.get()));
            }
        }
        all
    }

    /// One series for each processor of each pipeline.
    fn processors(&self, value: impl Fn(&PipelineCounts<'a>, &str) -> u64) -> Points<'a> {
        let mut all = Vec::new();
        for of in &self.pipelines {
            for id in &of.pipeline.processors {
                let signal = ("otel_signal", of.pipeline.signal.name());
                all.push(point([signal, ("processor", id)], value(of, id)));
            }
        }
        all
    }

    fn histograms(
        &self,
        bounds: &'static [u64],
        of: fn(&SignalCounts) -> &Distribution,
    ) -> Points<'a> {
        let points = self.pipelines.iter().map(|pipeline| {
            let Distribution { counts, sum } = of(pipeline.counts);
            let counts = counts.iter().take(bounds.len() + 1).map(Count::get);
            let value = PointValue::Buckets {
                bounds,
                counts: counts.collect(),
                sum: sum.get(),
            };
            Point {
                labels: borrowed(pipeline.pairs()),
                value,
            }
        });
        points.collect()
    }

    fn imbalance(&self) -> Points<'a> {
        let points = self.pipelines.iter().map(|of| {
            let signal = of.pipeline.signal;
            let imbalance = self.metrics.books(signal).imbalance();
            let most = if imbalance < 0 { i64::MIN } else { i64::MAX };
            Point {
                labels: borrowed([("signal", signal.name())]),
                value: PointValue::Signed(i64::try_from(imbalance).unwrap_or(most)),
            }
        });
        points.collect()
    }

    fn endpoints(&self) -> Points<'a> {
        let endpoints = self.around.endpoints.iter();
        endpoints
            .map(|(exporter, index)| point([("exporter", exporter)], *index as u64))
            .collect()
    }

    fn failed_attempts(&self) -> Points<'a> {
        let reasons = FailedAttempt::ALL.iter().zip(&self.metrics.attempts_failed);
        reasons
            .map(|(reason, count)| point([("reason", reason.name())], count.get()))
            .collect()
    }

    fn reloads(&self) -> Points<'a> {
        let results = Reload::ALL.iter().zip(&self.metrics.reloads);
        results
            .map(|(result, count)| point([("result", result.name())], count.get()))
            .collect()
    }

    fn pushes(&self) -> Points<'a> {
        let results = Push::ALL.iter().zip(&self.metrics.pushes);
        results
            .map(|(result, count)| point([("result", result.name())], count.get()))
            .collect()
    }

    fn fingerprint(&self) -> Points<'a> {
        let fingerprint = format!("{:016x}", self.metrics.configured[1].get());
        vec![Point {
            labels: vec![("fingerprint", fingerprint.into())],
            value: PointValue::Whole(1),
        }]
    }
}

impl<'a> PipelineCounts<'a> {
    fn pairs(&self) -> [(&'static str, &'a str); 2] {
        let signal = self.pipeline.signal.name();
        [("data_type", signal), ("exporter", &self.exporter.id)]
    }

    fn by_exporter(&self, count: &Count) -> Points<'a> {
        vec![point([("exporter", &self.exporter.id)], count.get())]
    }

    fn by_limiter(&self, value: u64) -> Points<'a> {
        let id = self.pipeline.processors.iter().find(|id| is_limiter(id));
        let id = id.map_or("memory_limiter", String::as_str);
        vec![point([("processor", id)], value)]
    }

    fn by_transport(&self, value: impl Fn(Transport) -> u64) -> Points<'a> {
        let points = Transport::ALL.iter().map(|transport| {
            let name = ("transport", transport.name());
            point([("receiver", self.receiver), name], value(*transport))
        });
        points.collect()
    }

    fn by_loss(&self) -> Points<'a> {
        let reasons = Lost::ALL.iter().zip(&self.counts.lost);
        let points = reasons.map(|(reason, count)| {
            let reason = ("reason", reason.name());
            point([("exporter", &self.exporter.id), reason], count.get())
        });
        points.collect()
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

fn one<'a>(value: u64) -> Points<'a> {
    vec![point([], value)]
}

fn of_time<'a>(value: Duration) -> Points<'a> {
    vec![Point {
        labels: Vec::new(),
        value: PointValue::Time(value),
    }]
}

fn point<'a, const N: usize>(labels: [(&'static str, &'a str); N], value: u64) -> Point<'a> {
    Point {
        labels: borrowed(labels),
        value: PointValue::Whole(value),
    }
}

fn borrowed<'a, const N: usize>(
    labels: [(&'static str, &'a str); N],
) -> Vec<(&'static str, Cow<'a, str>)> {
    labels.map(|(name, value)| (name, value.into())).into()
}

fn sum(counts: &[Count]) -> u64 {
    counts.iter().map(Count::get).sum()
}

fn is_limiter(id: &str) -> bool {
    id.split('/').next() == Some("memory_limiter")
}
