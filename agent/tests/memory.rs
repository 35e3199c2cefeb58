//! The memory limit holds whatever is sent: the process has at most the limit and a tenth, beside what it has when it
//! does nothing.

use std::io::Write;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value};
use prost::Message;
use tokio::task::JoinSet;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Http};
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::{logs, spans};
use crate::support::{PATIENCE, eventually};

const HELD: &str = "otelagent_memory_held_bytes";

fn limited(setup: Setup, mib: u64) -> Setup {
    let limiter = format!("memory_limiter: {{check_interval: 1s, limit_mib: {mib}}}");
    setup.processors(&limiter, "memory_limiter")
}

/// Since it was idle the agent has never used more than the limit and a tenth.
fn assert_within(agent: &Agent, idle_kib: u64, limit_mib: u64) {
    let grown = agent.peak() - idle_kib;
    let most = limit_mib * 1024 * 11 / 10;
    println!(
        "grown by {grown} KiB of {most}, held {}",
        agent.metric(HELD, "")
    );
    assert!(grown <= most, "grew by {grown} KiB, {most} allowed");
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn tiny_requests_stay_within_the_memory_limit() {
    const LIMIT_MIB: u64 = 16;
    // An entry with one span of nothing, and the same with a name.
    let tiny = vec![0x0a, 0x04, 0x12, 0x02, 0x12, 0x00];
    let named = |bytes: u8| {
        let name = vec![b'n'; usize::from(bytes)];
        within(1, &within(2, &within(2, &within(5, &name))))
    };
    let cases = [(tiny, "none"), (named(47), "gzip"), (named(100), "gzip")];
    for (message, compression) in cases {
        let sink = Sink::http().await;
        sink.always(Some(Reply::Http(503, Vec::new())));
        let setup = Setup::http(sink.address).exporter(&format!("compression: {compression}"));
        let agent = limited(setup, LIMIT_MIB).start();
        let idle = agent.resident();
        let hundred = client::hundred(&message);
        let mut http = Http::connect(agent.port()).await;
        let mut sent = 0;
        loop {
            http.write(&hundred).await;
            let refused = http.refused_of(100).await;
            sent += 100 - refused;
            if refused == 100 {
                break;
            }
        }
        println!("{} bytes, {compression}: {sent} requests", message.len());
        assert_within(&agent, idle, LIMIT_MIB);
        // What is delivered leaves nothing behind.
        sink.always(None);
        eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
        assert_eq!(
            agent.metric("otelcol_exporter_sent_spans_total", ""),
            sent as u64
        );
        assert_within(&agent, idle, LIMIT_MIB);
    }
}

#[tokio::test]
async fn agent_keeps_its_name_when_it_sets_its_allocator() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let of = |file: &str| std::fs::read(format!("/proc/{}/{file}", agent.pid())).unwrap();
    assert_eq!(of("comm"), b"otelagent-agent\n");
    let environment = String::from_utf8(of("environ")).unwrap();
    assert!(environment.contains("GLIBC_TUNABLES=glibc.malloc."));
}

/// Bytes that cannot be compressed.
fn random(bytes: usize) -> AnyValue {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let value = (0..bytes).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    AnyValue {
        value: Some(any_value::Value::BytesValue(value.collect())),
    }
}

