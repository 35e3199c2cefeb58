//! `service.telemetry.metrics.readers`: what is pulled, what is pushed, and in which words the rest is refused.

use std::time::Duration;

use otelagent_agent::config::{
    self, Compression, Identity, MetricsPush, Pem, Protocol, Telemetry, Versions,
};
use otlp_wire::Signal;

use super::{CONTRACT, World, load, messages};

const OTLP: &str = "exporter: {otlp: {protocol: grpc, endpoint: 'https://c'}}";

/// The contract with one more reader.
fn with_reader(reader: &str) -> String {
    assert!(CONTRACT.contains("readers: ["));
    CONTRACT.replacen("readers: [", &format!("readers: [{{{reader}}}, "), 1)
}

fn with_otlp(fields: &str) -> String {
    with_reader(&format!("periodic: {{exporter: {{otlp: {{{fields}}}}}}}"))
}

fn push(fields: &str) -> MetricsPush {
    load(&with_otlp(fields)).telemetry.push.unwrap()
}

#[test]
fn periodic_reader_has_the_collectors_defaults() {
    let push = push("protocol: grpc, endpoint: 'https://c'");
    assert_eq!(push.interval, Duration::from_mins(1));
    assert_eq!(push.timeout, Duration::from_secs(30));
    let exporter = push.exporter;
    assert_eq!(exporter.timeout, Duration::from_secs(10));
    assert_eq!(exporter.compression, Compression::None);
    assert_eq!(exporter.protocol, Protocol::Grpc);
    assert!(exporter.headers.is_empty());
    let tls = exporter.tls.unwrap();
    assert_eq!((tls.ca, tls.identity), (None, None));
    assert_eq!(tls.versions, Versions::default());
}

#[test]
fn both_kinds_of_readers_can_be_used_each_alone_and_none() {
    let telemetry = |yaml: &str| load(yaml).telemetry;
    let used = |telemetry: &Telemetry| (telemetry.metrics.is_some(), telemetry.push.is_some());
    let both = with_reader(&format!("periodic: {{{OTLP}}}"));
    assert_eq!(used(&telemetry(&both)), (true, true));
    assert_eq!(used(&telemetry(CONTRACT)), (true, false));
    let none = both.replace("metrics: {readers", "metrics: {level: none, readers");
    assert_eq!(used(&telemetry(&none)), (false, false));
    let (before, _) = CONTRACT.split_once("    metrics: {readers").unwrap();
    let alone = format!("{before}    metrics: {{readers: [{{periodic: {{{OTLP}}}}}]}}\n");
    assert_eq!(used(&telemetry(&alone)), (false, true));
    // The collector's default.
    assert_eq!(used(&telemetry(before)), (true, false));
}

#[test]
fn scheme_of_the_endpoint_or_insecure_decides_about_tls() {
    for (protocol, rest, address, path, is_encrypted) in [
        (
            "http/protobuf",
            "'http://c:4318'",
            "c:4318",
            "/v1/metrics",
            false,
        ),
        (
            "http/protobuf",
            "'http://c:4318/'",
            "c:4318",
            "/v1/metrics",
            false,
        ),
        ("http/protobuf", "'https://c/in/m'", "c:443", "/in/m", true),
        ("http/protobuf", "'c:4318'", "c:4318", "/v1/metrics", true),
        (
            "http/protobuf",
            "'c:4318/m', insecure: true",
            "c:4318",
            "/m",
            false,
        ),
        (
            "http/protobuf",
            "'https://c', insecure: true",
            "c:443",
            "/v1/metrics",
            true,
        ),
        (
            "http/protobuf",
            "c, insecure: true",
            "c:80",
            "/v1/metrics",
            false,
        ),
        ("grpc", "'http://c:4317'", "c:4317", "", false),
        (
            "grpc",
            "'https://[fd12::1]:4317'",
            "[fd12::1]:4317",
            "",
            true,
        ),
        ("grpc", "'c:4317'", "c:4317", "", true),
        ("grpc", "'c:4317', insecure: true", "c:4317", "", false),
    ] {
        let exporter = push(&format!("protocol: {protocol}, endpoint: {rest}")).exporter;
        assert_eq!(exporter.endpoint.to_string(), address, "{rest}");
        assert_eq!(exporter.base_path, path, "{rest}");
        assert_eq!(exporter.tls.is_some(), is_encrypted, "{rest}");
        let signal = (protocol != "grpc").then_some(Signal::Metrics);
        assert_eq!(exporter.signal, signal, "the path is not appended to");
    }
}

