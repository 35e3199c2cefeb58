//! One description of all metrics: their names, units, types and meanings, and where their values come from. The text
//! of `/metrics` and the OTLP form are both made from it.

use std::borrow::Cow;
use std::time::Duration;

use otlp_wire::Signal;

use super::counters::{
    BYTE_BOUNDS, Count, Distribution, FailedAttempt, ITEM_BOUNDS, Lost, Metrics, Push, Refused,
    Reload, SignalCounts, StorageHealth, Transport,
};
use super::labels::{
    DATA_TYPE, EXPORTER, FAILED_ATTEMPT, FINGERPRINT, LOST, Label, OUTCOME, PROCESSOR, PUSH,
    RECEIVER, REFUSED, RELOAD, SENDER, SIGNAL, SIGNAL_OF_PROCESSOR, STORAGE, TRANSPORT, UPSTREAM,
    VERSION_LABEL,
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
    /// The exporters.
    pub(crate) upstreams: Vec<UpstreamNow<'a>>,
    /// The age of the oldest request that waits, by signal.
    pub(crate) waiting: Vec<(Signal, Duration)>,
}

/// What an exporter says of itself.
pub(crate) struct UpstreamNow<'a> {
    pub(crate) name: &'a str,
    /// The number of its endpoint in use.
    pub(crate) endpoint: usize,
    /// For how long every attempt has failed.
    pub(crate) failing: Option<Duration>,
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

/// A metric without its values.
pub(super) struct Described {
    /// Its name in the OTLP form; of items, without the name of the signal's.
    pub(super) name: &'static str,
    /// What the text may write after the name.
    pub(super) suffix: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [Label],
    pub(super) meaning: &'static str,
}

const fn described(
    name: &'static str,
    suffix: &'static str,
    kind: Kind,
    labels: &'static [Label],
    meaning: &'static str,
) -> Described {
    Described {
        name,
        suffix,
        kind,
        labels,
        meaning,
    }
}

/// Families that have a name for each signal, which ends in `_spans` for example, and their values.
#[rustfmt::skip]
const OF_ITEMS: &[(Described, PointsOfPipeline)] = &[
    (described("otelcol_receiver_accepted", "", Counter, &[RECEIVER, TRANSPORT], "Acknowledged items."), |of| of.by_transport(|transport| of.counts.accepted[transport as usize].get())),
    (described("otelcol_receiver_refused", "", Counter, &[RECEIVER, TRANSPORT], "Items refused after they were counted; what is refused before it is read counts only as a request."), |of| of.by_transport(|transport| of.counts.refused_items[transport as usize].get())),
    // Nothing fails inside the agent that is neither refused nor lost.
    (described("otelcol_receiver_failed", "", Counter, &[RECEIVER, TRANSPORT], "Always 0: what fails is refused or lost."), |of| of.by_transport(|_| 0)),
    (described("otelcol_processor_memory_limiter_accepted", "", Counter, &[PROCESSOR], "Items accepted under the memory limit."), |of| of.by_limiter(of.accepted())),
    (described("otelcol_processor_memory_limiter_refused", "", Counter, &[PROCESSOR], "Items refused because of the memory limit."), |of| of.by_limiter(of.counts.memory_refused.get())),
    (described("otelcol_exporter_sent", "", Counter, &[EXPORTER], "Delivered items."), |of| of.by_exporter(&of.counts.sent)),
    (described("otelcol_exporter_send_failed", "", Counter, &[EXPORTER], "Lost items, all reasons together."), |of| vec![point([("exporter", &of.exporter.id)], sum(&of.counts.lost))]),
    (described("otelcol_exporter_enqueue_failed", "", Counter, &[EXPORTER], "Items refused because the queue was full."), |of| of.by_exporter(&of.counts.enqueue_failed)),
    (described("otelagent_lost", "", Counter, &[EXPORTER, LOST], "Lost items by reason."), |of| of.by_loss()),
    (described("otelagent_recovered", "", Counter, &[EXPORTER], "Items taken over from an earlier process through the disk."), |of| of.by_exporter(&of.counts.recovered)),
    (described("otelagent_queue", "", Gauge, &[EXPORTER], "Items held in the queue."), |of| of.by_exporter(&of.counts.queue_items)),
];

