//! `exporters`: `otlp_grpc` and `otlp_http` (and their older names), with queue, batch and retry, and
//! those that send nothing, `debug` and `nop`.

use std::time::Duration;

use otlp_wire::Signal;

use super::document::component_type;
use super::section::Section;
use super::service::Extension;
use super::storage;
use super::tree::Node;
use super::{
    Address, ClientTls, Compression, Exporter, Protocol, Queue, Retry, Storage, Text,
    is_header_value, receivers, tls,
};

const MIB: usize = 1024 * 1024;

/// Headers the protocol itself sets.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "grpc-encoding",
    "grpc-timeout",
    "host",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// An exporter as the file defines it.
pub(super) struct Definition {
    exporter: Exporter,
    /// Whether `endpoint` is given, for signals without one of their own.
    common: bool,
    /// `<signal>_endpoint`.
    own: Vec<(Signal, Endpoint)>,
}

impl Definition {
    /// What a pipeline of `signal` uses of it; `None` where that has no endpoint.
    pub(super) fn of(&self, signal: Signal) -> Option<Exporter> {
        let own = self.own.iter().find(|(of, _)| *of == signal);
        match own {
            Some((_, endpoint)) => Some(Exporter {
                signal: Some(signal),
                endpoint: endpoint.address.clone(),
                tls: endpoint.tls.clone(),
                base_path: endpoint.whole_path.clone(),
                ..self.exporter.clone()
            }),
            None => self.common.then(|| self.exporter.clone()),
        }
    }
}

pub(super) fn read(
    exporters: &Section<'_>,
    extensions: &[(String, Extension)],
) -> Vec<(String, Definition)> {
    let mut found = Vec::new();
    for (id, node) in exporters.entries() {
        let known = ["otlp_grpc", "otlp_http", "otlp", "otlphttp", "debug", "nop"];
        let Some(kind) = component_type(exporters, id, &known) else {
            continue;
        };
        let (kind, protocol) = match kind {
            "otlp_grpc" | "otlp" => ("otlp_grpc", Protocol::Grpc),
            "otlp_http" | "otlphttp" => ("otlp_http", Protocol::Http),
            "debug" => ("debug", Protocol::Debug),
            _ => ("nop", Protocol::Nop),
        };
        let section = Section::component(exporters, id, kind, node);
        let definition = match protocol {
            Protocol::Grpc | Protocol::Http => exporter(section, id, protocol, extensions),
            Protocol::Debug | Protocol::Nop => local(section, id, protocol),
        };
        found.push((id.to_owned(), definition));
    }
    found
}

/// An exporter that sends nothing. Its lanes have the default queue, and no need of it.
fn local(mut section: Section<'_>, id: &str, protocol: Protocol) -> Definition {
    if protocol == Protocol::Debug {
        section.choice("verbosity", &[("basic", ())]);
    }
    section.finish();
    let (queue, storage) = queue(None, &[]);
    let exporter = Exporter {
        id: id.to_owned(),
        signal: None,
        protocol,
        endpoint: receivers::opaque_address(""),
        tls: None,
        base_path: String::new(),
        user_agent: None,
        authority: None,
        compression: Compression::None,
        timeout: Duration::from_secs(5),
        headers: Vec::new(),
        queue,
        retry: retry(None),
        storage,
    };
    Definition {
        exporter,
        common: true,
        own: Vec::new(),
    }
}

fn exporter(
    mut section: Section<'_>,
    id: &str,
    protocol: Protocol,
    extensions: &[(String, Extension)],
) -> Definition {
    let tls = section.section("tls").map(tls::client);
    let own = match protocol {
        Protocol::Http => own_endpoints(&mut section, tls.as_ref()),
        _ => Vec::new(),
    };
    let common = own.is_empty() || section.node("endpoint").is_some();
    let endpoint = if common {
        endpoint(&mut section, protocol, tls.as_ref())
    } else {
        Endpoint::nowhere()
    };
    let compression = section.choice(
        "compression",
        &[
            ("none", Compression::None),
            ("gzip", Compression::Gzip),
            ("zstd", Compression::Zstd),
        ],
    );
    let timeout = section
        .duration("timeout")
        .filter(|timeout| !timeout.is_zero());
    let mut user_agent = None;
    let mut authority = None;
    if protocol == Protocol::Grpc {
        user_agent = section.parsed("user_agent", header_value, str::to_owned);
        authority = section.parsed("authority", authority_value, str::to_owned);
    } else {
        section.choice("encoding", &[("proto", ())]);
        if let Some(params) = section.section("compression_params") {
            params.finish();
        }
    }
    let headers = headers(&mut section);
    let (queue, storage) = queue(section.section("sending_queue"), extensions);
    let retry = retry(section.section("retry_on_failure"));
    section.finish();
    let default_timeout = match protocol {
        Protocol::Grpc => 5,
        _ => 30,
    };
    let exporter = Exporter {
        id: id.to_owned(),
        signal: None,
        protocol,
        endpoint: endpoint.address,
        tls: endpoint.tls,
        base_path: endpoint.path,
        user_agent,
        authority,
        compression: compression.unwrap_or(Compression::Gzip),
        timeout: timeout.unwrap_or(Duration::from_secs(default_timeout)),
        headers,
        queue,
        retry,
        storage,
    };
    Definition {
        exporter,
        common,
        own,
    }
}

