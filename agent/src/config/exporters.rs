//! `exporters`: `otlp_grpc` and `otlp_http` with queue, batch and retry, and those that send nothing, `debug` and
//! `nop`.

use super::extensions::{self, Extension};
use super::model::{Address, ClientTls, Compression, Exporter, Protocol, Queue, Retry};
use super::section::Section;
use super::text::{Text, is_header_value};
use super::tree::Node;
use super::{tls, units};
use otlp_wire::Signal;

/// Headers that the protocol itself sets.
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

/// The exporters of each id: one for all signals, and one for each signal with an endpoint of its own.
pub(super) fn read(
    exporters: &Section<'_>,
    extensions: &[(String, Extension)],
) -> Vec<(String, Vec<Exporter>)> {
    let mut found = Vec::new();
    for (id, kind, section) in exporters.components() {
        let of_kind = match kind {
            "otlp_grpc" => sending(exporter(id, Protocol::Grpc, &section, extensions), &section),
            "otlp_http" => sending(exporter(id, Protocol::Http, &section, extensions), &section),
            _ => vec![local(id, kind, exporters)],
        };
        found.push((id.to_owned(), of_kind));
    }
    found
}

/// An exporter that sends nothing. Its lanes have the default queue, and no need of it.
fn local(id: &str, kind: &str, exporters: &Section<'_>) -> Exporter {
    let protocol = if kind == "debug" {
        Protocol::Debug
    } else {
        Protocol::Nop
    };
    Exporter {
        compression: Compression::None,
        ..exporter(id, protocol, &exporters.absent("otlp_grpc"), &[])
    }
}

/// Everything but where it sends to.
fn exporter(
    id: &str,
    protocol: Protocol,
    section: &Section<'_>,
    extensions: &[(String, Extension)],
) -> Exporter {
    let queue = section.section("sending_queue");
    let is_http = protocol == Protocol::Http;
    let grpc_only = |name, parse: fn(&str) -> _| {
        let text = || section.parsed(name, parse, str::to_owned);
        if is_http { None } else { text() }
    };
    Exporter {
        id: id.to_owned(),
        signal: None,
        protocol,
        endpoint: units::opaque_address(""),
        tls: None,
        base_path: String::new(),
        user_agent: grpc_only("user_agent", header_value),
        authority: grpc_only("authority", authority_value),
        compression: match section.get::<String>("compression").as_str() {
            "none" => Compression::None,
            "zstd" => Compression::Zstd,
            _ => Compression::Gzip,
        },
        timeout: section.get("timeout"),
        headers: headers(&section.section("headers")),
        queue: self::queue(&queue),
        retry: retry(&section.section("retry_on_failure")),
        storage: extensions::storage_of(&queue, extensions),
    }
}

fn sending(exporter: Exporter, section: &Section<'_>) -> Vec<Exporter> {
    let tls = section.section("tls");
    let security = Security {
        is_configured: tls.is_present(),
        insecure: tls.get("insecure"),
        tls: tls::client(&tls),
    };
    let mut found = Vec::new();
    if exporter.protocol == Protocol::Http {
        for signal in Signal::ALL {
            let name = format!("{}_endpoint", signal.name());
            if let Some((url, tls)) = endpoint(section, &name, Protocol::Http, &security) {
                found.push(Exporter {
                    signal: Some(signal),
                    endpoint: url.address,
                    tls,
                    base_path: url.whole_path,
                    ..exporter.clone()
                });
            }
        }
    }
    if section.node("endpoint").is_some() {
        let protocol = exporter.protocol;
        let common = endpoint(section, "endpoint", protocol, &security);
        let (url, tls) = common.unwrap_or_else(|| (Url::opaque(""), None));
        found.push(Exporter {
            endpoint: url.address,
            tls,
            base_path: url.path,
            ..exporter
        });
    } else if found.is_empty() {
        let message = "is missing; write for example https://collector:4317";
        section.problem("endpoint", message);
        found.push(exporter);
    }
    found
}

/// `tls` of an exporter.
struct Security {
    is_configured: bool,
    insecure: bool,
    tls: ClientTls,
}

fn endpoint(
    section: &Section<'_>,
    name: &str,
    protocol: Protocol,
    security: &Security,
) -> Option<(Url, Option<ClientTls>)> {
    let url = section.parsed(name, |text| url(text, protocol), Url::opaque)?;
    // As in the collector, the scheme decides; without one, TLS is on unless it is switched off.
    let is_encrypted = match url.scheme {
        Some("http") => {
            if security.is_configured && !security.insecure {
                section.problem(
                    name,
                    "`http://` is plaintext, but tls is configured; write https://, or `insecure: true` under tls",
                );
            }
            false
        }
        Some(_) => true,
        None => !security.insecure,
    };
    let tls = is_encrypted.then(|| security.tls.clone());
    Some((url, tls))
}