/// All others, and their values. Families of storages appear only for queues that should be on disk. Heap and system
/// memory are the closest equivalents of what Go's runtime reports.
#[rustfmt::skip]
const OTHERS: &[(Described, PointsOfAll)] = &[
    (described("otelcol_exporter_queue_size", "", Gauge, &[DATA_TYPE, EXPORTER], "Bytes held in the queue."), |all| all.pipelines(|of| Some(of.counts.queue_bytes.get() + of.counts.leftover_bytes.get()))),
    (described("otelcol_exporter_queue_capacity", "", Gauge, &[DATA_TYPE, EXPORTER], "Limit of the queue in bytes."), |all| all.pipelines(|of| Some(of.exporter.queue.capacity as u64))),
    (described("otelcol_exporter_in_flight_requests", "", Gauge, &[DATA_TYPE, EXPORTER], "Requests to the upstream in flight."), |all| all.pipelines(|of| Some(of.counts.in_flight.get()))),
    (described("otelagent_queue_age", "_seconds", Gauge, &[DATA_TYPE, EXPORTER], "Age of the oldest request that waits in the queue, in seconds; those that are being sent do not count."), |all| all.pipelines(|of| Some(all.age(of)))),
    (described("otelagent_exporter_plain", "_bytes", Counter, &[DATA_TYPE, EXPORTER], "Bytes of all attempts before compression."), |all| all.pipelines(|of| Some(of.counts.plain_bytes.get()))),
    (described("otelagent_exporter_wire", "_bytes", Counter, &[DATA_TYPE, EXPORTER], "Bytes of all attempts after compression."), |all| all.pipelines(|of| Some(of.counts.wire_bytes.get()))),
    (described("otelagent_storage_failing", "", Gauge, &[DATA_TYPE, EXPORTER, STORAGE], "1 while the queue cannot be on disk and is in memory; only with a storage."), |all| all.storages()),
    (described("otelagent_storage_damaged_records", "", Counter, &[DATA_TYPE, EXPORTER], "Records skipped on disk because of a wrong checksum."), |all| all.pipelines(|of| of.stored(of.counts.damaged_records.get()))),
    (described("otelagent_storage_damaged", "_bytes", Counter, &[DATA_TYPE, EXPORTER], "Bytes skipped on disk because of a wrong checksum."), |all| all.pipelines(|of| of.stored(of.counts.damaged_bytes.get()))),
    (described("otelagent_exporter_failed_attempts", "", Counter, &[FAILED_ATTEMPT], "Attempts that failed and were repeated."), |all| all.failed_attempts()),
    (described("otelagent_exporter_failing", "_seconds", Gauge, &[UPSTREAM], "Seconds since which every attempt has failed, rounded up; 0 while the upstream takes what is sent, and before the first attempt."), |all| all.failing()),
    (described("otelagent_exporter_endpoint_index", "", Gauge, &[UPSTREAM], "The endpoint in use: 0 is `endpoint`, 1 the first of `failover.endpoints`."), |all| all.upstreams(|upstream| upstream.endpoint as u64)),
    (described("otelagent_repaired_strings", "", Counter, &[], "Strings that were not UTF-8; their bad bytes became question marks."), |all| one(all.metrics.repaired_strings.get())),
    (described("otelagent_connections", "", Counter, &[], "Accepted connections."), |all| one(all.metrics.connections.get())),
    (described("otelagent_open_connections", "", Gauge, &[], "Open connections."), |all| one(all.metrics.connections_open.get())),
    (described("otelagent_connections_limit", "", Gauge, &[], "Limit of open connections."), |all| one(all.around.connections as u64)),
    (described("otelagent_accept_errors", "", Counter, &[], "Connections that the system could not accept."), |all| one(all.metrics.accept_errors.get())),
    (described("otelagent_tls_handshakes_failed", "", Counter, &[], "Connections that ended before the TLS handshake was complete."), |all| one(all.metrics.handshakes_failed.get())),
    (described("otelagent_config_last_success_timestamp", "_seconds", Gauge, &[], "When the configuration in use was read, in seconds since 1970."), |all| one(all.metrics.configured[0].get())),
    (described("otelagent_memory_held", "_bytes", Gauge, &[], "Telemetry in memory, in bytes."), |all| one(all.around.memory.0 as u64)),
    (described("otelagent_memory_limit", "_bytes", Gauge, &[], "The limit above which telemetry is refused, in bytes."), |all| one(all.around.memory.1 as u64)),
    (described("otelagent_sender_held", "_bytes", Gauge, &[SENDER], "Bytes held of each of the ten senders that hold the most."), |all| all.senders(|sender| sender.held() as u64)),
    (described("otelagent_sender_refused_requests", "", Counter, &[SENDER], "Requests refused for lack of room, of each of the ten senders refused most often; forgotten once there are 1024 senders and this one is gone."), |all| all.senders(Sender::refused)),
    (described("otelcol_process_uptime", "_seconds", Counter, &[], "Seconds since the start of the process."), |all| one(all.around.uptime.as_secs())),
    (described("otelcol_process_memory_rss", "_bytes", Gauge, &[], "Resident memory in bytes."), |all| all.process(|usage| one(usage.resident))),
    (described("otelcol_process_runtime_heap_alloc_bytes", "", Gauge, &[], "Anonymous memory in bytes."), |all| all.process(|usage| one(usage.anonymous))),
    (described("otelcol_process_runtime_total_sys_memory_bytes", "", Gauge, &[], "Address space in bytes."), |all| all.process(|usage| one(usage.virtual_memory))),
    (described("otelcol_process_cpu_seconds", "", Counter, &[], "CPU time of the process."), |all| all.process(|usage| of_time(usage.cpu_time))),
    (described("otelcol_receiver_requests", "", Counter, &[OUTCOME, RECEIVER, TRANSPORT], "Requests by outcome."), |all| all.requests()),
    (described("otelagent_refused_requests", "", Counter, &[REFUSED, TRANSPORT], "Refused requests by reason."), |all| all.refusals()),
    (described("otelcol_processor_incoming_items", "", Counter, &[SIGNAL_OF_PROCESSOR, PROCESSOR], "Items into a processor."), |all| all.processors(|of, id| of.accepted() + if is_limiter(id) { of.counts.memory_refused.get() } else { 0 })),
    (described("otelcol_processor_outgoing_items", "", Counter, &[SIGNAL_OF_PROCESSOR, PROCESSOR], "Items out of a processor."), |all| all.processors(|of, _| of.accepted())),
    (described("otelcol_exporter_queue_batch_send_size", "", Histogram, &[DATA_TYPE, EXPORTER], "Sizes of batches in items."), |all| all.histograms(&ITEM_BOUNDS, |counts| &counts.batch_items)),
    (described("otelcol_exporter_queue_batch_send_size_bytes", "", Histogram, &[DATA_TYPE, EXPORTER], "Sizes of batches in uncompressed bytes."), |all| all.histograms(&BYTE_BOUNDS, |counts| &counts.batch_bytes)),
    (described("otelagent_books_imbalance", "", Gauge, &[SIGNAL], "Accepted + recovered - delivered - held - lost: always 0."), |all| all.imbalance()),
    (described("otelagent_config_reloads", "", Counter, &[RELOAD], "How often the configuration was read, by result."), |all| all.reloads()),
    (described("otelagent_metrics_pushes", "", Counter, &[PUSH], "Pushes of these metrics by result."), |all| all.pushes()),
    (described("otelagent_config_info", "", Gauge, &[FINGERPRINT], "1, with the fingerprint of the configuration in use."), |all| all.fingerprint()),
    (described("otelagent_build_info", "", Gauge, &[VERSION_LABEL], "1, with the version."), |_| vec![point([("version", VERSION)], 1)]),
];

