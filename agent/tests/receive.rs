//! Receiving: both protocols on every port, all signals, all encodings, and the answers of success.

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::codec::CompressionEncoding;

use crate::support::agent::Setup;
use crate::support::client::{self, Grpc, Http};
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::{logs, metrics, spans};

#[tokio::test]
async fn grpc_client_delivers_every_signal_on_every_port() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    assert_eq!(agent.ports.len(), 2);
    for port in &agent.ports {
        let url = format!("http://{port}");
        let mut client = TraceServiceClient::connect(url.clone()).await.unwrap();
        let answer = client.export(spans("span", 3)).await.unwrap();
        assert_eq!(answer.into_inner().partial_success, None);
        let mut client = MetricsServiceClient::connect(url.clone()).await.unwrap();
        client.export(metrics("metric", 2)).await.unwrap();
        let mut client = LogsServiceClient::connect(url).await.unwrap();
        client.export(logs("log", 4)).await.unwrap();
    }
    eventually("everything is delivered", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == 6
            && agent.metric("otelcol_exporter_sent_metric_points_total", "") == 4
            && agent.metric("otelcol_exporter_sent_log_records_total", "") == 8
    })
    .await;
    let paths: Vec<_> = sink
        .taken()
        .into_iter()
        .map(|request| request.path)
        .collect();
    for path in [client::TRACES, client::METRICS, client::LOGS] {
        assert!(paths.iter().any(|taken| taken == path), "{path}");
    }
}

#[tokio::test]
async fn wildcard_listener_is_reached_by_ipv4_and_ipv6() {
    let sink = Sink::grpc().await;
    let mut sent = 0;
    for everywhere in ["[::]:0", ":0"] {
        let protocols = format!("grpc: {{endpoint: '{everywhere}'}}");
        let agent = Setup::grpc(sink.address).receiver(&protocols).start();
        let port = agent.ports[0].port();
        for host in ["127.0.0.1", "[::1]"] {
            let url = format!("http://{host}:{port}");
            let mut client = TraceServiceClient::connect(url).await.unwrap();
            client.export(spans("span", 1)).await.unwrap();
            sent += 1;
        }
        eventually("everything is delivered", || sink.spans().len() == sent).await;
    }
}

#[tokio::test]
async fn addresses_of_both_families_may_be_in_brackets() {
    let sink = Sink::grpc().await;
    for host in ["127.0.0.1", "::1"] {
        let protocols = "grpc: {endpoint: '[${env:ADDRESS}]:0'}";
        let setup = Setup::grpc(sink.address).receiver(protocols);
        let agent = setup.env("ADDRESS", host).start();
        assert_eq!(agent.ports[0].ip().to_string(), host);
        let url = format!("http://{}", agent.ports[0]);
        let mut client = TraceServiceClient::connect(url).await.unwrap();
        client.export(spans("span", 1)).await.unwrap();
    }
}

#[tokio::test]
async fn every_signal_over_http_arrives_on_every_port() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    for port in &agent.ports {
        let mut http = Http::connect(*port).await;
        for (path, body) in [
            ("/v1/traces", spans("span", 3).encode_to_vec()),
            ("/v1/metrics", metrics("metric", 2).encode_to_vec()),
            ("/v1/logs", logs("log", 4).encode_to_vec()),
        ] {
            let answer = http.post(path, &[], &body).await.unwrap();
            assert_eq!(answer.status, 200);
            assert_eq!(
                answer.header("content-type"),
                Some("application/x-protobuf")
            );
            assert_eq!(answer.body, b"", "success is a response without fields");
        }
    }
    eventually("everything is delivered", || {
        agent.metric("otelcol_exporter_sent_spans_total", "") == 6
            && agent.metric("otelcol_exporter_sent_metric_points_total", "") == 4
            && agent.metric("otelcol_exporter_sent_log_records_total", "") == 8
    })
    .await;
    let paths: Vec<_> = sink
        .taken()
        .into_iter()
        .map(|request| request.path)
        .collect();
    for path in ["/v1/traces", "/v1/metrics", "/v1/logs"] {
        assert!(paths.iter().any(|taken| taken == path), "{path}");
    }
}