#[tokio::test]
async fn incompressible_requests_and_a_mute_upstream_stay_within_the_limit() {
    // The threads' heaps take some 2 MiB more than what is in them, whatever the limit.
    const LIMIT_MIB: u64 = 64;
    let mut trace = spans("span", 1);
    trace.resource_spans[0].scope_spans[0].spans[0].attributes[0].value = Some(random(95_000));
    let mut log = logs("log", 1);
    log.resource_logs[0].scope_logs[0].log_records[0].body = Some(random(95_000));
    let messages = [
        ("/v1/traces", trace.encode_to_vec()),
        ("/v1/logs", log.encode_to_vec()),
    ];
    let sink = Sink::http().await;
    let setup = Setup::to_with_timeout("otlp_http", sink.address, "5s")
        .batch("flush_timeout: 20ms, sizer: bytes, min_size: 1000000, max_size: 1000000");
    let agent = limited(setup, LIMIT_MIB).start();
    let idle = agent.resident();
    let mut http = Http::connect(agent.port()).await;
    let mut send = async |number: usize| {
        let (path, message) = &messages[number % 2];
        http.post(path, &[], message).await.unwrap().status
    };
    // Many are sent at a time to an upstream that is well.
    for number in 0..400 {
        while send(number).await == 503 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
    sink.always(Some(Reply::Silence));
    let begun = Instant::now();
    let (mut refused, mut most) = (0, 0);
    for number in 0.. {
        if send(number).await == 503 {
            refused += 1;
            most = most.max(agent.metric(HELD, ""));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if refused >= 20 && begun.elapsed() > Duration::from_secs(10) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{refused} refused");
    }
    println!("{refused} refused, {most} bytes held");
    assert!(most <= LIMIT_MIB * 1024 * 1024, "{most} bytes held");
    assert_within(&agent, idle, LIMIT_MIB);
    // Where memory is short, one export after the other goes on.
    sink.always(None);
    eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
    assert_within(&agent, idle, LIMIT_MIB);
}

/// A compressed log request whose decoder needs 8 MiB beside the nearly 8 MiB that come out.
fn wide() -> Vec<u8> {
    use zstd::zstd_safe::CParameter;
    let mut log = logs("log", 1);
    let text = any_value::Value::StringValue("x".repeat(7_500_000));
    log.resource_logs[0].scope_logs[0].log_records[0].body = Some(AnyValue { value: Some(text) });
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(CParameter::WindowLog(23)).unwrap();
    std::io::copy(&mut log.encode_to_vec().as_slice(), &mut encoder).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn window_of_a_decoder_stays_within_the_limit() {
    const LIMIT_MIB: u64 = 32;
    let sink = Sink::http().await;
    sink.always(Some(Reply::Http(503, Vec::new())));
    let agent = limited(Setup::http(sink.address), LIMIT_MIB).start();
    let idle = agent.resident();
    let mut http = Http::connect(agent.port()).await;
    let mut trace = spans("span", 1);
    trace.resource_spans[0].schema_url = "x".repeat(900_000);
    let plain = trace.encode_to_vec();
    for _ in 0..11 {
        let answer = http.post("/v1/traces", &[], &plain).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let zstd = [("content-encoding", "zstd")];
    let answer = http.post("/v1/logs", &zstd, &wide()).await.unwrap();
    assert_eq!(answer.status, 503, "there is no memory for it");
    assert_within(&agent, idle, LIMIT_MIB);
    sink.always(None);
    eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
    let answer = http.post("/v1/logs", &zstd, &wide()).await.unwrap();
    assert_eq!(answer.status, 200, "now there is");
    eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
}

#[tokio::test]
async fn large_requests_from_disk_stay_within_the_limit() {
    const LIMIT_MIB: u64 = 16;
    let directory = crate::support::agent::temporary("queue");
    let sink = Sink::http().await;
    sink.always(Some(Reply::Http(503, Vec::new())));
    let setup = Setup::http(sink.address)
        .exporter("compression: none")
        .storage(&directory, "create_directory: true")
        // So small that it reads while others are in flight.
        .sending_queue("queue_size: 24000000, sizer: bytes")
        .retry("initial_interval: 1s, max_interval: 1s");
    let agent = limited(setup, LIMIT_MIB).start();
    let idle = agent.resident();
    let mut http = Http::connect(agent.port()).await;
    for number in 0..4 {
        let mut trace = spans(&format!("span-{number}"), 1);
        trace.resource_spans[0].scope_spans[0].spans[0].attributes[0].value =
            Some(random(5_500_000));
        let message = trace.encode_to_vec();
        while http.post("/v1/traces", &[], &message).await.unwrap().status == 503 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    sink.always(None);
    let sent = || agent.metric("otelcol_exporter_sent_spans_total", "");
    eventually("all is delivered", || sent() == 4).await;
    assert_within(&agent, idle, LIMIT_MIB);
    drop(agent);
    let _ = std::fs::remove_dir_all(directory);
}

/// The size of a body that the agent still takes over HTTP.
const MOST_HTTP: usize = 20 * 1024 * 1024;

/// `item` again and again between `head` and `tail`: a body of at most `size` bytes.
fn repeated(head: &str, item: &str, tail: &str, size: usize) -> Vec<u8> {
    let many = (size - head.len() - tail.len()) / item.len();
    let items = item.repeat(many);
    [head, items.strip_suffix(',').unwrap_or(&items), tail]
        .concat()
        .into_bytes()
}

/// A message with a field of this number, which holds `inner`.
fn within(number: u8, inner: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(inner.len() as u64, &mut field);
    field.extend_from_slice(inner);
    field
}

/// A request, and how it is sent.
#[derive(Clone)]
struct Large {
    path: &'static str,
    kind: &'static str,
    encoding: &'static str,
    body: Vec<u8>,
}

/// Bodies as large as HTTP takes, and what they become in the agent is as large as possible.
fn largest_json() -> Vec<Large> {
    let (traces, metrics, logs) = ("/v1/traces", "/v1/metrics", "/v1/logs");
    // Each entry gets attributes.
    let span = r#"{"scopeSpans":[{"spans":[{}]}]}"#;
    let entries = (r#"{"resourceSpans":["#, &*format!(",{span}]}}"));
    let scope = r#"{"scopeSpans":[{}]},"#;
    let spans = (r#"{"resourceSpans":[{"scopeSpans":[{"spans":["#, "]}]}]}");
    // Eight bytes for two.
    let bounds = (
        r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"histogram":{"dataPoints":[{"explicitBounds":["#,
        "]}]}}]}]}]}",
    );
    let text = (
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":""#,
        r#""}}]}]}]}"#,
    );
    let spaces = (r#"{"resourceSpans":[]}"#, " ");
    let of = |path, encoding, (head, tail): (&str, &str), item, size| Large {
        path,
        kind: "application/json",
        encoding,
        body: compressed(encoding, &repeated(head, item, tail, size)),
    };
    vec![
        of(traces, "gzip", entries, scope, MOST_HTTP),
        of(traces, "gzip", entries, &format!("{span},"), MOST_HTTP),
        of(traces, "deflate", spans, "{},", MOST_HTTP),
        of(traces, "gzip", spaces, " ", MOST_HTTP + 1),
        of(metrics, "gzip", bounds, "0,", MOST_HTTP),
        of(metrics, "zstd", bounds, "0,", MOST_HTTP / 4 - 1000),
        of(logs, "identity", text, r"\ud83d\ude00", MOST_HTTP),
    ]
}

/// The same in protobuf.
fn largest_protobuf() -> Vec<Large> {
    let (traces, metrics, logs) = ("/v1/traces", "/v1/metrics", "/v1/logs");
    let span = within(1, &within(2, &within(2, &[])));
    let most = MOST_HTTP - 64;
    let fill = |item: &[u8]| item.repeat(most / item.len());
    let nested = |items: &[u8]| within(1, &within(2, items));
    // Not UTF-8 anywhere.
    let text = nested(&within(2, &within(5, &within(1, &fill(&[0xff])))));
    let of = |path, encoding, body: &[u8]| Large {
        path,
        kind: "application/x-protobuf",
        encoding,
        body: compressed(encoding, body),
    };
    vec![
        of(traces, "gzip", &[&span[..], &fill(&[0x0a, 0])].concat()),
        of(traces, "zstd", &fill(&span)),
        of(traces, "zstd", &nested(&fill(&[0x12, 0]))),
        of(traces, "deflate", &vec![0; MOST_HTTP + 1]),
        of(metrics, "gzip", &nested(&fill(&[0x12, 0]))),
        of(logs, "identity", &text),
    ]
}

fn compressed(encoding: &str, body: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => body
            .chunks(4 * 1024 * 1024)
            .flat_map(client::gzip)
            .collect(),
        "zstd" => {
            // The largest window that decoders must have, which the agent pays for, too.
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(23).unwrap();
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => client::zlib(body),
        _ => body.to_vec(),
    }
}

#[tokio::test]
async fn largest_requests_stay_within_the_memory_limit() {
    const LIMIT_MIB: u64 = 32;
    let mut bodies = largest_json();
    bodies.extend(largest_protobuf());
    let edits = ["k8s.node.name", "host.name", "deployment.environment.name"]
        .map(|key| format!("{{key: {key}, value: a-name-of-some-length, action: insert}}"));
    let sink = Sink::http().await;
    sink.always(Some(Reply::Http(503, Vec::new())));
    let processors = format!(
        "memory_limiter: {{check_interval: 1s, limit_mib: {LIMIT_MIB}}}, \
         resource: {{attributes: [{}]}}",
        edits.join(", ")
    );
    let agent = Setup::http(sink.address)
        .processors(&processors, "memory_limiter, resource")
        .start();
    let idle = agent.resident();
    let mut taken = 0;
    for large in &bodies {
        let mut clients = JoinSet::new();
        // One takes room from the other.
        for _ in 0..2 {
            let mut http = Http::connect(agent.port()).await;
            let large = large.clone();
            clients.spawn(async move {
                let headers = [
                    ("content-type", large.kind),
                    ("content-encoding", large.encoding),
                ];
                let answer = http.post(large.path, &headers, &large.body).await;
                answer.map(|answer| answer.status)
            });
        }
        for status in clients.join_all().await {
            // A refused body may be cut off before the answer is read.
            let is_known = matches!(status, None | Some(200 | 413 | 503));
            assert!(is_known, "{status:?}: {}, {}", large.path, large.kind);
            taken += usize::from(status == Some(200));
        }
    }
    assert!(taken > 0, "all were refused");
    println!("{taken} taken");
    assert_within(&agent, idle, LIMIT_MIB);
    sink.always(None);
    eventually("all is delivered", || agent.metric(HELD, "") == 0).await;
    assert_within(&agent, idle, LIMIT_MIB);
}
