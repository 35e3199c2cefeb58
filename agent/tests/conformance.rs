//! The OTLP checklist: requirements of the specification by number, the tests that cover them, and tests that
//! fit no other module.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use otlp_wire::{AttributeAction, AttributeEdit, AttributeValue, Edits, Signal, inspect};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout, timeout_at};

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::raw::{
    DATA, END_HEADERS, END_STREAM, HEADERS, PING, Raw, SETTINGS, export_headers, frame,
};
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::{logs, spans};

/// The number, the requirement in short, and its tests as `module::name`.
const CHECKLIST: &[(u8, &str, &[&str])] = &[
    (
        1,
        "ports and paths",
        &[
            "config::absent_settings_have_the_documented_default",
            "receive::every_signal_over_http_arrives_on_every_port",
            "receive::grpc_client_delivers_every_signal_on_every_port",
        ],
    ),
    (
        2,
        "none, gzip, zstd and deflate in; others refused",
        &[
            "receive::deflate_with_and_without_a_header_is_taken_over_both_protocols",
            "receive::grpc_requests_may_be_compressed_with_gzip_or_zstd",
            "receive::http_requests_may_be_compressed_with_gzip_or_zstd",
            "refuse::unknown_encodings_are_refused_with_the_list_of_known_ones",
        ],
    ),
    (
        3,
        "limits after decompression, too",
        &[
            "refuse::oversized_requests_are_refused_before_and_after_decompression",
            "hostile::requests::request_of_64_mib_is_accepted_up_to_the_limit",
        ],
    ),
    (
        4,
        "too large over gRPC: RESOURCE_EXHAUSTED, no RetryInfo",
        &["refuse::oversized_requests_are_refused_before_and_after_decompression"],
    ),
    (
        5,
        "too large over HTTP: 413",
        &["refuse::oversized_requests_are_refused_before_and_after_decompression"],
    ),
    (
        6,
        "answers are small, and read up to a bound",
        &[
            "conformance::agent_reads_at_most_4_mib_of_an_answer",
            "receive::every_signal_over_http_arrives_on_every_port",
        ],
    ),
    (
        7,
        "bombs stop at the limit; lengths reserve nothing",
        &[
            "refuse::decompression_bomb_stays_within_the_limit",
            "refuse::announced_lengths_reserve_no_memory",
            "hostile::requests::zstd_frame_with_huge_size_or_window_reserves_nothing",
        ],
    ),
    (
        8,
        "many calls per connection",
        &["receive::many_calls_share_one_connection"],
    ),
    (
        9,
        "one port for both protocols",
        &[
            "receive::every_signal_over_http_arrives_on_every_port",
            "receive::grpc_client_delivers_every_signal_on_every_port",
            "json::every_signal_arrives_as_protobuf_on_every_port",
        ],
    ),
    (
        10,
        "HTTP/1.1 and h2c",
        &[
            "receive::http_2_works_without_grpc",
            "h2spec::http_2_is_spoken_as_h2spec_demands",
        ],
    ),
    (
        11,
        "405, 415, parameters ignored",
        &[
            "refuse::wrong_methods_paths_and_content_types_get_distinct_answers",
            "receive::parameters_of_the_content_type_are_ignored",
        ],
    ),
    (
        12,
        "kept connections, 100-continue, chunks",
        &["receive::chunked_bodies_and_expect_continue_work_on_one_connection"],
    ),
    (
        13,
        "pings answered, none sent upstream",
        &["conformance::agent_answers_pings_and_sends_none"],
    ),
    (
        14,
        "GOAWAY lets calls finish",
        &[
            "observability::aged_connection_ends_without_losing_a_request",
            "shutdown::request_in_flight_is_answered_and_its_connection_closed",
            "shutdown::sigterm_under_load_loses_nothing_acknowledged",
        ],
    ),
    (
        15,
        "success without partial_success",
        &[
            "receive::grpc_client_delivers_every_signal_on_every_port",
            "receive::every_signal_over_http_arrives_on_every_port",
        ],
    ),
    (
        16,
        "success over HTTP is 200",
        &["receive::every_signal_over_http_arrives_on_every_port"],
    ),
    (
        17,
        "answers in the content type of the request",
        &[
            "receive::every_signal_over_http_arrives_on_every_port",
            "conformance::refusals_have_matching_statuses_in_both_protocols",
        ],
    ),
    (
        18,
        "an empty request succeeds",
        &["receive::empty_request_succeeds_without_being_sent"],
    ),
    (
        19,
        "no part of a request is rejected silently",
        &["conformance::partly_malformed_request_is_refused_whole"],
    ),
    (
        20,
        "partial success is not retried",
        &["forward::rejected_items_are_counted_and_never_sent_again"],
    ),
    (
        21,
        "any 2xx is success",
        &["forward::any_http_success_is_success_whatever_its_body"],
    ),
    (
        22,
        "overload is retryable",
        &[
            "refuse::full_queue_refuses_retryably_and_recovers_with_the_upstream",
            "refuse::memory_limit_holds_during_an_upstream_outage",
        ],
    ),
    (
        23,
        "bad data is not, and says BadRequest",
        &["refuse::malformed_requests_are_refused_for_good_in_both_protocols"],
    ),
    (
        24,
        "errors over HTTP carry a Status",
        &["conformance::refusals_have_matching_statuses_in_both_protocols"],
    ),
    (
        25,
        "gRPC statuses that are retried",
        &["forward::retryable_grpc_statuses_are_retried_and_others_counted_lost"],
    ),
    (
        26,
        "HTTP statuses that are retried",
        &[
            "forward::http_statuses_about_the_data_are_final_and_others_are_retried",
            "forward::upstream_outage_loses_nothing_and_delivery_resumes_at_once",
        ],
    ),
    (
        27,
        "Retry-After and RetryInfo are honoured",
        &["forward::retry_info_is_honoured_and_makes_exhaustion_retryable"],
    ),
    (
        28,
        "what is not retried is counted",
        &["forward::retryable_grpc_statuses_are_retried_and_others_counted_lost"],
    ),
    (
        29,
        "pressure is passed back before the body",
        &[
            "conformance::full_queue_refuses_before_the_body_arrives",
            "refuse::full_queue_refuses_retryably_and_recovers_with_the_upstream",
        ],
    ),
    (
        30,
        "gRPC and HTTP statuses correspond",
        &["conformance::refusals_have_matching_statuses_in_both_protocols"],
    ),
    (
        31,
        "fields in any order",
        &["edits::fields_in_descending_order_are_read"],
    ),
    (
        32,
        "unknown fields survive",
        &["edits::unknown_fields_survive_edits"],
    ),
    (
        33,
        "invalid UTF-8 is repaired",
        &[
            "ingress::strings_that_are_not_utf_8_are_repaired_and_counted",
            "repair::each_bad_byte_becomes_a_question_mark",
        ],
    ),
    (
        34,
        "nesting is bounded",
        &[
            "refuse::deep_nesting_is_refused_without_a_crash",
            "wire::nesting_limit_equals_prosts",
        ],
    ),
    (
        35,
        "JSON: ids in hex, bytes in base64",
        &[
            "json::ids_are_hexadecimal_in_either_case",
            "json::bytes_are_base64_of_either_alphabet_and_padding",
        ],
    ),
    (
        36,
        "JSON: lowerCamelCase, enums, unknown keys",
        &[
            "json::keys_may_be_in_snake_case_and_escaped",
            "json::enums_are_numbers_or_names",
            "json::unknown_keys_are_ignored_if_their_values_are_json",
        ],
    ),
    (
        37,
        "JSON: 64-bit numbers as strings, NaN and Infinity",
        &[
            "json::whole_numbers_may_be_strings_or_have_an_exponent",
            "json::doubles_may_be_strings_and_words",
        ],
    ),
    (
        38,
        "attribute values of every type",
        &[
            "wire::every_item_is_counted",
            "wire::byte_edits_equal_object_edits",
        ],
    ),
    (
        39,
        "event_name and string indexes survive",
        &["conformance::newer_fields_of_logs_and_attributes_survive_edits"],
    ),
    (
        40,
        "profiles one by one",
        &[
            "profiles::profiles_are_forwarded_one_by_one_over_both_protocols",
            "profiles::profiles_that_waited_are_sent_one_by_one",
        ],
    ),
    (
        41,
        "duplicates are delivered",
        &["conformance::duplicate_requests_are_delivered_twice"],
    ),
    (
        42,
        "shutdown answers, flushes, and ends",
        &[
            "shutdown::shutdown_flushes_partial_batches_at_once",
            "shutdown::request_in_flight_is_answered_and_its_connection_closed",
            "shutdown::undeliverable_telemetry_is_reported_as_lost",
        ],
    ),
];