fn header_value(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if text.is_empty() || !printable {
        return Err(format!("`{text}` cannot be sent as a header"));
    }
    Ok(text.to_owned())
}

fn authority_value(text: &str) -> Result<String, String> {
    if text.contains(['/', '@', '?', '#', ' ']) {
        return Err(format!("`{text}` is not a host, with a port or without"));
    }
    header_value(text)
}

/// Endpoints of single signals, used as they stand.
fn own_endpoints(section: &mut Section<'_>, tls: Option<&tls::Client>) -> Vec<(Signal, Endpoint)> {
    let mut own = Vec::new();
    for (key, signal) in [
        ("traces_endpoint", Signal::Traces),
        ("metrics_endpoint", Signal::Metrics),
        ("logs_endpoint", Signal::Logs),
        ("profiles_endpoint", Signal::Profiles),
    ] {
        if let Some(endpoint) = parse_endpoint(section, key, Protocol::Http, tls) {
            own.push((signal, endpoint));
        }
    }
    own
}

/// What an endpoint's text says.
struct Url {
    scheme: Option<&'static str>,
    address: Address,
    /// Without slashes at its end.
    path: String,
    /// As it stands, never empty.
    whole_path: String,
}

/// Where an exporter sends to.
struct Endpoint {
    address: Address,
    /// Without slashes at its end.
    path: String,
    /// As it stands, never empty.
    whole_path: String,
    tls: Option<ClientTls>,
}

impl Endpoint {
    fn nowhere() -> Self {
        Self {
            address: receivers::opaque_address(""),
            path: String::new(),
            whole_path: "/".to_owned(),
            tls: None,
        }
    }
}

fn endpoint(section: &mut Section<'_>, protocol: Protocol, tls: Option<&tls::Client>) -> Endpoint {
    parse_endpoint(section, "endpoint", protocol, tls).unwrap_or_else(|| {
        if section.node("endpoint").is_none() {
            section.problem(
                "endpoint",
                "is missing; write for example https://collector:4317",
            );
        }
        Endpoint::nowhere()
    })
}

fn parse_endpoint(
    section: &mut Section<'_>,
    key: &'static str,
    protocol: Protocol,
    tls: Option<&tls::Client>,
) -> Option<Endpoint> {
    let opaque = |text: &str| Url {
        scheme: None,
        address: receivers::opaque_address(text),
        path: String::new(),
        whole_path: "/".to_owned(),
    };
    let url = section.parsed(key, |text| url(text, protocol), opaque)?;
    // As in the collector: the scheme decides; without one TLS is spoken unless switched off.
    let insecure = tls.is_some_and(|tls| tls.insecure);
    let encrypted = match url.scheme {
        Some("http") => {
            if tls.is_some() && !insecure {
                section.problem(
                    key,
                    "`http://` is plaintext, but tls is configured; write https://, or `insecure: true` under tls",
                );
            }
            false
        }
        Some(_) => true,
        None => !insecure,
    };
    Some(Endpoint {
        address: url.address,
        path: url.path,
        whole_path: url.whole_path,
        tls: encrypted.then(|| tls.map(|tls| tls.tls.clone()).unwrap_or_default()),
    })
}

fn url(text: &str, protocol: Protocol) -> Result<Url, String> {
    let (scheme, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some("http"), rest),
        Some(("https", rest)) => (Some("https"), rest),
        Some((other, _)) => {
            return Err(format!(
                "`{other}://` is not supported; use https:// or http://"
            ));
        }
        None => (None, text),
    };
    if scheme.is_none() && protocol == Protocol::Http {
        return Err(format!(
            "`{text}` is not a URL; write https://host:4318 or http://host:4318"
        ));
    }
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if authority.contains('@') {
        return Err("must not hold a user name or password; use headers".to_owned());
    }
    let whole_path = if path.is_empty() { "/" } else { path };
    let path = path.trim_end_matches('/');
    if path.contains(['?', '#', ' ']) {
        return Err(format!("`{path}` is not a plain path"));
    }
    if !path.is_empty() && protocol == Protocol::Grpc {
        return Err(format!("`{path}`: a gRPC endpoint has no path"));
    }
    let default_port = match (scheme, protocol) {
        (Some("https"), _) => 443,
        (_, Protocol::Grpc) => 4317,
        _ => 80,
    };
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port {
        receivers::address(authority)?
    } else {
        receivers::address(&format!("{authority}:{default_port}"))?
    };
    if address.host.is_empty() || address.port == 0 {
        return Err(format!("`{text}` needs a host and a port other than 0"));
    }
    Ok(Url {
        scheme,
        address,
        path: path.to_owned(),
        whole_path: whole_path.to_owned(),
    })
}

