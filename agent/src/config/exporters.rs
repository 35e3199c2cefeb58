//! `exporters`: `otlp_grpc` and `otlp_http` (and their older names), with queue, batch and retry.

use std::time::Duration;

use super::document::component_type;
use super::section::Section;
use super::tree::Node;
use super::{
    Address, ClientTls, Compression, Exporter, Protocol, Queue, Retry, Text, is_header_value,
    receivers, tls,
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

pub(super) fn read(exporters: &Section<'_>) -> Vec<(String, Exporter)> {
    let mut found = Vec::new();
    for (id, node) in exporters.entries() {
        let known = ["otlp_grpc", "otlp_http", "otlp", "otlphttp"];
        let Some(kind) = component_type(exporters, id, &known) else {
            continue;
        };
        let protocol = if matches!(kind, "otlp_grpc" | "otlp") {
            Protocol::Grpc
        } else {
            Protocol::Http
        };
        let section = Section::open(node, &exporters.at(id), exporters.problems());
        found.push((id.to_owned(), exporter(section, id, protocol)));
    }
    found
}

fn exporter(mut section: Section<'_>, id: &str, protocol: Protocol) -> Exporter {
    let tls = section.section("tls").map(tls::client);
    let Endpoint { address, path, tls } = endpoint(&mut section, protocol, tls);
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
    if protocol == Protocol::Http {
        section.choice("encoding", &[("proto", ())]);
    }
    let headers = headers(&mut section);
    let queue = queue(section.section("sending_queue"));
    let retry = retry(section.section("retry_on_failure"));
    section.finish();
    let default_timeout = match protocol {
        Protocol::Grpc => 5,
        Protocol::Http => 30,
    };
    Exporter {
        id: id.to_owned(),
        protocol,
        endpoint: address,
        tls,
        base_path: path,
        compression: compression.unwrap_or(Compression::Gzip),
        timeout: timeout.unwrap_or(Duration::from_secs(default_timeout)),
        headers,
        queue,
        retry,
    }
}

/// What an endpoint's text says.
struct Url {
    scheme: Option<&'static str>,
    address: Address,
    path: String,
}

/// Where an exporter sends to.
struct Endpoint {
    address: Address,
    path: String,
    tls: Option<ClientTls>,
}

fn endpoint(section: &mut Section<'_>, protocol: Protocol, tls: Option<tls::Client>) -> Endpoint {
    let opaque = |text: &str| Url {
        scheme: None,
        address: receivers::opaque_address(text),
        path: String::new(),
    };
    let url = section.parsed("endpoint", |text| url(text, protocol), opaque);
    if url.is_none() && section.node("endpoint").is_none() {
        section.problem(
            "endpoint",
            "is missing; write for example https://collector:4317",
        );
    }
    let url = url.unwrap_or_else(|| opaque(""));
    // As in the collector: the scheme decides; without one TLS is spoken unless switched off.
    let insecure = tls.as_ref().is_some_and(|tls| tls.insecure);
    let encrypted = match url.scheme {
        Some("http") => {
            if tls.is_some() && !insecure {
                section.problem(
                    "endpoint",
                    "`http://` is plaintext, but tls is configured; write https://, or `insecure: true` under tls",
                );
            }
            false
        }
        Some(_) => true,
        None => !insecure,
    };
    Endpoint {
        address: url.address,
        path: url.path,
        tls: encrypted.then(|| tls.map(|tls| tls.tls).unwrap_or_default()),
    }
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
        (_, Protocol::Http) => 80,
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

fn queue(section: Option<Section<'_>>) -> Queue {
    let mut queue = Queue {
        capacity: 64 * MIB,
        consumers: 10,
        flush_timeout: Duration::from_millis(200),
        min_size: 3 * MIB,
        max_size: 3 * MIB,
    };
    let Some(mut section) = section else {
        return queue;
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
    section.refuse("storage", "a queue on disk is not supported by this agent");
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
    queue
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
    batch.refuse("partition", "is not supported");
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