#[test]
fn checklist_names_tests_that_exist() {
    let mut seen: BTreeSet<u8> = BTreeSet::new();
    for (number, demand, tests) in CHECKLIST {
        assert!(seen.insert(*number), "{number} is there twice");
        assert!(!tests.is_empty(), "{number}, {demand}: not shown");
        for test in *tests {
            assert!(exists(test), "{number}, {demand}: there is no {test}");
        }
    }
    assert!(seen.into_iter().eq(1..=42));
}

/// Whether a module has a test with this name.
fn exists(test: &str) -> bool {
    let (module, name) = test.rsplit_once("::").unwrap();
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests", "../lab/agent-tests", "../crates/otlp-wire/tests"];
    let folders = folders.map(|folder| agent.join(folder));
    let files = folders.map(|folder| folder.join(module.replace("::", "/")));
    let files = files.map(|path| [path.with_extension("rs"), path.join("mod.rs")]);
    files.as_flattened().iter().any(|file| {
        let source = std::fs::read_to_string(file).unwrap_or_default();
        let Some((before, _)) = source.split_once(&format!("fn {name}(")) else {
            return false;
        };
        let mut lines = before.lines().rev().take(2).map(str::trim);
        lines.any(|line| line.starts_with("#[") && line.ends_with("test]"))
    })
}