fn headers(section: &mut Section<'_>) -> Vec<(String, Text)> {
    let mut headers = Vec::new();
    let Some(names) = section.section("headers") else {
        return headers;
    };
    for (name, node) in names.entries() {
        let lower = name.to_ascii_lowercase();
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte));
        if !is_name {
            names.problem(name, "is not the name of a header");
        } else if RESERVED_HEADERS.contains(&lower.as_str()) || lower.ends_with("-bin") {
            names.problem(name, "is set by the protocol and cannot be configured");
        }
        let value = match node {
            Node::Text(text) | Node::Resolved(text, _) | Node::Opaque(text) => text.clone(),
            Node::Integer(number) => number.to_string(),
            Node::Bool(value) => value.to_string(),
            other => {
                names.problem(name, format!("expected a string, found {}", other.kind()));
                continue;
            }
        };
        // The value is not echoed: it may be a credential.
        if !is_header_value(&value) {
            names.problem(name, "holds characters a header value cannot carry");
        }
        headers.push((lower, Text::new(&value, names.written_with_files(name))));
    }
    headers
}

const SIZES: std::ops::RangeInclusive<u64> = 1..=64 * 1024 * 1024 * 1024;

fn size(section: &mut Section<'_>, key: &'static str) -> Option<usize> {
    section
        .integer(key, SIZES)
        .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

fn sizer(section: &mut Section<'_>, required: bool) {
    let sizer = section.choice("sizer", &[("bytes", ())]);
    if sizer.is_none() && section.node("sizer").is_none() && required {
        section.problem(
            "sizer",
            "is missing; this agent counts bytes, write `sizer: bytes`",
        );
    }
}

fn queue(
    section: Option<Section<'_>>,
    extensions: &[(String, Extension)],
) -> (Queue, Option<Storage>) {
    let mut queue = Queue {
        capacity: 64 * MIB,
        consumers: 10,
        flush_timeout: Duration::from_millis(200),
        min_size: 3 * MIB,
        max_size: 3 * MIB,
    };
    let Some(mut section) = section else {
        return (queue, None);
    };
    if section.boolean("enabled") == Some(false) {
        section.problem("enabled", "the queue cannot be switched off");
    }
    for off in ["block_on_overflow", "wait_for_result"] {
        if section.boolean(off) == Some(true) {
            section.problem(
                off,
                "is not supported; a full queue answers retryable at once",
            );
        }
    }
    let storage = storage::named(&mut section, extensions);
    let capacity = size(&mut section, "queue_size");
    sizer(&mut section, capacity.is_some());
    queue.capacity = capacity.unwrap_or(queue.capacity);
    if let Some(consumers) = section.integer("num_consumers", 1..=1000) {
        queue.consumers = usize::try_from(consumers).unwrap_or(1000);
    }
    if let Some(batch) = section.section("batch") {
        batch_fields(batch, &mut queue);
    }
    section.finish();
    (queue, storage)
}

fn batch_fields(mut batch: Section<'_>, queue: &mut Queue) {
    if let Some(timeout) = batch.duration("flush_timeout") {
        queue.flush_timeout = timeout;
    }
    let min = size(&mut batch, "min_size");
    let max = size(&mut batch, "max_size");
    sizer(&mut batch, min.is_some() || max.is_some());
    queue.max_size = max.unwrap_or(queue.max_size.max(min.unwrap_or_default()));
    queue.min_size = min.unwrap_or(queue.max_size.min(queue.min_size));
    if queue.min_size > queue.max_size {
        batch.problem("min_size", "must not be larger than max_size");
    }
    batch.finish();
}

fn retry(section: Option<Section<'_>>) -> Retry {
    let mut retry = Retry {
        enabled: true,
        initial_interval: Duration::from_secs(5),
        max_interval: Duration::from_secs(30),
        multiplier: 1.5,
        randomization_factor: 0.5,
        max_elapsed_time: Duration::ZERO,
    };
    let Some(mut section) = section else {
        return retry;
    };
    retry.enabled = section.boolean("enabled").unwrap_or(true);
    if let Some(initial) = section.duration("initial_interval") {
        retry.initial_interval = initial;
    }
    if let Some(max) = section.duration("max_interval") {
        retry.max_interval = max;
    }
    if let Some(elapsed) = section.duration("max_elapsed_time") {
        retry.max_elapsed_time = elapsed;
    }
    if let Some(multiplier) = number(&mut section, "multiplier", 1.0, 100.0) {
        retry.multiplier = multiplier;
    }
    if let Some(factor) = number(&mut section, "randomization_factor", 0.0, 1.0) {
        retry.randomization_factor = factor;
    }
    section.finish();
    retry
}

fn number(section: &mut Section<'_>, key: &'static str, low: f64, high: f64) -> Option<f64> {
    let value = match section.node(key)?.meaning() {
        Node::Opaque(_) => return Some(low),
        Node::Float(value) => *value,
        Node::Integer(value) => i32::try_from(*value).map_or(f64::INFINITY, f64::from),
        other => {
            let kind = other.kind();
            section.problem(key, format!("expected a number, found {kind}"));
            return None;
        }
    };
    if (low..=high).contains(&value) {
        return Some(value);
    }
    section.problem(key, format!("{value} is out of range; use {low} to {high}"));
    None
}
