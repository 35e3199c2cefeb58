//! Writes `seeds/`: what each target starts from. Real requests come from `recorded/`, each file all
//! that the SDK for Go sent on one connection; the rest is built here, to have every kind of metric and
//! value.

use std::fs;
use std::io::Write;
use std::path::Path;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use otlp_wire::status::{Code, Status};
use prost::Message;

fn main() {
    let mut bodies = vec![(1, metrics())];
    for entry in fs::read_dir("recorded").expect("run it in agent/fuzz") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let bytes = fs::read(&path).expect("a recording");
        // In one piece and staying; in four, and leaving.
        put("connection", &name, &[&[0], bytes.as_slice()].concat());
        put(
            "connection",
            &format!("{name}-leaves"),
            &[&[0x83], bytes.as_slice()].concat(),
        );
        if name.starts_with("go-http-none") {
            bodies.extend(http_body(&bytes));
        }
    }
    for (number, (signal, body)) in bodies.iter().enumerate() {
        let name = number.to_string();
        put("scan", &name, &[&[*signal], body.as_slice()].concat());
        if *signal == 0 {
            put("edits", &name, &[&[0x20, 0x35], body.as_slice()].concat());
        }
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        put("framing", &name, &[&[0], &length[..], body].concat());
        for (kind, deflated) in [("zlib", zlib(body)), ("deflate", deflate(body))] {
            let seed = [&[3, 200, 250], deflated.as_slice()].concat();
            put("inflate", &format!("{name}-{kind}"), &seed);
        }
        let zstd = zstd::encode_all(body.as_slice(), 3).expect("zstd");
        put(
            "inflate",
            &format!("{name}-gzip"),
            &[&[0, 200, 250], gzip(body).as_slice()].concat(),
        );
        put(
            "inflate",
            &format!("{name}-zstd"),
            &[&[1, 200, 250], zstd.as_slice()].concat(),
        );
    }
    let zeroes = vec![0; 256 * 1024];
    let members = gzip(b"one")
        .into_iter()
        .chain(gzip(b"two"))
        .collect::<Vec<_>>();
    put(
        "inflate",
        "members",
        &[&[0, 200, 250], members.as_slice()].concat(),
    );
    put(
        "inflate",
        "bomb",
        &[&[0, 100, 250], gzip(&zeroes).as_slice()].concat(),
    );
    for (name, path) in [("contract", "../tests/config/contract.yaml")] {
        put("config", name, &fs::read(path).expect("the contract"));
    }
    put("config", "all", ALL.as_bytes());
    for (name, code, retry) in [("wait", 14, Some(1)), ("bad", 3, None), ("large", 8, None)] {
        let status = Status {
            code: Code(code),
            message: format!("{name}: 100 % of ü"),
            retry_after: retry.map(std::time::Duration::from_secs),
        };
        put("status", name, &status.encode());
    }
}

const ALL: &str = "receivers: {otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317', max_recv_msg_size_mib: 8}}}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 64, spike_limit_mib: 8}
  resource: {attributes: [{key: a, value: '${env:A:-b}', action: upsert}, {key: c, action: delete}]}
exporters:
  otlp_http/x:
    endpoint: https://example.com:4318/base
    compression: zstd
    headers: {authorization: '${file:/secret}'}
    sending_queue: {sizer: bytes, queue_size: 1000000, batch: {sizer: bytes, min_size: 1, max_size: 2}}
    retry_on_failure: {initial_interval: 1s, max_elapsed_time: 0}
service:
  pipelines: {logs/a: {receivers: [otlp], processors: [memory_limiter, resource], exporters: [otlp_http/x]}}
";

fn put(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new("seeds").join(target);
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(name), bytes).expect("a seed");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("zlib");
    encoder.finish().expect("zlib")
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("deflate");
    encoder.finish().expect("deflate")
}

/// Signal and body of the first request of an HTTP/1.1 connection.
fn http_body(bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let signal = ["/v1/traces", "/v1/metrics", "/v1/logs"]
        .iter()
        .position(|path| head.contains(path))?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))?
        .parse::<usize>()
        .ok()?;
    Some((
        u8::try_from(signal).ok()?,
        bytes.get(end..end + length)?.to_vec(),
    ))
}

fn metrics() -> Vec<u8> {
    let list = vec![
        value(any_value::Value::DoubleValue(0.5)),
        AnyValue { value: None },
    ];
    let map = vec![key_value("k", any_value::Value::BytesValue(vec![0, 255]))];
    let attributes = vec![
        key_value(
            "list",
            any_value::Value::ArrayValue(ArrayValue { values: list }),
        ),
        key_value(
            "map",
            any_value::Value::KvlistValue(KeyValueList { values: map }),
        ),
        key_value("flag", any_value::Value::BoolValue(true)),
    ];
    let point = NumberDataPoint {
        attributes: attributes.clone(),
        exemplars: vec![Exemplar {
            span_id: vec![1; 8],
            ..Exemplar::default()
        }],
        value: Some(number_data_point::Value::AsInt(-5)),
        ..NumberDataPoint::default()
    };
    let histogram = HistogramDataPoint {
        bucket_counts: vec![1, 2],
        explicit_bounds: vec![0.5],
        ..HistogramDataPoint::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        positive: Some(Buckets {
            offset: -7,
            bucket_counts: vec![300, 1],
        }),
        ..ExponentialHistogramDataPoint::default()
    };
    let summary = SummaryDataPoint {
        quantile_values: vec![ValueAtQuantile {
            quantile: 0.5,
            value: 3.0,
        }],
        ..SummaryDataPoint::default()
    };
    let kinds = [
        Data::Gauge(Gauge {
            data_points: vec![point.clone()],
        }),
        Data::Sum(Sum {
            data_points: vec![point],
            ..Sum::default()
        }),
        Data::Histogram(Histogram {
            data_points: vec![histogram],
            ..Histogram::default()
        }),
        Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![exponential],
            ..ExponentialHistogram::default()
        }),
        Data::Summary(Summary {
            data_points: vec![summary],
        }),
    ];
    let metrics = kinds.map(|data| Metric {
        data: Some(data),
        ..Metric::default()
    });
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: metrics.to_vec(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    request.encode_to_vec()
}

fn value(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn key_value(key: &str, of: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value(of)),
        ..KeyValue::default()
    }
}