async fn agent() -> (Sink, Agent) {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    (sink, agent)
}

/// `google.rpc.Status` without its details.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// A wrong request over both protocols, and its expected gRPC and HTTP statuses.
struct Wrong {
    grpc_path: &'static str,
    http_path: &'static str,
    grpc_encoding: &'static str,
    http_encoding: &'static str,
    message: Vec<u8>,
    statuses: (u32, u16),
}

fn wrongs() -> Vec<Wrong> {
    let wrong = |message: &[u8], statuses| Wrong {
        grpc_path: client::TRACES,
        http_path: "/v1/traces",
        grpc_encoding: "identity",
        http_encoding: "identity",
        message: message.to_vec(),
        statuses,
    };
    let good = spans("span", 1).encode_to_vec();
    vec![
        wrong(b"abc", (3, 400)),
        wrong(&vec![0; 2 * 1024 * 1024], (8, 413)),
        Wrong {
            grpc_path: "/some.Service/Method",
            http_path: "/v1/unknown",
            ..wrong(&good, (12, 404))
        },
        Wrong {
            grpc_encoding: "br",
            http_encoding: "br",
            ..wrong(&good, (12, 415))
        },
        Wrong {
            grpc_encoding: "gzip",
            http_encoding: "gzip",
            ..wrong(b"not compressed", (3, 400))
        },
    ]
}

#[tokio::test]
async fn refusals_have_matching_statuses_in_both_protocols() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .receiver(
            "grpc: {endpoint: '127.0.0.1:0', max_recv_msg_size_mib: 1}, \
             http: {endpoint: '127.0.0.1:0', max_request_body_size: 1048576}",
        )
        .start();
    for wrong in wrongs() {
        let flag = u8::from(wrong.grpc_encoding != "identity");
        let mut grpc = Grpc::connect(agent.port()).await;
        let framed = client::frame(flag, &wrong.message);
        let headers = [("grpc-encoding", wrong.grpc_encoding)];
        let answer = grpc
            .framed(wrong.grpc_path, &headers, framed)
            .await
            .unwrap();
        assert_eq!((answer.status, answer.http_status), (wrong.statuses.0, 200));
        assert_eq!(answer.headers["content-type"], "application/grpc");
        let mut http = Http::connect(agent.port()).await;
        let headers = [("content-encoding", wrong.http_encoding)];
        let answer = http.post(wrong.http_path, &headers, &wrong.message).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, wrong.statuses.1);
        let kind = answer.header("content-type");
        assert_eq!(kind, Some("application/x-protobuf"));
        let status = Status::decode(answer.body.as_slice()).unwrap();
        assert_eq!(status.code.cast_unsigned(), wrong.statuses.0);
        assert!(!status.message.is_empty());
        // The client must not retry.
        assert_eq!(answer.header("retry-after"), None);
        let mut http = Http::connect(agent.port()).await;
        let headers = [
            ("content-encoding", wrong.http_encoding),
            ("content-type", "application/json"),
        ];
        let answer = http.post(wrong.http_path, &headers, &wrong.message).await;
        let answer = answer.unwrap();
        assert!(answer.status >= 400);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(status["code"].is_u64() && status["message"].is_string());
    }
}

#[tokio::test]
async fn partly_malformed_request_is_refused_whole() {
    let (sink, agent) = agent().await;
    let mut request = spans("good", 3).encode_to_vec();
    let mut bad = spans("bad", 1);
    bad.resource_spans[0].scope_spans[0].spans[0].span_id = vec![9; 7];
    request.extend(bad.encode_to_vec());
    let mut grpc = Grpc::connect(agent.port()).await;
    assert_eq!(grpc.call(client::TRACES, &request).await.unwrap().status, 3);
    let good = spans("other", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &good).await.unwrap().status, 0);
    eventually("the other is delivered", || sink.spans() == ["other-0"]).await;
}

