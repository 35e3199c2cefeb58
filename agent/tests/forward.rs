//! Telemetry on its way upstream: merged, compressed, retried until accepted, and given up only for a reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::sync::Notify;

use crate::support::agent::{Agent, Setup};
use crate::support::client::{self, Grpc};
use crate::support::eventually;
use crate::support::sink::{Reply, Sink, Speaks, TOO_LARGE};
use crate::support::telemetry::spans;

const UNAVAILABLE: u32 = 14;
const RESOURCE_EXHAUSTED: u32 = 8;

async fn send(agent: &Agent, name: &str, count: usize) {
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans(name, count).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
}

/// A batch leaves when all of these have come, and not before.
fn once_there_are(messages: &[Vec<u8>]) -> String {
    let bytes: usize = messages.iter().map(Vec::len).sum();
    format!("flush_timeout: 1h, sizer: bytes, min_size: {bytes}, max_size: 3145728")
}

#[tokio::test]
async fn small_requests_are_merged_in_order() {
    for (sink, speaks) in [(Sink::grpc().await, "grpc"), (Sink::http().await, "http")] {
        let setup = if speaks == "grpc" {
            Setup::grpc(sink.address)
        } else {
            Setup::http(sink.address)
        };
        let messages: Vec<_> = (0..100)
            .map(|number| spans(&format!("request{number}"), 1).encode_to_vec())
            .collect();
        let agent = setup.batch(&once_there_are(&messages)).start();
        let mut grpc = Grpc::connect(agent.port()).await;
        for message in &messages {
            grpc.call(client::TRACES, message).await.unwrap();
        }
        eventually("all arrive", || sink.spans().len() == 100).await;
        let expected: Vec<_> = (0..100)
            .map(|number| format!("request{number}-0"))
            .collect();
        assert_eq!(sink.spans(), expected);
        assert_eq!(sink.received().len(), 1);
    }
}

#[tokio::test]
async fn full_batch_leaves_at_once_and_respects_max_size() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .batch("flush_timeout: 1h, sizer: bytes, min_size: 20000, max_size: 20000")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("span", 10).encode_to_vec();
    for _ in 0..100 {
        grpc.call(client::TRACES, &message).await.unwrap();
    }
    eventually("most arrive without a timer", || sink.spans().len() >= 800).await;
    for request in sink.received() {
        assert!(request.message.len() <= 20_000);
        assert!(request.message.len() > 20_000 - message.len());
    }
}

#[tokio::test]
async fn compression_and_headers_follow_the_configuration() {
    for (compression, expected) in [
        ("gzip", Some("gzip")),
        ("zstd", Some("zstd")),
        ("none", None),
    ] {
        let headers = format!(
            "compression: {compression}, headers: {{X-Tenant: a, authorization: '${{env:TEST_TOKEN}}'}}"
        );
        let (grpc, http) = (Sink::grpc().await, Sink::http().await);
        for (sink, setup, name) in [
            (&grpc, Setup::grpc(grpc.address), "grpc-encoding"),
            (&http, Setup::http(http.address), "content-encoding"),
        ] {
            let agent = setup
                .exporter(&headers)
                .env("TEST_TOKEN", "Bearer secret")
                .start();
            send(&agent, "span", 30).await;
            eventually("it arrives", || sink.spans().len() == 30).await;
            let received = sink.received().remove(0).headers;
            assert_eq!(
                received.get(name).map(|value| value.to_str().unwrap()),
                expected
            );
            assert_eq!(received["x-tenant"], "a");
            assert_eq!(received["authorization"], "Bearer secret");
            assert!(
                received["user-agent"]
                    .to_str()
                    .unwrap()
                    .starts_with("otelagent-agent/")
            );
            let log = format!("{:?}", agent.until_logged("ready").await);
            assert!(!log.contains("secret"));
        }
    }
}