#[test]
fn certificates_and_headers_are_those_of_the_file() {
    let push = push(
        "protocol: grpc, endpoint: 'c:4317', certificate: /ca, client_certificate: /crt, client_key: /key, \
         headers: [{name: X-Tenant, value: a}, {name: authorization, value: '${file:/etc/otelagent/headers/0/token}'}]",
    );
    let file = |path: &str| Pem::File(path.into());
    let tls = push.exporter.tls.unwrap();
    assert_eq!(tls.ca, Some(file("/ca")));
    let identity = Identity {
        certificate: file("/crt"),
        key: file("/key"),
    };
    assert_eq!(tls.identity, Some(identity));
    let headers = &push.exporter.headers;
    assert_eq!(headers[0].0, "x-tenant");
    assert_eq!(
        (headers[1].1.value(), headers[1].1.can_change()),
        ("Bearer a$b", true)
    );
}

#[test]
fn timeout_of_a_push_bounds_that_of_its_attempt() {
    let yaml = with_reader(&format!(
        "periodic: {{timeout: 3000, interval: 5000, {OTLP}}}"
    ));
    let push = load(&yaml).telemetry.push.unwrap();
    assert_eq!(push.interval, Duration::from_secs(5));
    assert_eq!(push.exporter.timeout, Duration::from_secs(3));
}

#[test]
fn attributes_of_the_resource_are_strings_or_left_out() {
    let resource = |fields: &str| {
        let telemetry = format!("  telemetry:\n    resource: {fields}\n");
        config::load(&CONTRACT.replace("  telemetry:\n", &telemetry), &World)
    };
    let taken =
        resource("{k8s.node.name: '${env:OTELAGENT_NODE_NAME}', service.instance.id: null}");
    assert_eq!(
        taken.unwrap().telemetry.resource,
        [
            ("k8s.node.name".to_owned(), Some("node-7".to_owned())),
            ("service.instance.id".to_owned(), None)
        ]
    );
    assert!(resource("null").unwrap().telemetry.resource.is_empty());
    assert_eq!(
        messages(resource("{a: 1, attributes: []}")),
        [
            "service.telemetry.resource.a: expected a string, found a number",
            "service.telemetry.resource.attributes: is not supported; write the attributes themselves, as in \
             `resource: {k8s.node.name: a}`",
        ]
    );
    assert_eq!(
        messages(resource("[]")),
        ["service.telemetry.resource: expected a mapping, found a list"]
    );
}

/// What is said of the first reader, after its path.
fn refusals(reader: &str) -> Vec<String> {
    let found = messages(config::check(&with_reader(reader))).into_iter();
    let strip = |message: String| {
        let rest = message.strip_prefix("service.telemetry.metrics.readers[0]");
        rest.map_or(message.clone(), |rest| {
            rest.trim_start_matches('.').to_owned()
        })
    };
    found.map(strip).collect()
}

#[test]
fn reader_that_is_incomplete_or_of_two_kinds_is_refused() {
    for (reader, expected) in [
        ("", ": is no reader; write pull or periodic"),
        (
            "periodic: ",
            "periodic.exporter: is missing; write an exporter with otlp",
        ),
        (
            "periodic: {exporter: null}",
            "periodic.exporter.otlp: is missing; write otlp with protocol and endpoint",
        ),
        (
            "periodic: {exporter: {otlp: null}}",
            "periodic.exporter.otlp.protocol: is missing; write http/protobuf or grpc",
        ),
        (
            "periodic: {exporter: {otlp: {protocol: grpc, endpoint: null}}}",
            "periodic.exporter.otlp.endpoint: is missing; write for example http://collector:4318/v1/metrics, or \
             http://collector:4317 with protocol: grpc",
        ),
        (
            "pull: null",
            "pull.exporter: is missing; write an exporter with prometheus",
        ),
        (
            "pull: {exporter: {}}",
            "pull.exporter.prometheus: is missing; write prometheus, which alone can be pulled",
        ),
    ] {
        assert_eq!(refusals(reader)[0], expected, "{reader}");
    }
    let both = format!("periodic: {{{OTLP}}}, pull: {{exporter: {{prometheus: }}}}");
    assert_eq!(
        refusals(&both)[0],
        ": has both pull and periodic; make two readers of it"
    );
    let twice = format!("periodic: {{{OTLP}}}}}, {{periodic: {{{OTLP}}}");
    assert_eq!(
        refusals(&twice),
        ["service.telemetry.metrics.readers: more than one periodic reader is not supported"]
    );
}