#[tokio::test]
async fn full_queue_refuses_before_the_body_arrives() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Silence));
    let queue = "sending_queue: {sizer: bytes, queue_size: 20000, num_consumers: 1, \
        batch: {flush_timeout: 10ms, sizer: bytes, min_size: 10000, max_size: 10000}}";
    let agent = Setup::grpc(sink.address).exporter(queue).start();
    let message = spans("span", 10).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    while grpc.call(client::TRACES, &message).await.unwrap().status == 0 {}
    // The announced body is never sent; the answer comes all the same.
    let mut http = Http::connect(agent.port()).await;
    http.write(
        b"POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n\
          content-length: 15000\r\n\r\n",
    )
    .await;
    let answer = timeout(Duration::from_secs(20), http.read()).await.unwrap();
    assert_eq!(answer.unwrap().status, 503);
}

#[tokio::test]
async fn agent_reads_at_most_4_mib_of_an_answer() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let mut grpc = Grpc::connect(agent.port()).await;
    sink.script([Reply::Take(vec![0; 100 * 1024 * 1024])]);
    let before = agent.peak();
    let message = spans("span", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    eventually("it counts as delivered", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == 1
    })
    .await;
    let grown = agent.peak() - before;
    // Little of it is kept.
    assert!(grown < 4 * 1024, "grew by {grown} KiB");
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    eventually("and the next one follows", || sink.spans().len() == 2).await;
}

/// The frames that an upstream gets until 1.5 s after the first data.
async fn frames_of_a_first_second(listener: TcpListener) -> Vec<u8> {
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    let mut kinds = Vec::new();
    let mut until = Instant::now() + Duration::from_mins(1);
    let mut next = async || {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        head[3]
    };
    while let Ok(kind) = timeout_at(until, next()).await {
        kinds.push(kind);
        if kind == DATA {
            until = until.min(Instant::now() + Duration::from_millis(1500));
        }
    }
    kinds
}

#[tokio::test]
async fn agent_answers_pings_and_sends_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let agent = Setup::grpc(listener.local_addr().unwrap()).start();
    let mut raw = Raw::open(agent.port(), &[]).await;
    // Without a call, during one, and after it.
    assert!(raw.write(&frame(PING, 0, 0, b"without ")).await);
    assert_eq!(raw.read_until(PING, 0).await.unwrap().payload, b"without ");
    let mut call = frame(HEADERS, END_HEADERS, 1, &export_headers());
    call.extend(frame(PING, 0, 0, b"during  "));
    assert!(raw.write(&call).await);
    assert_eq!(raw.read_until(PING, 0).await.unwrap().payload, b"during  ");
    let message = client::frame(0, &spans("span", 1).encode_to_vec());
    assert!(raw.write(&frame(DATA, END_STREAM, 1, &message)).await);
    assert!(raw.read_until(HEADERS, 1).await.is_some());
    assert!(raw.write(&frame(PING, 0, 0, b"after   ")).await);
    assert_eq!(raw.read_until(PING, 0).await.unwrap().payload, b"after   ");
    let kinds = frames_of_a_first_second(listener).await;
    assert!(kinds.contains(&HEADERS) && kinds.contains(&DATA));
    assert!(!kinds.contains(&PING));
}

#[tokio::test]
async fn duplicate_requests_are_delivered_twice() {
    let (sink, agent) = agent().await;
    let message = spans("span", 1).encode_to_vec();
    let mut grpc = Grpc::connect(agent.port()).await;
    for _ in 0..2 {
        assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    }
    eventually("both arrive", || sink.spans() == ["span-0", "span-0"]).await;
}

#[test]
fn newer_fields_of_logs_and_attributes_survive_edits() {
    let mut request = logs("log", 1);
    let record = &mut request.resource_logs[0].scope_logs[0].log_records[0];
    record.event_name = "session.start".into();
    record.attributes.push(KeyValue {
        key_strindex: 7,
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValueStrindex(8)),
        }),
        ..KeyValue::default()
    });
    let bytes = request.encode_to_vec();
    assert_eq!(inspect(Signal::Logs, &bytes), Ok(1));
    let edited = Edits::new(&[AttributeEdit {
        key: "service.name".into(),
        action: AttributeAction::Upsert(AttributeValue::Text("other".into())),
    }]);
    let edited = edited.apply(&bytes, usize::MAX, &mut |_| true).unwrap();
    let edited = ExportLogsServiceRequest::decode(edited.as_slice()).unwrap();
    assert_eq!(
        edited.resource_logs[0].scope_logs,
        request.resource_logs[0].scope_logs
    );
    assert_ne!(edited, request);
}
