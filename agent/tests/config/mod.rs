//! The configuration file: what is taken, what is refused, and in which words.

use std::time::Duration;

use otelagent_agent::config::{
    self, AttributeAction, AttributeValue, BindAddress, ClientTls, Compression, Config, Identity,
    LogEncoding, LogLevel, Pem, Problem, Protocol, Resolve, Versions,
};
use otlp_wire::Signal;
use proptest::prelude::*;

mod changes;
mod fields;
mod readers;
mod refusals;

use refusals::REFUSALS;

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
fn generated_file_is_accepted_unchanged() {
    let config = config::check(CONTRACT).unwrap();
    assert_eq!(config.receiver.listen.len(), 2);
    assert_eq!(config.receiver.max_grpc_message, 4 << 20);
    assert_eq!(config.receiver.max_http_body, 20 << 20);
    let signals: Vec<_> = config
        .pipelines
        .iter()
        .map(|pipeline| pipeline.signal)
        .collect();
    assert_eq!(signals, [Signal::Traces, Signal::Metrics, Signal::Logs]);
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

/// The contract with a second receiver, which its first pipeline uses.
fn with_second_receiver(grpc: &str) -> String {
    let second = format!(
        "receivers:\n  otlp/second:\n    protocols:\n      grpc: {grpc}\n      http: {{endpoint: \"[::]:14318\"}}"
    );
    CONTRACT.replacen("receivers:", &second, 1).replacen(
        "receivers: [otlp]",
        "receivers: [otlp, otlp/second]",
        1,
    )
}

#[test]
fn receivers_that_differ_in_their_endpoints_alone_are_one_with_the_ports_of_both() {
    let ports = |config: &Config| -> Vec<u16> {
        let sockets = config.receiver.listen.iter();
        sockets
            .filter_map(|socket| match &socket.address {
                BindAddress::Tcp(address) => Some(address.port),
                BindAddress::Unix(_) => None,
            })
            .collect()
    };
    let both = config::check(&with_second_receiver("{endpoint: \"[::]:14317\"}")).unwrap();
    assert_eq!(ports(&both), [4317, 4318, 14317, 14318]);
    assert_eq!(both.receiver.id, "otlp");
    let limited = with_second_receiver("{endpoint: \"[::]:14317\", max_recv_msg_size_mib: 8}");
    assert_eq!(
        messages(config::check(&limited)),
        [
            "service.pipelines.traces.receivers[1]: `otlp/second` differs from `otlp` in more than its endpoints, and all \
          pipelines share one receiver; write the same in both"
        ]
    );
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
        headers[1].1.value(),
        "Bearer a$b",
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
    assert_eq!(with("'a${env:MISSING}b'"), text("ab"));
    let none = with("'${env:MISSING:-}'");
    assert!(
        none.is_ok_and(|first| Ok(first) != text("")),
        "an empty text is left out"
    );
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
fn reference_may_stand_for_any_type() {
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
fn absent_settings_have_the_documented_default() {
    let config = load(
        "receivers: {otlp: {protocols: {grpc:, http: }}}\n\
         exporters: {otlphttp: {endpoint: 'http://c'}}\n\
         service: {pipelines: {logs: {receivers: [otlp], exporters: [otlphttp]}}}",
    );
    let listen: Vec<_> = config
        .receiver
        .listen
        .iter()
        .map(|listener| listener.address.to_string())
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
fn profiles_have_a_pipeline_like_any_signal() {
    let with = CONTRACT.replace(
        "  pipelines:\n",
        "  pipelines:\n    profiles: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc]}\n",
    );
    let config = config::check(&with).unwrap();
    let pipeline = &config.pipelines[0];
    assert_eq!(pipeline.signal, Signal::Profiles);
    assert_eq!((pipeline.exporter, pipeline.attributes.len()), (0, 0));
    assert!(config.to_string().contains("profiles  to otlp_grpc"));
}

#[test]
fn scheme_decides_about_tls_and_without_one_it_is_on() {
    let tls = |endpoint: &str, tls: &str| {
        let yaml = CONTRACT
            .replace("http://otel-collector.observability.svc:4317", endpoint)
            .replace("timeout: 10s", &format!("timeout: 10s\n    {tls}"));
        load(&yaml).exporters.remove(0).tls
    };
    assert_eq!(tls("http://c:4317", ""), None);
    assert_eq!(tls("http://c:4317", "tls: {insecure: true}"), None);
    assert_eq!(tls("c:4317", "tls: {insecure: true}"), None);
    assert_eq!(tls("c:4317", ""), Some(ClientTls::default()));
    assert_eq!(tls("https://c", ""), Some(ClientTls::default()));
    assert_eq!(
        tls("https://c", "tls: {insecure: true}"),
        Some(ClientTls::default()),
        "as in the collector"
    );
    let full = "tls: {ca_file: /ca, include_system_ca_certs_pool: true, cert_file: /c, key_file: /k, \
        server_name_override: s, min_version: '1.3', reload_interval: 10s, insecure_skip_verify: true}";
    let file = |path: &str| Pem::File(path.into());
    let expected = ClientTls {
        insecure_skip_verify: true,
        server_name_override: Some("s".into()),
        ca: Some(file("/ca")),
        include_system_ca: true,
        identity: Some(Identity {
            certificate: file("/c"),
            key: file("/k"),
        }),
        versions: Versions {
            tls12: false,
            tls13: true,
        },
        reload_interval: Some(Duration::from_secs(10)),
    };
    assert_eq!(tls("c:4317", full), Some(expected));
}

#[test]
fn header_from_a_file_is_reread_and_others_stay() {
    let yaml = CONTRACT.replace("x-tenant: a", "x-tenant: 'a-${env:PORT}'");
    let headers = load(&yaml).exporters.remove(0).headers;
    let (tenant, token) = (&headers[0].1, &headers[1].1);
    assert_eq!((tenant.value(), tenant.can_change()), ("a-9999", false));
    assert!(token.can_change());
    assert_eq!(token.read_again(&World).unwrap(), "Bearer a$b");
    let yaml = CONTRACT.replace(
        "\"${file:/etc/otelagent/headers/0/token}\"",
        "'Basic ${file:/etc/otelagent/headers/0/token}!'",
    );
    let token = load(&yaml).exporters.remove(0).headers.remove(1).1;
    assert_eq!(token.read_again(&World).unwrap(), "Basic Bearer a$b!");
    assert!(!format!("{token:?}").contains("Basic"));
}

#[test]
fn every_refusal_names_the_path_the_value_and_what_is_allowed() {
    for (from, to, expected) in REFUSALS {
        assert_eq!(problem(from, to), *expected);
    }
}

/// The contract with its queue on disk, with these fields of the extension.
fn on_disk(fields: &str) -> String {
    CONTRACT
        .replace("block_on_overflow: false", "storage: file_storage/queue")
        .replace(
            "extensions:\n  health",
            &format!("extensions:\n  file_storage/queue: {{{fields}}}\n  health"),
        )
        .replace(
            "extensions: [health_check]",
            "extensions: [health_check, file_storage/queue]",
        )
}

#[test]
fn queue_on_disk_has_the_collectors_fields_and_defaults() {
    let storage = |yaml: &str| config::check(yaml).unwrap().exporters[0].storage.clone();
    assert_eq!(storage(CONTRACT), None);
    let default = storage(&on_disk("")).unwrap();
    assert_eq!(default.directory, "/var/lib/otelcol/file_storage");
    assert_eq!(default.directory_permissions, 0o750);
    assert!(!default.create_directory && !default.fsync);
    assert_eq!(default.max_size, 0);
    let all = storage(&on_disk(
        "directory: /queue, create_directory: true, directory_permissions: '0700', timeout: 2s, fsync: true, \
         max_size: 1000000, recreate: false, compaction: {on_start: true, directory: /tmp, check_interval: 5s, \
         max_transaction_size: 0, rebound_needed_threshold_mib: 1}",
    ))
    .unwrap();
    assert_eq!(
        (all.id.as_str(), all.directory.as_str()),
        ("file_storage/queue", "/queue")
    );
    assert_eq!(
        (all.directory_permissions, all.max_size),
        (0o700, 1_000_000)
    );
    assert!(all.create_directory && all.fsync);
}

#[test]
fn unsupported_settings_of_a_queue_on_disk_are_refused() {
    let refused = |yaml: &str| messages(config::check(yaml));
    assert_eq!(
        refused(&on_disk("recreate: true")),
        [
            "extensions.file_storage/queue.recreate: only `false` is supported: damage on disk costs only the records it \
             has hit"
        ]
    );
    assert_eq!(
        refused(&on_disk("directory_permissions: '0888'")),
        [
            "extensions.file_storage/queue.directory_permissions: `0888` is not an octal mode of 0700 to 0777; write \
             \"0750\""
        ]
    );
    assert_eq!(
        refused(&on_disk("").replace("[health_check, file_storage/queue]", "[health_check]")),
        [
            "service.extensions: `file_storage/queue` is missing; the queue of otlp_grpc is kept there"
        ]
    );
    assert_eq!(
        refused(&on_disk("").replace("storage: file_storage/queue", "storage: health_check")),
        [
            "exporters.otlp_grpc.sending_queue.storage: `health_check` is not defined under extensions as a \
             file_storage"
        ]
    );
}

#[test]
fn giving_up_with_a_queue_on_disk_gets_a_warning() {
    let warnings = |yaml: String| config::check(&yaml).unwrap().warnings;
    assert!(warnings(on_disk("")).is_empty());
    let given_up = warnings(on_disk("").replace("max_elapsed_time: 0s", "max_elapsed_time: 5m"));
    assert!(given_up[0].contains("LOSES telemetry"), "{given_up:?}");
    let never_again = warnings(on_disk("").replace(
        "retry_on_failure: {enabled: true",
        "retry_on_failure: {enabled: false",
    ));
    assert!(never_again[0].contains("LOST"), "{never_again:?}");
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
fn file_that_is_no_configuration_is_refused_as_such() {
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
fn unreadable_file_is_named() {
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
