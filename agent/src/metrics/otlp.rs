//! The metrics as one OTLP request: cumulative sums and histograms since the start of the process, and gauges. A unit is
//! named only where the text has a suffix for it, so that a backend that makes Prometheus names of both finds the same.

use std::time::SystemTime;

use prost::Message as _;

use super::counters::Metrics;
use super::families::{Family, Kind, Point, PointValue, Surroundings, VERSION};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i32 = 2;

/// The name of what measures.
const SCOPE: &str = "otelagent-agent";

/// Whose metrics they are.
pub(crate) struct MetricsOrigin {
    /// When the process started, from which counters count.
    started: SystemTime,
    /// `service.instance.id`.
    instance: String,
}

impl MetricsOrigin {
    /// A process that starts now.
    pub(crate) fn new() -> Self {
        Self {
            started: SystemTime::now(),
            instance: uuid(fastrand::u128(..)),
        }
    }

    /// The attributes of the resource: those of every process, and what the configuration says instead or besides.
    fn resource(&self, configured: &[(String, Option<String>)]) -> proto::Resource {
        let own = [
            ("service.name", SCOPE),
            ("service.version", VERSION),
            ("service.instance.id", &self.instance),
        ];
        let is_own = |name: &str| !configured.iter().any(|(other, _)| other == name);
        let own = own.into_iter().filter(|(name, _)| is_own(name));
        let added = configured
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)));
        let attributes = own.chain(added);
        proto::Resource {
            attributes: attributes
                .map(|(name, value)| attribute(name, value))
                .collect(),
        }
    }
}

