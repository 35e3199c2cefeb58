//! `exporters`: `otlp_grpc` and `otlp_http` with queue, batch and retry, and `debug` and `nop`, which send
//! nothing.

use super::extensions::{self, Extension};
use super::model::{Address, ClientTls, Compression, Exporter, Protocol, Queue, Retry};
use super::problem::Findings;
use super::section::Section;
use super::text::{Text, is_header_name, is_header_value};
use super::tree::Node;
use super::{proxy, tls, units};
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
    let local = |id, protocol| vec![without_settings(id, protocol)];
    exporters.components(|id, kind, section| match kind {
        "otlp_grpc" => {
            let of_grpc = Exporter {
                user_agent: section.parsed("user_agent", header_value, str::to_owned),
                authority: section.parsed("authority", authority_value, str::to_owned),
                ..exporter(id, Protocol::Grpc, &section, extensions)
            };
            sending(&of_grpc, &section)
        }
        "otlp_http" => {
            let parse = |text: &str| proxy::url(text, "proxy_url");
            let opaque = |text: &str| proxy::opaque(text, "proxy_url");
            let of_http = Exporter {
                proxy: section.parsed("proxy_url", parse, opaque),
                ..exporter(id, Protocol::Http, &section, extensions)
            };
            sending(&of_http, &section)
        }
        "debug" => local(id, Protocol::Debug),
        _ => local(id, Protocol::Nop),
    })
}

/// An exporter that needs no queue and has the default one. It sends nothing, until it gets a destination.
pub(super) fn without_settings(id: &str, protocol: Protocol) -> Exporter {
    let findings = Findings::default();
    let exporters = Section::root(None, &findings).section("exporters");
    Exporter {
        compression: Compression::None,
        ..exporter(id, protocol, &exporters.absent("otlp_grpc"), &[])
    }
}

/// What all exporters have in common, except the destination.
fn exporter(
    id: &str,
    protocol: Protocol,
    section: &Section<'_>,
    extensions: &[(String, Extension)],
) -> Exporter {
    let queue = section.section("sending_queue");
    Exporter {
        id: id.to_owned(),
        signal: None,
        protocol,
        endpoint: units::opaque_address(""),
        tls: None,
        base_path: String::new(),
        user_agent: None,
        authority: None,
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
        proxy: None,
        backups: Vec::new(),
        failover_interval: section.section("failover").get("retry_interval"),
    }
}

/// An exporter once for each endpoint that its section gives.
fn sending(exporter: &Exporter, section: &Section<'_>) -> Vec<Exporter> {
    let tls = section.section("tls");
    let endpoints = Endpoints {
        insecure: tls.get("insecure"),
        has_tls: tls.is_present(),
        tls: tls::client(&tls),
        exporter,
    };
    let to = |name: &str, signal: Option<Signal>| {
        let url = section.parsed(name, |text| endpoints.url(text, signal), Url::opaque)?;
        Some(endpoints.to(url, section, name, signal))
    };
    let mut found = Vec::new();
    if exporter.protocol == Protocol::Http {
        found.extend(Signal::ALL.into_iter().filter_map(|signal| {
            let name = format!("{}_endpoint", signal.name());
            to(&name, Some(signal))
        }));
    }
    let failover = section.section("failover");
    let parse = |text: &str| endpoints.url(text, None);
    let backups = failover.parsed_items("endpoints", parse, Url::opaque);
    let backups = backups.into_iter();
    let backups: Vec<_> = backups
        .map(|(place, url)| endpoints.to(url, &place, "", None))
        .collect();
    let is_given = section.node("endpoint").is_some();
    if !is_given && found.is_empty() {
        let message = "is missing; write for example https://collector:4317";
        section.problem("endpoint", message);
    } else if !is_given && !backups.is_empty() {
        let message =
            "belongs to `endpoint`, which is missing; an endpoint of one signal has no others";
        section.problem("failover", message);
    }
    if is_given || found.is_empty() {
        let common = to("endpoint", None);
        let common = common.unwrap_or_else(|| exporter.clone());
        found.push(Exporter { backups, ..common });
    }
    found
}

/// What the endpoints of one section have in common.
struct Endpoints<'a> {
    insecure: bool,
    has_tls: bool,
    tls: ClientTls,
    exporter: &'a Exporter,
}