/// Fields of `otlp`, and what is said of them after its path.
const OTLP_REFUSALS: &[(&str, &str)] = &[
    (
        "protocol: http/json, endpoint: 'http://c'",
        "protocol: `http/json` is not supported; use http/protobuf or grpc",
    ),
    (
        "protocol: grpc, endpoint: 'http://c/v1/metrics'",
        "endpoint: `/v1/metrics`: a gRPC endpoint has no path; leave it out, or send by OTLP/HTTP",
    ),
    (
        "protocol: grpc, endpoint: 'unix:///s'",
        "endpoint: `unix://` is not supported; use https:// or http://",
    ),
    (
        "protocol: grpc, endpoint: 'http://c', certificate: /ca",
        "endpoint: is plaintext, but certificates are configured; write https://, or leave them out",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', client_key: /k",
        "client_certificate: is missing; client_key needs its certificate",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', compression: zstd",
        "compression: `zstd` is not supported; use none or gzip",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', timeout: 5s",
        "timeout: expected a whole number, found a string",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', headers: {x-tenant: a}",
        "headers: expected a list of mappings with name and value, found a mapping",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', headers: [{name: te, value: a}]",
        "headers[0].name: is set by the protocol and cannot be configured",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', headers: [{name: a, value: \"s3cret\\n\"}]",
        "headers[0].value: contains characters that a header value cannot have",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', headers: [{name: a, value: null}]",
        "headers[0].value: is missing; give its value",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', temporality_preference: delta",
        "temporality_preference: only `cumulative` is supported: every value counts from the start of the process, \
         as on /metrics",
    ),
    (
        "protocol: grpc, endpoint: 'https://c', tls: {insecure: true}",
        "tls: is a key of a later schema, which the collector (v0.162) does not take either; write \
         certificate, client_certificate, client_key and insecure",
    ),
];

#[test]
fn value_that_cannot_be_used_is_refused_with_what_to_write() {
    for (fields, expected) in OTLP_REFUSALS {
        let reader = format!("periodic: {{exporter: {{otlp: {{{fields}}}}}}}");
        let expected = format!("periodic.exporter.otlp.{expected}");
        assert_eq!(refusals(&reader), [expected]);
    }
    for (reader, expected) in [
        (
            format!("periodic: {{interval: 60s, {OTLP}}}"),
            "periodic.interval: expected a whole number, found a string",
        ),
        (
            format!("periodic: {{interval: 99, {OTLP}}}"),
            "periodic.interval: 99 is out of range; use 100 to 86400000",
        ),
        (
            "periodic: []".to_owned(),
            "periodic: expected a mapping, found a list",
        ),
        (
            "periodic: {exporter: {otlp_http: {endpoint: 'http://c'}}}".to_owned(),
            "periodic.exporter.otlp: is missing; write otlp with protocol and endpoint",
        ),
    ] {
        assert_eq!(refusals(&reader)[0], expected);
    }
}

#[test]
fn endpoint_of_the_agent_itself_is_refused() {
    for (listen, endpoint, is_own) in [
        ("0.0.0.0:4317", "http://localhost:4317", true),
        ("0.0.0.0:4317", "http://127.0.0.1:4317", true),
        ("0.0.0.0:4317", "http://[::1]:4317", true),
        (":4317", "https://LOCALHOST:4317", true),
        ("localhost:4317", "http://127.0.0.1:4317", true),
        ("10.1.2.3:4317", "http://10.1.2.3:4317", true),
        ("10.1.2.3:4317", "http://localhost:4317", false),
        ("127.0.0.2:4317", "http://127.0.0.1:4317", false),
        ("0.0.0.0:4317", "http://localhost:4316", false),
        ("0.0.0.0:4317", "http://collector:4317", false),
    ] {
        let fields = format!("protocol: grpc, endpoint: '{endpoint}'");
        let yaml = with_otlp(&fields).replace("0.0.0.0:4317", listen);
        let found = config::check(&yaml).err();
        let found = found.map(|problems| problems[0].to_string());
        let says = |text: String| text.contains("where this agent listens");
        assert_eq!(found.is_some_and(says), is_own, "{listen} {endpoint}");
    }
}

#[test]
fn check_prints_where_metrics_are_pushed_and_no_secret() {
    let yaml = with_otlp(
        "protocol: http/protobuf, endpoint: 'https://c/in', certificate: /ca, compression: gzip, \
         headers: [{name: authorization, value: s3cret}]",
    );
    let yaml = yaml.replace(
        "  telemetry:\n",
        "  telemetry:\n    resource: {k8s.node.name: a, service.instance.id: null}\n",
    );
    let config = load(&yaml);
    let printed = config.to_string();
    for line in [
        "metrics   0.0.0.0:8888/metrics\n",
        "metrics   pushed every 60s: HTTP c:443/in, compression Gzip, timeout 10s\n",
        "          TLS, verified by /ca\n",
        "          header authorization\n",
        "          resource k8s.node.name = a\n",
        "          resource without service.instance.id\n",
    ] {
        assert!(printed.contains(line), "{line} in {printed}");
    }
    assert!(!format!("{printed}{config:?}").contains("s3cret"));
}

#[test]
fn likely_mistake_of_the_port_is_warned_of() {
    let warnings = |fields: &str| load(&with_otlp(fields)).warnings;
    let expected = [
        "service.telemetry.metrics.readers[0].periodic.exporter.otlp.endpoint: port 4318 is most often that of \
         OTLP/HTTP; OTLP/gRPC has 4317, or write protocol: http/protobuf",
    ];
    assert_eq!(
        warnings("protocol: grpc, endpoint: 'http://c:4318'"),
        expected
    );
    assert!(warnings("protocol: grpc, endpoint: 'http://c:4317'").is_empty());
}
