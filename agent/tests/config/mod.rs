//! The configuration file: what is taken, what is refused, and in which words.

use std::time::Duration;

use otelagent_agent::config::{
    self, AttributeAction, AttributeValue, Compression, Config, LogEncoding, LogLevel, Problem,
    Protocol, Resolve,
};
use otelagent_agent::scan::Signal;
use proptest::prelude::*;

const CONTRACT: &str = include_str!("contract.yaml");

/// An environment of three variables and two files.
struct World;

impl Resolve for World {
    fn env(&self, name: &str) -> Option<String> {
        match name {
            "OTELAGENT_NODE_NAME" => Some("node-7".into()),
            "SELF" => Some("${env:SELF}".into()),
            "PORT" => Some("9999".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn file(&self, path: &str) -> Result<String, String> {
        match path {
            "/etc/otelagent/headers/0/token" => Ok("Bearer a$b\n".into()),
            _ => Err("no such file".into()),
        }
    }
}

fn load(yaml: &str) -> Config {
    config::load(yaml, &World).unwrap()
}

fn messages(result: Result<Config, Vec<Problem>>) -> Vec<String> {
    result
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The one problem of the contract with one thing changed.
fn problem(from: &str, to: &str) -> String {
    assert!(CONTRACT.contains(from), "{from}");
    let messages = messages(config::check(&CONTRACT.replacen(from, to, 1)));
    assert_eq!(messages.len(), 1, "{messages:#?}");
    messages.into_iter().next().unwrap()
}

#[test]
fn the_generated_file_is_taken_as_it_is() {
    let config = config::check(CONTRACT).unwrap();
    assert_eq!(config.receiver.listen.len(), 2);
    assert_eq!(config.receiver.max_grpc_message, 4 << 20);
    assert_eq!(config.receiver.max_http_body, 20 << 20);
    let signals: Vec<_> = config
        .pipelines
        .iter()
        .map(|pipeline| pipeline.signal)
        .collect();
    assert_eq!(signals, Signal::ALL);
    let exporter = &config.exporters[0];
    assert_eq!(exporter.protocol, Protocol::Grpc);
    assert_eq!(exporter.compression, Compression::Gzip);
    assert_eq!(
        exporter.endpoint.to_string(),
        "otel-collector.observability.svc:4317"
    );
    assert_eq!(exporter.timeout, Duration::from_secs(10));
    assert_eq!(exporter.queue.capacity, 64 << 20);
    assert_eq!(exporter.queue.min_size, 3 << 20);
    assert_eq!(exporter.retry.initial_interval, Duration::from_secs(1));
    assert_eq!(exporter.retry.max_elapsed_time, Duration::ZERO);
    assert_eq!(config.memory.limit, 64 << 20);
    assert_eq!(config.health.as_ref().unwrap().listen.port, 13133);
    let metrics = config.telemetry.metrics.as_ref().unwrap();
    assert_eq!(
        (metrics.listen.port, metrics.without_type_suffix),
        (8888, false)
    );
    assert_eq!(config.telemetry.log_level, LogLevel::Info);
    assert_eq!(config.telemetry.log_encoding, LogEncoding::Json);
}

#[test]
fn references_are_looked_up_only_when_the_file_is_loaded() {
    let checked = config::check(CONTRACT).unwrap();
    let host = |config: &Config| config.pipelines[0].attributes[1].action.clone();
    let text = |text: &str| AttributeAction::Insert(AttributeValue::Text(text.into()));
    assert_eq!(host(&checked), text("${env:OTELAGENT_NODE_NAME}"));
    let loaded = load(CONTRACT);
    assert_eq!(host(&loaded), text("node-7"));
    let headers = &loaded.exporters[0].headers;
    assert_eq!(headers[1].0, "authorization");
    assert_eq!(
        headers[1].1.0, "Bearer a$b",
        "without the newline, the dollar sign kept"
    );
    assert!(!format!("{loaded:?}{loaded}").contains("Bearer"));
}

#[test]
fn references_have_defaults_types_escapes_and_an_end() {
    let with = |value: &str| {
        let yaml = CONTRACT.replace("value: production", &format!("value: {value}"));
        config::load(&yaml, &World).map(|config| config.pipelines[0].attributes[0].action.clone())
    };
    let insert = |value| Ok(AttributeAction::Insert(value));
    let text = |text: &str| insert(AttributeValue::Text(text.into()));
    assert_eq!(with("'${PORT}'"), insert(AttributeValue::Integer(9999)));
    assert_eq!(with("'port ${env:PORT}'"), text("port 9999"));
    assert_eq!(with("'${env:MISSING:-fallback}'"), text("fallback"));
    assert_eq!(with("'${env:EMPTY:-fallback}'"), text("fallback"));
    assert_eq!(with("'${env:MISSING}'"), text(""));
    assert_eq!(
        with("'${env:MISSING:-${env:PORT}}'"),
        insert(AttributeValue::Integer(9999))
    );
    assert_eq!(with("'$$100 and $5'"), text("$100 and $5"));
    assert_eq!(with("true"), insert(AttributeValue::Bool(true)));
    assert_eq!(with("1.5"), insert(AttributeValue::Float(1.5)));
    let cycle = with("'${env:SELF}'").unwrap_err();
    assert!(
        cycle[0].message.contains("is there a cycle?"),
        "{}",
        cycle[0]
    );
    let yaml = CONTRACT.replace("value: production", "value: '${env:MISSING}'");
    let warnings = load(&yaml).warnings;
    assert!(
        warnings[0].ends_with("MISSING is not set; using the empty string"),
        "{warnings:?}"
    );
}

#[test]
fn a_reference_may_stand_for_any_type() {
    let yaml = CONTRACT
        .replace("port: 8888", "port: '${env:PORT}'")
        .replace("timeout: 10s", "timeout: '${env:TIMEOUT:-3s}'")
        .replace(
            "compression: gzip",
            "compression: '${env:COMPRESSION:-zstd}'",
        )
        .replace(
            "enabled: true, sizer",
            "enabled: '${env:ENABLED:-true}', sizer",
        );
    let config = load(&yaml);
    assert_eq!(config.telemetry.metrics.unwrap().listen.port, 9999);
    assert_eq!(config.exporters[0].timeout, Duration::from_secs(3));
    assert_eq!(config.exporters[0].compression, Compression::Zstd);
    let opaque = CONTRACT
        .replace("port: 8888", "port: '${env:PORT}'")
        .replace("0.0.0.0:4317", "${env:POD_IP}:4317")
        .replace("http://otel", "${env:SCHEME}://otel");
    assert!(config::check(&opaque).is_ok());
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = load(
        "receivers: {otlp: {protocols: {grpc:, http: }}}\n\
         exporters: {otlphttp: {endpoint: 'http://c'}}\n\
         service: {pipelines: {logs: {receivers: [otlp], exporters: [otlphttp]}}}",
    );
    let listen: Vec<_> = config
        .receiver
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listen, ["localhost:4317", "localhost:4318"]);
    let exporter = &config.exporters[0];
    assert_eq!(
        (exporter.protocol, exporter.endpoint.port),
        (Protocol::Http, 80)
    );
    assert_eq!(exporter.timeout, Duration::from_secs(30));
    assert_eq!(exporter.queue.capacity, 64 << 20);
    assert_eq!(exporter.queue.consumers, 10);
    assert_eq!(
        exporter.retry.max_elapsed_time,
        Duration::ZERO,
        "never given up"
    );
    assert_eq!(
        config.memory.limit,
        64 << 20,
        "bounded even without a memory_limiter"
    );
    assert!(config.telemetry.metrics.unwrap().without_type_suffix);
    assert_eq!(config.health, None);
}

#[test]
fn every_refusal_names_the_path_the_value_and_what_is_allowed() {
    let table = [
        (
            "compression: gzip",
            "compression: lz5",
            "exporters.otlp_grpc.compression: `lz5` is not supported; use none, gzip or zstd",
        ),
        (
            "timeout: 10s",
            "timeout: 10",
            "exporters.otlp_grpc.timeout: 10 has no unit; write for example 200ms, 10s or 5m",
        ),
        (
            "timeout: 10s",
            "timeout: ten seconds",
            "exporters.otlp_grpc.timeout: `ten seconds` is not a duration; write for example 200ms, 10s or 5m",
        ),
        (
            "timeout: 10s",
            "timeout: 10s\n    balancer_name: pick_first",
            "exporters.otlp_grpc.balancer_name: is not supported here; known are tls, endpoint, compression, \
          timeout, headers, sending_queue, retry_on_failure",
        ),
        (
            "http://otel",
            "https://otel",
            "exporters.otlp_grpc.endpoint: TLS is not supported by this agent; write http:// before the host for plaintext",
        ),
        (
            "http://otel-collector",
            "otel-collector",
            "exporters.otlp_grpc.endpoint: TLS is not supported by this agent; write http:// before the host for plaintext",
        ),
        (
            "http://otel",
            "unix://otel",
            "exporters.otlp_grpc.endpoint: `unix://` is not supported; use http://",
        ),
        (
            ".svc:4317",
            ".svc:4317/path",
            "exporters.otlp_grpc.endpoint: `/path`: a gRPC endpoint has no path",
        ),
        (
            ".svc:4317",
            ".svc:port",
            "exporters.otlp_grpc.endpoint: `port` is not a port; use 0 to 65535",
        ),
        (
            "timeout: 10s",
            "tls: {insecure: false}",
            "exporters.otlp_grpc.tls.insecure: TLS is not supported by this agent; only `insecure: true` is",
        ),
        (
            "queue_size: 67108864",
            "queue_size: 0",
            "exporters.otlp_grpc.sending_queue.queue_size: 0 is out of range; use 1 to 68719476736",
        ),
        (
            "block_on_overflow: false",
            "block_on_overflow: true",
            "exporters.otlp_grpc.sending_queue.block_on_overflow: is not supported; a full queue answers retryable at once",
        ),
        (
            "block_on_overflow: false",
            "storage: file_storage",
            "exporters.otlp_grpc.sending_queue.storage: a queue on disk is not supported by this agent",
        ),
        (
            "enabled: true, sizer: bytes",
            "enabled: true, sizer: requests",
            "exporters.otlp_grpc.sending_queue.sizer: `requests` is not supported; use bytes",
        ),
        (
            "enabled: true, sizer: bytes",
            "enabled: true",
            "exporters.otlp_grpc.sending_queue.sizer: is missing; this agent counts bytes, write `sizer: bytes`",
        ),
        (
            "enabled: true, sizer",
            "enabled: false, sizer",
            "exporters.otlp_grpc.sending_queue.enabled: the queue cannot be switched off",
        ),
        (
            "min_size: 3145728",
            "min_size: 3145729",
            "exporters.otlp_grpc.sending_queue.batch.min_size: must not be larger than max_size",
        ),
        (
            "x-tenant: a",
            "te: a",
            "exporters.otlp_grpc.headers.te: is set by the protocol and cannot be configured",
        ),
        (
            "x-tenant: a",
            "x tenant: a",
            "exporters.otlp_grpc.headers.x tenant: is not the name of a header",
        ),
        (
            "x-tenant: a",
            "x-tenant: \"a\\nb\"",
            "exporters.otlp_grpc.headers.x-tenant: holds characters a header value cannot carry",
        ),
        (
            "0.0.0.0:4317",
            "fe80::1:4317",
            "receivers.otlp.protocols.grpc.endpoint: `fe80::1:4317` needs brackets around its IPv6 address: [fe80::1]:4317",
        ),
        (
            "0.0.0.0:4318",
            "0.0.0.0:4317",
            "receivers.otlp.protocols.http.endpoint: is already taken by the other protocol; one port takes both \
          protocols, leave the other section out",
        ),
        (
            "grpc: {",
            "grpc: {tls: {cert_file: a}, ",
            "receivers.otlp.protocols.grpc.tls: TLS on the receiver is not supported by this agent",
        ),
        (
            "limit_mib: 64",
            "limit_percentage: 80, limit_mib: 64",
            "processors.memory_limiter.limit_percentage: percentages are not supported; use limit_mib",
        ),
        (
            "limit_mib: 64",
            "limit_mib: much",
            "processors.memory_limiter.limit_mib: expected a whole number, found a string",
        ),
        (
            "action: insert",
            "action: hash",
            "processors.resource/attributes.attributes[0].action: `hash` is not supported; use insert, update, upsert or delete",
        ),
        (
            "value: production, ",
            "from_attribute: x, value: y, ",
            "processors.resource/attributes.attributes[0].from_attribute: is not supported; give a literal value",
        ),
        (
            "value: production, ",
            "",
            "processors.resource/attributes.attributes[0].value: is missing; give a string, number or boolean",
        ),
        (
            "${env:OTELAGENT_NODE_NAME}",
            "${env:9NAME}",
            "processors.resource/host.attributes[0].value: `9NAME` is not the name of an environment variable; letters, \
          digits and _ only, no digit first",
        ),
        (
            "${env:OTELAGENT_NODE_NAME}",
            "${http://x}",
            "processors.resource/host.attributes[0].value: `${http:…}` is not supported; use ${env:NAME} or ${file:PATH}",
        ),
        (
            "${env:OTELAGENT_NODE_NAME}",
            "${env:OTELAGENT",
            "processors.resource/host.attributes[0].value: `${env:OTELAGENT` opens `${` and never closes it",
        ),
        (
            "exporters: [otlp_grpc]}\n    metrics",
            "exporters: [oltp]}\n    metrics",
            "service.pipelines.traces.exporters[0]: `oltp` is not defined under exporters; defined: otlp_grpc",
        ),
        (
            "exporters: [otlp_grpc]}\n    metrics",
            "exporters: []}\n    metrics",
            "service.pipelines.traces.exporters: is empty; name an exporter",
        ),
        (
            "    traces: {",
            "    profiles: {",
            "service.pipelines.profiles: `profiles` is not supported; use traces, metrics or logs",
        ),
        (
            "    traces: {",
            "    logs/2: {",
            "service.pipelines.logs: more than one logs pipeline is not supported",
        ),
        (
            "extensions: [health_check]",
            "extensions: [zpages]",
            "service.extensions[0]: `zpages` is not defined under extensions; defined: health_check",
        ),
        (
            "level: info",
            "level: trace",
            "service.telemetry.logs.level: `trace` is not supported; use debug, info, warn or error",
        ),
        (
            "service:\n",
            "connectors: {}\nservice:\n",
            "connectors: connectors are not supported by this agent",
        ),
        (
            "  memory_limiter: {check",
            "  batch: {}\n  memory_limiter: {check",
            "processors.batch: `batch` is not supported; set sending_queue.batch of the exporter instead",
        ),
        (
            "  memory_limiter: {check",
            "  filter/x: {}\n  memory_limiter: {check",
            "processors.filter/x: `filter` is not supported; use memory_limiter or resource",
        ),
    ];
    for (from, to, expected) in table {
        assert_eq!(problem(from, to), expected);
    }
}

#[test]
fn all_problems_of_a_file_are_reported_at_once() {
    let yaml = CONTRACT
        .replace("compression: gzip", "compression: lz5")
        .replace("level: info", "level: loud")
        .replace("limit_mib: 64", "limit_mib: -1");
    let messages = messages(config::check(&yaml));
    assert_eq!(messages.len(), 3, "{messages:#?}");
}

#[test]
fn a_file_that_is_no_configuration_says_so() {
    let first = |yaml: &str| messages(config::check(yaml)).remove(0);
    assert_eq!(first(""), "expected a mapping of sections, found nothing");
    assert_eq!(first("- a"), "expected a mapping of sections, found a list");
    assert!(first("a: [").contains("line 1"));
    assert!(first("a: 1\na: 2").contains("duplicate"));
    assert_eq!(
        first("{}"),
        "receivers: is missing; an agent needs receivers, exporters and service"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let yaml = CONTRACT.replace("headers/0/token", "headers/1/token");
    let messages = messages(config::load(&yaml, &World));
    assert_eq!(
        messages,
        [
            "exporters.otlp_grpc.headers.authorization: cannot read /etc/otelagent/headers/1/token: no such file"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        let _ = config::check(&text);
    }

    #[test]
    fn no_damage_to_a_good_file_makes_the_reader_panic(
        at in any::<prop::sample::Index>(),
        damage in "[\\PC\n]{0,6}",
    ) {
        let boundaries: Vec<_> = CONTRACT.char_indices().map(|(at, _)| at).collect();
        let at = boundaries[at.index(boundaries.len())];
        let _ = config::check(&format!("{}{damage}{}", &CONTRACT[..at], &CONTRACT[at..]));
        let _ = config::load(&format!("{}{damage}{}", &CONTRACT[..at], &CONTRACT[at..]), &World);
    }
}