#[tokio::test]
async fn grpc_requests_may_be_compressed_with_gzip_or_zstd() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let client = TraceServiceClient::connect(format!("http://{}", agent.port()))
            .await
            .unwrap();
        client
            .send_compressed(encoding)
            .export(spans("span", 50))
            .await
            .unwrap();
    }
    eventually("both are delivered", || sink.spans().len() == 100).await;
}

#[tokio::test]
async fn http_requests_may_be_compressed_with_gzip_or_zstd() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let mut http = Http::connect(agent.port()).await;
    let body = spans("span", 50).encode_to_vec();
    for (encoding, body) in [
        ("gzip", client::gzip(&body)),
        ("zstd", zstd::encode_all(body.as_slice(), 3).unwrap()),
        ("identity", body.clone()),
    ] {
        let answer = http
            .post("/v1/traces", &[("content-encoding", encoding)], &body)
            .await;
        assert_eq!(answer.unwrap().status, 200, "{encoding}");
    }
    eventually("all are delivered", || sink.spans().len() == 150).await;
}

#[tokio::test]
async fn deflate_with_and_without_a_header_is_taken_over_both_protocols() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let body = spans("span", 50).encode_to_vec();
    let mut sent = 0;
    for body in [client::zlib(&body), client::deflate(&body)] {
        for encoding in ["deflate", "zlib"] {
            let mut http = Http::connect(agent.port()).await;
            let headers = [("content-encoding", encoding)];
            let answer = http.post("/v1/traces", &headers, &body).await;
            assert_eq!(answer.unwrap().status, 200, "{encoding}");
            sent += 50;
        }
        let mut grpc = Grpc::connect(agent.port()).await;
        let framed = client::frame(1, &body);
        let headers = [("grpc-encoding", "deflate")];
        let answer = grpc.framed(client::TRACES, &headers, framed).await;
        assert_eq!(answer.unwrap().status, 0);
        sent += 50;
    }
    eventually("all are delivered", || sink.spans().len() == sent).await;
}

#[tokio::test]
async fn gzip_body_of_several_members_is_read_whole() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    // The first two are equal to the last byte.
    let mut body = client::gzip(&spans("a", 1).encode_to_vec()).repeat(2);
    body.extend(client::gzip(&spans("b", 1).encode_to_vec()));
    let mut http = Http::connect(agent.port()).await;
    let answer = http
        .post("/v1/traces", &[("content-encoding", "gzip")], &body)
        .await;
    assert_eq!(answer.unwrap().status, 200);
    let body = client::gzip(&spans("c", 1).encode_to_vec()).repeat(2);
    let answer = http
        .post("/v1/traces", &[("content-encoding", "gzip")], &body)
        .await;
    assert_eq!(answer.unwrap().status, 200);
    let all = ["a-0", "a-0", "b-0", "c-0", "c-0"];
    eventually("all members arrive", || sink.spans() == all).await;
}

#[tokio::test]
async fn http_2_works_without_grpc() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let stream = tokio::net::TcpStream::connect(agent.port()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::post("http://agent/v1/traces")
        .header("content-type", "application/x-protobuf")
        .body(http_body_util::Full::new(bytes::Bytes::from(
            spans("span", 1).encode_to_vec(),
        )))
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    eventually("it is delivered", || sink.spans().len() == 1).await;
}