impl Endpoints<'_> {
    fn url(&self, text: &str, signal: Option<Signal>) -> Result<Url, String> {
        let url = url(text, self.exporter.protocol)?;
        if signal.is_none() && self.exporter.protocol == Protocol::Http {
            without_signal(text)?;
        }
        Ok(url)
    }

    /// The exporter with one endpoint, which stands at `name`.
    fn to(&self, url: Url, section: &Section<'_>, name: &str, signal: Option<Signal>) -> Exporter {
        if url.scheme == Some("http") && self.has_tls && !self.insecure {
            section.problem(
                name,
                "`http://` is plaintext, but tls is configured; write https://, or `insecure: true` under tls",
            );
        }
        if let Some(doubt) = doubt(&url, self.exporter.protocol, signal) {
            section.warn(name, &doubt);
        }
        // As in the collector, the scheme decides; without one, TLS is on unless it is switched off.
        let is_encrypted = url
            .scheme
            .map_or(!self.insecure, |scheme| scheme == "https");
        let base_path = match signal {
            Some(_) => &url.path,
            None => url.path.trim_end_matches('/'),
        };
        Exporter {
            signal,
            tls: is_encrypted.then(|| self.tls.clone()),
            base_path: base_path.to_owned(),
            endpoint: url.address,
            ..self.exporter.clone()
        }
    }
}

/// Refuses the most copied mistake: the agent appends the signal's path itself.
fn without_signal(text: &str) -> Result<(), String> {
    let Some((signal, base)) = signal_of(text) else {
        return Ok(());
    };
    let (path, name) = (signal.http_path(), signal.name());
    let text = text.trim_end_matches('/');
    Err(format!(
        "`{path}` is appended to it; write {base}, or {name}_endpoint: {text}"
    ))
}

/// The signal whose path an endpoint ends with, and the endpoint without that path.
pub fn signal_of(endpoint: &str) -> Option<(Signal, &str)> {
    let endpoint = endpoint.trim_end_matches('/');
    let mut signals = Signal::ALL.into_iter();
    signals.find_map(|signal| Some((signal, endpoint.strip_suffix(signal.http_path())?)))
}

/// What is most likely meant otherwise.
fn doubt(url: &Url, protocol: Protocol, signal: Option<Signal>) -> Option<String> {
    let port = url.address.port;
    match (protocol, port) {
        (Protocol::Grpc, 4318) => Some(format!(
            "port {port} is most often that of OTLP/HTTP; OTLP/gRPC has 4317, or use the exporter otlp_http"
        )),
        (Protocol::Http, 4317) => Some(format!(
            "port {port} is most often that of OTLP/gRPC; OTLP/HTTP has 4318, or use the exporter otlp_grpc"
        )),
        (Protocol::Http, _) if url.path == "/" && port != 0 => signal.map(|signal| {
            let path = signal.http_path();
            format!("is used as it is, without `{path}`; most upstreams want that at its end")
        }),
        _ => None,
    }
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
pub(super) struct Url {
    pub(super) scheme: Option<&'static str>,
    pub(super) address: Address,
    /// As written, never empty.
    pub(super) path: String,
}

impl Url {
    pub(super) fn opaque(text: &str) -> Self {
        Self {
            scheme: None,
            address: units::opaque_address(text),
            path: "/".to_owned(),
        }
    }
}

pub(super) fn url(text: &str, protocol: Protocol) -> Result<Url, String> {
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
    let (authority, path) = rest.split_at(path_at);
    if authority.contains('@') {
        return Err("must not hold a user name or password; use headers".to_owned());
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.contains(['?', '#', ' ']) {
        return Err(format!("`{trimmed}` is not a plain path"));
    }
    if !trimmed.is_empty() && protocol == Protocol::Grpc {
        let other = if signal_of(trimmed).is_some() {
            "; leave it out, or send by OTLP/HTTP"
        } else {
            ""
        };
        return Err(format!("`{trimmed}`: a gRPC endpoint has no path{other}"));
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
        path: if path.is_empty() { "/" } else { path }.to_owned(),
    })
}

fn headers(section: &Section<'_>) -> Vec<(String, Text)> {
    let mut headers = Vec::new();
    for (name, node) in section.entries() {
        if let Err(message) = header_to_set(name) {
            section.problem(name, message);
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
        if !is_header_value(&value) {
            section.problem(name, NO_HEADER_VALUE);
        }
        headers.push((name.to_ascii_lowercase(), Text::new(value, node)));
    }
    headers
}

/// What is wrong with the value of a header. It does not repeat the value, which may be a credential.
pub(super) const NO_HEADER_VALUE: &str = "contains characters that a header value cannot have";

/// The name of a header that a configuration may set, in lower case.
pub(super) fn header_to_set(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    if !is_header_name(name) {
        return Err("is not the name of a header".to_owned());
    }
    if RESERVED_HEADERS.contains(&lower.as_str()) || lower.ends_with("-bin") {
        return Err("is set by the protocol and cannot be configured".to_owned());
    }
    Ok(lower)
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