#[tokio::test]
async fn retryable_grpc_statuses_are_retried_and_others_counted_lost() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 1ms, max_interval: 1ms")
        .start();
    let mut taken = 0;
    let mut lost = 0;
    for code in 1..=16 {
        let retryable = matches!(code, 1 | 4 | 7 | 8 | 10 | 11 | 12 | 14 | 15 | 16);
        sink.script([Reply::Grpc(code, None)]);
        send(&agent, &format!("code{code}"), 1).await;
        if retryable {
            taken += 1;
        } else {
            lost += 1;
        }
        eventually(&format!("code {code} is settled"), || {
            sink.spans().len() == taken && agent.metric("otelagent_lost_spans_total", "") == lost
        })
        .await;
    }
    assert_eq!((taken, lost), (10, 6));
    assert_eq!(
        agent.metric("otelagent_lost_spans_total", "reason=\"permanent\""),
        6
    );
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn http_statuses_about_the_data_are_final_and_others_are_retried() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address)
        .retry("initial_interval: 1ms, max_interval: 1ms")
        .start();
    let mut taken = 0;
    let mut lost = 0;
    for status in [
        301, 302, 307, 400, 401, 403, 404, 408, 409, 413, 422, 425, 429, 431, 451, 500, 501, 502,
        503, 504, 505, 507, 520, 530, 599,
    ] {
        sink.script([Reply::Http(status, Vec::new())]);
        send(&agent, &format!("status{status}"), 1).await;
        if matches!(status, 400 | 409 | 413 | 422 | 500) {
            lost += 1;
        } else {
            taken += 1;
        }
        eventually(&format!("status {status} is settled"), || {
            sink.spans().len() == taken && agent.metric("otelagent_lost_spans_total", "") == lost
        })
        .await;
    }
    assert_eq!((taken, lost), (20, 5));
    // A server that names a wait means it.
    sink.script([Reply::Http(500, vec![("retry-after", "0".to_owned())])]);
    send(&agent, "later", 1).await;
    eventually("it is sent again", || sink.spans().len() == taken + 1).await;
}

#[tokio::test]
async fn any_http_success_is_success_whatever_its_body() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    sink.script([
        Reply::Http(204, Vec::new()),
        Reply::Http(202, Vec::new()),
        Reply::Take(b"<html>not protobuf</html>".to_vec()),
    ]);
    for sent in 1..=3 {
        send(&agent, "span", 1).await;
        eventually("it counts as delivered", || {
            agent.metric("otelcol_exporter_sent_spans_total", "") == sent
        })
        .await;
    }
    assert_eq!(sink.received().len(), 3);
}

/// A `google.rpc.Status` with a `RetryInfo` in milliseconds.
fn retry_info(millis: u8) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let mut out = vec![tag];
        prost::encoding::encode_varint(bytes.len() as u64, &mut out);
        out.extend(bytes);
        out
    };
    let mut duration = vec![0x10];
    prost::encoding::encode_varint(u64::from(millis) * 1_000_000 * 4, &mut duration);
    let info = field(0x0a, &duration);
    let any = [
        field(0x0a, b"type.googleapis.com/google.rpc.RetryInfo"),
        field(0x12, &info),
    ]
    .concat();
    field(0x1a, &any)
}