/// The families that have a name for each signal.
pub(super) fn of_items() -> impl Iterator<Item = &'static Described> {
    OF_ITEMS.iter().map(|(described, _)| described)
}

/// All others.
pub(super) fn others() -> impl Iterator<Item = &'static Described> {
    OTHERS.iter().map(|(described, _)| described)
}

impl Family<'_> {
    /// Without values.
    fn of(described: &Described) -> Self {
        Self {
            name: described.name.to_owned(),
            suffix: described.suffix,
            kind: described.kind,
            meaning: described.meaning,
            items: None,
            points: Vec::new(),
        }
    }
}

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
            families.extend(OF_ITEMS.iter().map(|(described, points)| Family {
                name: format!("{}_{items}", described.name),
                items: Some(items),
                points: points(of),
                ..Family::of(described)
            }));
        }
        families.extend(OTHERS.iter().map(|(described, points)| Family {
            points: points(&snapshot),
            ..Family::of(described)
        }));
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

    fn upstreams(&self, value: impl Fn(&UpstreamNow<'a>) -> u64) -> Points<'a> {
        let upstreams = self.around.upstreams.iter();
        upstreams
            .map(|upstream| point([("exporter", upstream.name)], value(upstream)))
            .collect()
    }

    fn failing(&self) -> Points<'a> {
        self.upstreams(|upstream| upstream.failing.map_or(0, |time| time.as_secs() + 1))
    }

    /// In seconds, of what waits for a pipeline's exporter.
    fn age(&self, of: &PipelineCounts<'a>) -> u64 {
        let mut waiting = self.around.waiting.iter();
        let found = waiting.find(|(signal, _)| *signal == of.pipeline.signal);
        found.map_or(0, |(_, age)| age.as_secs())
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
        vec![Point {
            labels: vec![("fingerprint", self.metrics.fingerprint().into())],
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