fn header_value(text: &str) -> Result<String, String> {
    let is_printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if text.is_empty() || !is_printable {
        return Err(format!("`{text}` cannot be sent as a header"));
    }
    Ok(text.to_owned())
}

fn authority_value(text: &str) -> Result<String, String> {
    if text.contains(['/', '@', '?', '#', ' ']) {
        return Err(format!("`{text}` is not a host, with or without a port"));
    }
    header_value(text)
}

/// The URL of an endpoint.
struct Url {
    scheme: Option<&'static str>,
    address: Address,
    /// Without trailing slashes.
    path: String,
    /// As it is written, never empty.
    whole_path: String,
}

impl Url {
    fn opaque(text: &str) -> Self {
        Self {
            scheme: None,
            address: units::opaque_address(text),
            path: String::new(),
            whole_path: "/".to_owned(),
        }
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
    let path_at = rest.find('/').unwrap_or(rest.len());
    let (authority, whole_path) = rest.split_at(path_at);
    if authority.contains('@') {
        return Err("must not hold a user name or password; use headers".to_owned());
    }
    let path = whole_path.trim_end_matches('/');
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
        units::address(authority)?
    } else {
        units::address(&format!("{authority}:{default_port}"))?
    };
    if address.host.is_empty() || address.port == 0 {
        return Err(format!("`{text}` needs a host and a port other than 0"));
    }
    Ok(Url {
        scheme,
        address,
        path: path.to_owned(),
        whole_path: if whole_path.is_empty() {
            "/"
        } else {
            whole_path
        }
        .to_owned(),
    })
}

fn headers(section: &Section<'_>) -> Vec<(String, Text)> {
    let mut headers = Vec::new();
    for (name, node) in section.entries() {
        let lower = name.to_ascii_lowercase();
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            section.problem(name, "is not the name of a header");
        } else if RESERVED_HEADERS.contains(&lower.as_str()) || lower.ends_with("-bin") {
            section.problem(name, "is set by the protocol and cannot be configured");
        }
        let value = match (node, node.text()) {
            (_, Some(text)) => text.to_owned(),
            (Node::Integer(number), _) => number.to_string(),
            (Node::Bool(value), _) => value.to_string(),
            (other, _) => {
                let kind = other.kind();
                section.problem(name, format!("expected a string, found {kind}"));
                continue;
            }
        };
        // The message does not repeat the value: it may be a credential.
        if !is_header_value(&value) {
            section.problem(name, "contains characters that a header value cannot have");
        }
        headers.push((lower, Text::new(value, node)));
    }
    headers
}

fn queue(section: &Section<'_>) -> Queue {
    let batch = section.section("batch");
    sizer(section, &["queue_size"]);
    sizer(&batch, &["min_size", "max_size"]);
    let (min, max): (usize, usize) = (batch.get("min_size"), batch.get("max_size"));
    // A size that is left out follows the other.
    let max_size = batch.given("max_size").unwrap_or(max.max(min));
    let min_size = batch.given("min_size").unwrap_or(min.min(max_size));
    if min_size > max_size {
        batch.problem("min_size", "must not be larger than max_size");
    }
    Queue {
        capacity: section.get("queue_size"),
        consumers: section.get("num_consumers"),
        flush_timeout: batch.get("flush_timeout"),
        min_size,
        max_size,
    }
}

/// Sizes are valid only if they say that they count bytes.
fn sizer(section: &Section<'_>, sizes: &[&str]) {
    let has_sizes = sizes
        .iter()
        .any(|name| section.given::<usize>(name).is_some());
    if has_sizes && section.node("sizer").is_none() {
        let message = "is missing; this agent counts bytes, write `sizer: bytes`";
        section.problem("sizer", message);
    }
}

fn retry(section: &Section<'_>) -> Retry {
    Retry {
        enabled: section.get("enabled"),
        initial_interval: section.get("initial_interval"),
        max_interval: section.get("max_interval"),
        multiplier: section.get("multiplier"),
        randomization_factor: section.get("randomization_factor"),
        max_elapsed_time: section.get("max_elapsed_time"),
        max_wait: section.get("max_wait"),
        hold: section.get("hold"),
    }
}