#[tokio::test]
async fn retry_info_is_honoured_and_makes_exhaustion_retryable() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 1ms, max_interval: 1ms")
        .start();
    sink.script([Reply::Grpc(RESOURCE_EXHAUSTED, Some(retry_info(200)))]);
    let started = Instant::now();
    send(&agent, "span", 1).await;
    eventually("it arrives", || sink.spans().len() == 1).await;
    assert!(
        started.elapsed() >= Duration::from_millis(800),
        "{:?}",
        started.elapsed()
    );
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address)
        .retry("initial_interval: 1ms, max_interval: 1ms")
        .start();
    sink.script([Reply::Http(503, vec![("retry-after", "1".to_owned())])]);
    let started = Instant::now();
    send(&agent, "span", 1).await;
    eventually("it arrives", || sink.spans().len() == 1).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    let started = Instant::now();
    let date = std::time::SystemTime::now() + Duration::from_secs(2);
    sink.script([Reply::Http(
        429,
        vec![("retry-after", httpdate::fmt_http_date(date))],
    )]);
    send(&agent, "span", 1).await;
    eventually("it arrives", || sink.spans().len() == 2).await;
    assert!(
        started.elapsed() >= Duration::from_millis(900),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn rejected_items_are_counted_and_never_sent_again() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let response = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 2,
            error_message: "too old".into(),
        }),
    };
    let response = response.encode_to_vec();
    let replies = [
        Reply::Take(response.clone()),
        Reply::TakeCompressed("gzip", response.clone()),
        Reply::TakeCompressed("zstd", response),
    ];
    for (reply, round) in replies.into_iter().zip(1..) {
        sink.script([reply]);
        send(&agent, "span", 5).await;
        eventually("three are delivered", || {
            agent.metric("otelcol_exporter_sent_spans_total", "") == 3 * round
        })
        .await;
        let rejected = agent.metric("otelagent_lost_spans_total", "reason=\"rejected\"");
        assert_eq!(rejected, 2 * round);
    }
    eventually("it is logged", || {
        agent.logged("partial success").len() == 1
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(sink.received().len(), 3);
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn batch_too_large_for_the_upstream_is_sent_in_halves() {
    let (grpc, http) = (Sink::grpc().await, Sink::http().await);
    for (sink, setup, reply) in [
        (
            &grpc,
            Setup::grpc(grpc.address),
            Reply::Says(RESOURCE_EXHAUSTED, TOO_LARGE),
        ),
        (
            &http,
            Setup::http(http.address),
            Reply::Http(413, Vec::new()),
        ),
    ] {
        let messages: Vec<_> = (0..5)
            .map(|number| spans(&format!("request{number}"), 1).encode_to_vec())
            .collect();
        let agent = setup.batch(&once_there_are(&messages)).start();
        sink.script([reply]);
        let mut grpc = Grpc::connect(agent.port()).await;
        for message in &messages {
            grpc.call(client::TRACES, message).await.unwrap();
        }
        eventually("all arrive", || sink.spans().len() == 5).await;
        assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
        let expected: Vec<_> = (0..5).map(|number| format!("request{number}-0")).collect();
        let mut arrived = sink.spans();
        arrived.sort();
        assert_eq!(arrived, expected);
    }
}

#[tokio::test]
async fn upstream_outage_loses_nothing_and_delivery_resumes_at_once() {
    for speaks in [Speaks::Grpc, Speaks::Http] {
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let address = sink.stop().await;
        let setup = match speaks {
            Speaks::Grpc => Setup::grpc(address),
            Speaks::Http => Setup::http(address),
        };
        let agent = setup
            .retry("initial_interval: 100ms, max_interval: 300ms")
            .start();
        for number in 0..50 {
            send(&agent, &format!("away{number}"), 2).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(agent.metric("otelagent_queue_spans", ""), 100);
        let logged = "delivery fails; telemetry is kept and sent again";
        eventually("it is logged once", || agent.logged(logged).len() == 1).await;
        let sink = Sink::at(address, speaks).await;
        eventually("all arrive", || sink.spans().len() == 100).await;
        // The connection is cut while the agent believes in it.
        let address = sink.stop().await;
        send(&agent, "cut", 1).await;
        let sink = Sink::at(address, speaks).await;
        eventually("the cut one arrives", || sink.spans().len() == 1).await;
        assert_eq!(agent.metric("otelagent_lost_spans_total", ""), 0);
        eventually("recovery is logged", || {
            !agent.logged("delivery works again").is_empty()
        })
        .await;
        assert_eq!(agent.books("spans"), 0);
    }
}

#[tokio::test]
async fn silent_upstream_is_retried_after_the_timeout() {
    let (grpc, http) = (Sink::grpc().await, Sink::http().await);
    for (sink, agent) in [
        (
            &grpc,
            Setup::to_with_timeout("otlp_grpc", grpc.address, "3s").start(),
        ),
        (
            &http,
            Setup::to_with_timeout("otlp_http", http.address, "3s").start(),
        ),
    ] {
        sink.script([Reply::Silence, Reply::Silence]);
        send(&agent, "span", 1).await;
        eventually("the third attempt is answered", || {
            agent.metric("otelcol_exporter_sent_spans_total", "") == 1
        })
        .await;
        assert_eq!(
            sink.received().len(),
            3,
            "duplicates are allowed, losses are not"
        );
    }
}

#[tokio::test]
async fn batch_is_given_up_only_after_max_elapsed_time() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(UNAVAILABLE, None)));
    let agent = Setup::grpc(sink.address)
        .retry("initial_interval: 20ms, max_interval: 20ms, max_elapsed_time: 300ms")
        .start();
    let started = Instant::now();
    send(&agent, "span", 4).await;
    eventually("it is given up", || {
        agent.metric("otelagent_lost_spans_total", "reason=\"given_up\"") == 4
    })
    .await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        agent.metric("otelcol_exporter_send_failed_spans_total", ""),
        4
    );
    assert_eq!(agent.books("spans"), 0);
}