#[tokio::test]
async fn chunked_bodies_and_expect_continue_work_on_one_connection() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let body = spans("span", 1).encode_to_vec();
    let mut http = Http::connect(agent.port()).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n";
    let (first, second) = body.split_at(body.len() / 2);
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for part in [first, second, b""] {
        chunked.extend(format!("{:x}\r\n", part.len()).into_bytes());
        chunked.extend(part);
        chunked.extend(b"\r\n");
    }
    http.write(&chunked).await;
    assert_eq!(http.read().await.unwrap().status, 200);
    let expecting = format!(
        "{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    http.write(expecting.as_bytes()).await;
    assert_eq!(http.read().await.unwrap().status, 100);
    http.write(&body).await;
    assert_eq!(http.read().await.unwrap().status, 200);
    eventually("both are delivered", || sink.spans().len() == 2).await;
}

#[tokio::test]
async fn parameters_of_the_content_type_are_ignored() {
    let sink = Sink::http().await;
    let agent = Setup::http(sink.address).start();
    let mut http = Http::connect(agent.port()).await;
    let kind = [("content-type", "application/x-protobuf; charset=utf-8")];
    let answer = http
        .post("/v1/traces", &kind, &spans("span", 1).encode_to_vec())
        .await;
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn empty_request_succeeds_without_being_sent() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut http = Http::connect(agent.port()).await;
    assert_eq!(http.post("/v1/traces", &[], b"").await.unwrap().status, 200);
    let mut grpc = Grpc::connect(agent.port()).await;
    let answer = grpc.call(client::TRACES, b"").await.unwrap();
    assert_eq!((answer.status, answer.body.as_ref()), (0, &[0; 5][..]));
    // An envelope without spans holds nothing either.
    let envelope = spans("none", 0).encode_to_vec();
    assert_eq!(
        grpc.call(client::TRACES, &envelope).await.unwrap().status,
        0
    );
    grpc.call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    eventually("the span is delivered", || sink.spans().len() == 1).await;
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let grpc = Grpc::connect(agent.port()).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..500 {
        let mut grpc = grpc.clone();
        calls.spawn(async move {
            let message = spans(&format!("call{number}"), 2).encode_to_vec();
            grpc.call(client::TRACES, &message).await.unwrap().status
        });
    }
    while let Some(status) = calls.join_next().await {
        assert_eq!(status.unwrap(), 0);
    }
    eventually("all are delivered", || sink.spans().len() == 1000).await;
    assert_eq!(agent.metric("otelagent_connections_total", ""), 1);
}

#[tokio::test]
async fn resource_edits_apply_in_pipeline_order() {
    let sink = Sink::grpc().await;
    let setup = Setup::grpc(sink.address)
        .processors(
            "resource/first: {attributes: [{key: service.name, value: agent, action: insert}, \
               {key: host.name, value: '${env:TEST_HOST}', action: insert}]}, \
             resource/second: {attributes: [{key: host.name, value: late, action: upsert}, \
               {key: number, value: 7, action: insert}]}",
            "resource/first, resource/second",
        )
        .env("TEST_HOST", "node-1");
    let agent = setup.start();
    let mut grpc = Grpc::connect(agent.port()).await;
    grpc.call(client::TRACES, &spans("span", 1).encode_to_vec())
        .await
        .unwrap();
    eventually("it is delivered", || sink.spans().len() == 1).await;
    let message = sink.taken().remove(0).message;
    let request = ExportTraceServiceRequest::decode(message.as_slice()).unwrap();
    let resource = request.resource_spans[0].resource.clone().unwrap();
    let attributes: Vec<_> = resource
        .attributes
        .iter()
        .map(|attribute| attribute.key.as_str())
        .collect();
    assert_eq!(attributes, ["service.name", "host.name", "number"]);
    let value = |key: &str| {
        let found = resource
            .attributes
            .iter()
            .find(|attribute| attribute.key == key);
        format!("{:?}", found.unwrap().value.clone().unwrap().value.unwrap())
    };
    assert_eq!(
        value("service.name"),
        "StringValue(\"shop\")",
        "the application wins"
    );
    assert_eq!(
        value("host.name"),
        "StringValue(\"late\")",
        "the configuration wins"
    );
    assert_eq!(value("number"), "IntValue(7)");
}