/// A random identifier as RFC 9562 writes it (version 4).
fn uuid(random: u128) -> String {
    let bits = random & !((0xf << 76) | (0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    let (a, b, c) = (part(0, 8), part(8, 12), part(12, 16));
    format!("{a}-{b}-{c}-{}-{}", part(16, 20), part(20, 32))
}

impl Metrics {
    /// All metrics as the bytes of an OTLP request.
    pub(crate) fn otlp(&self, around: &Surroundings<'_>, origin: &MetricsOrigin) -> Vec<u8> {
        let times = Times::new(origin.started, SystemTime::now());
        let families = self.families(around);
        let scope = proto::Scope {
            name: SCOPE.to_owned(),
            version: VERSION.to_owned(),
        };
        let of_scope = proto::ScopeMetrics {
            scope: Some(scope),
            metrics: families
                .iter()
                .map(|family| metric(family, times))
                .collect(),
        };
        let of_resource = proto::ResourceMetrics {
            resource: Some(origin.resource(&around.config.telemetry.resource)),
            scope_metrics: vec![of_scope],
        };
        let request = proto::Request {
            resource_metrics: vec![of_resource],
        };
        request.encode_to_vec()
    }
}

/// In nanoseconds since 1970.
#[derive(Clone, Copy)]
struct Times {
    started: u64,
    now: u64,
}

impl Times {
    /// A clock that was set back does not make the present older than the start.
    fn new(started: SystemTime, now: SystemTime) -> Self {
        let nanoseconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
        };
        let started = nanoseconds(started);
        Self {
            started,
            now: nanoseconds(now).max(started),
        }
    }
}

fn metric(family: &Family<'_>, times: Times) -> proto::Metric {
    let mut metric = proto::Metric {
        name: family.name.clone(),
        description: family.meaning.to_owned(),
        unit: unit(family),
        ..proto::Metric::default()
    };
    let points = family.points.iter();
    let numbers = |started| {
        points
            .clone()
            .map(|point| number(point, times, started))
            .collect()
    };
    match family.kind {
        Kind::Counter => {
            metric.sum = Some(proto::Sum {
                data_points: numbers(times.started),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            });
        }
        Kind::Gauge => {
            let data_points = numbers(0);
            metric.gauge = Some(proto::Gauge { data_points });
        }
        Kind::Histogram => {
            let data_points = points.map(|point| histogram(point, times));
            metric.histogram = Some(proto::Histogram {
                data_points: data_points.collect(),
                aggregation_temporality: CUMULATIVE,
            });
        }
    }
    metric
}

/// The unit as UCUM has it.
fn unit(family: &Family<'_>) -> String {
    let is_in = |unit| family.suffix == unit || family.name.ends_with(unit);
    match family.items {
        Some(items) => format!("{{{items}}}"),
        None if is_in("_bytes") => "By".to_owned(),
        None if is_in("_seconds") => "s".to_owned(),
        None => String::new(),
    }
}

fn number(point: &Point<'_>, times: Times, started: u64) -> proto::Number {
    let (as_int, as_double) = match &point.value {
        PointValue::Whole(value) => (Some(i64::try_from(*value).unwrap_or(i64::MAX)), None),
        PointValue::Signed(value) => (Some(*value), None),
        PointValue::Time(time) => (None, Some(time.as_secs_f64())),
        PointValue::Buckets { .. } => (None, None),
    };
    proto::Number {
        start_time_unix_nano: started,
        time_unix_nano: times.now,
        as_double,
        as_int,
        attributes: attributes(point),
    }
}

fn histogram(point: &Point<'_>, times: Times) -> proto::HistogramPoint {
    let of_time = proto::HistogramPoint {
        start_time_unix_nano: times.started,
        time_unix_nano: times.now,
        attributes: attributes(point),
        ..proto::HistogramPoint::default()
    };
    let PointValue::Buckets {
        bounds,
        counts,
        sum,
    } = &point.value
    else {
        return of_time;
    };
    proto::HistogramPoint {
        count: counts.iter().sum(),
        sum: Some(float(*sum)),
        bucket_counts: counts.clone(),
        explicit_bounds: bounds.iter().map(|bound| float(*bound)).collect(),
        ..of_time
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "OTLP has no other type for it, and 2^53 bytes are much"
)]
fn float(whole: u64) -> f64 {
    whole as f64
}

fn attributes(point: &Point<'_>) -> Vec<proto::KeyValue> {
    let labels = point.labels.iter();
    labels.map(|(name, value)| attribute(name, value)).collect()
}

fn attribute(key: &str, value: &str) -> proto::KeyValue {
    proto::KeyValue {
        key: key.to_owned(),
        value: Some(proto::AnyValue {
            string_value: Some(value.to_owned()),
        }),
    }
}

/// The part of `opentelemetry/proto/metrics/v1` and its neighbours that is sent; fields of a `oneof` are optional ones.
mod proto {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) resource_metrics: Vec<ResourceMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ResourceMetrics {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scope_metrics: Vec<ScopeMetrics>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct ScopeMetrics {
        #[prost(message, optional, tag = "1")]
        pub(super) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(super) metrics: Vec<Metric>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Scope {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) version: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Metric {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) description: String,
        #[prost(string, tag = "3")]
        pub(super) unit: String,
        #[prost(message, optional, tag = "5")]
        pub(super) gauge: Option<Gauge>,
        #[prost(message, optional, tag = "7")]
        pub(super) sum: Option<Sum>,
        #[prost(message, optional, tag = "9")]
        pub(super) histogram: Option<Histogram>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Gauge {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<Number>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Sum {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<Number>,
        #[prost(int32, tag = "2")]
        pub(super) aggregation_temporality: i32,
        #[prost(bool, tag = "3")]
        pub(super) is_monotonic: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Histogram {
        #[prost(message, repeated, tag = "1")]
        pub(super) data_points: Vec<HistogramPoint>,
        #[prost(int32, tag = "2")]
        pub(super) aggregation_temporality: i32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Number {
        #[prost(fixed64, tag = "2")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time_unix_nano: u64,
        #[prost(double, optional, tag = "4")]
        pub(super) as_double: Option<f64>,
        #[prost(sfixed64, optional, tag = "6")]
        pub(super) as_int: Option<i64>,
        #[prost(message, repeated, tag = "7")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct HistogramPoint {
        #[prost(fixed64, tag = "2")]
        pub(super) start_time_unix_nano: u64,
        #[prost(fixed64, tag = "3")]
        pub(super) time_unix_nano: u64,
        #[prost(fixed64, tag = "4")]
        pub(super) count: u64,
        #[prost(double, optional, tag = "5")]
        pub(super) sum: Option<f64>,
        #[prost(fixed64, repeated, tag = "6")]
        pub(super) bucket_counts: Vec<u64>,
        #[prost(double, repeated, tag = "7")]
        pub(super) explicit_bounds: Vec<f64>,
        #[prost(message, repeated, tag = "9")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct AnyValue {
        #[prost(string, optional, tag = "1")]
        pub(super) string_value: Option<String>,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn instance_is_a_uuid_of_version_4() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn present_is_never_before_the_start() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let times = Times::new(start, start - Duration::from_secs(5));
        assert_eq!((times.started, times.now), (10_000_000_000, 10_000_000_000));
    }
}