#[tokio::test]
async fn requests_gather_while_all_consumers_are_busy() {
    let sink = Sink::grpc().await;
    let released = Arc::new(Notify::new());
    sink.script([Reply::Held(Arc::clone(&released))]);
    let queue = "sending_queue: {num_consumers: 1, batch: {flush_timeout: 1ms, sizer: bytes, \
        min_size: 1000000, max_size: 1000000}}";
    let agent = Setup::to_with_timeout("otlp_grpc", sink.address, "10m")
        .exporter(queue)
        .start();
    send(&agent, "first", 1).await;
    let in_flight = || agent.metric("otelcol_exporter_in_flight_requests", "");
    eventually("the first is on its way", || in_flight() == 1).await;
    for number in 0..20 {
        send(&agent, &format!("later{number}"), 1).await;
    }
    released.notify_one();
    eventually("all arrive", || sink.spans().len() == 21).await;
    assert_eq!(sink.received().len(), 2, "what waited left together");
}

#[tokio::test]
async fn counters_balance_at_every_moment() {
    let sink = Sink::grpc().await;
    sink.script((0..200).map(|number| match number % 5 {
        0 => Reply::Grpc(UNAVAILABLE, None),
        1 => Reply::Grpc(3, None),
        2 => Reply::Slow(Duration::from_millis(20)),
        3 => Reply::Says(RESOURCE_EXHAUSTED, TOO_LARGE),
        _ => Reply::Take(Vec::new()),
    }));
    let queue = "sending_queue: {sizer: bytes, queue_size: 60000, batch: {flush_timeout: 1ms, \
        sizer: bytes, min_size: 6000, max_size: 6000}}";
    let agent = Setup::grpc(sink.address)
        .exporter(queue)
        .retry("initial_interval: 5ms, max_interval: 20ms")
        .start();
    let mut grpc = Grpc::connect(agent.port()).await;
    let mut accepted = 0;
    for number in 0..400 {
        let message = spans(&format!("request{number}"), 5).encode_to_vec();
        let answer = grpc.call(client::TRACES, &message).await.unwrap();
        accepted += if answer.status == 0 { 5 } else { 0 };
        if number % 10 == 0 {
            assert_eq!(agent.books("spans"), 0);
        }
    }
    eventually("everything is settled", || {
        agent.metric("otelagent_queue_spans", "") == 0
    })
    .await;
    assert_eq!(agent.books("spans"), 0);
    assert_eq!(
        agent.metric("otelcol_receiver_accepted_spans_total", ""),
        accepted
    );
    let delivered = agent.metric("otelcol_exporter_sent_spans_total", "");
    assert_eq!(u64::try_from(sink.spans().len()).unwrap(), delivered);
    assert!(agent.metric("otelagent_lost_spans_total", "") > 0);
    assert_eq!(agent.metric("otelagent_memory_held_bytes", ""), 0);
}
