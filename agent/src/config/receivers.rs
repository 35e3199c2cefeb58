//! `receivers`: `otlp` and its two protocols. Both ports accept both protocols, so the two sections
//! differ only in their limits.

use super::extensions::{self, Extension};
use super::model::{BearerAuth, BindAddress, Connections, Cors, ListenSocket, ReceiverConfig};
use super::problem::Findings;
use super::section::Section;
use super::text::header_name;
use super::tls;
use super::units;
use otlp_wire::Signal;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

pub(super) fn read(
    receivers: &Section<'_>,
    known: &[(String, Extension)],
) -> Vec<(String, ReceiverConfig)> {
    receivers.components(|id, _, section| otlp(id, &section, known))
}

/// Adds where another receiver listens. All pipelines share one receiver, so both must be alike.
pub(super) fn join(first: &mut ReceiverConfig, other: &ReceiverConfig, place: &Section<'_>) {
    let (id, listen) = (first.id.clone(), first.listen.clone());
    let alike = ReceiverConfig {
        id,
        listen,
        ..other.clone()
    };
    if alike != *first {
        let message = format!(
            "`{}` differs from `{}` in more than its endpoints, and all pipelines share one receiver; write the same in both",
            other.id, first.id
        );
        place.problem("", message);
    }
    for socket in &other.listen {
        if !first.listen.contains(socket) {
            first.listen.push(socket.clone());
        }
    }
}

fn otlp(id: &str, section: &Section<'_>, known: &[(String, Extension)]) -> ReceiverConfig {
    let protocols = section.section("protocols");
    let (grpc, http) = (protocols.section("grpc"), protocols.section("http"));
    let mut listen = Vec::new();
    for protocol in [&grpc, &http] {
        if protocol.is_present() {
            listen_on(protocol, &mut listen);
        }
    }
    if listen.is_empty() {
        let message = "names no protocol; configure grpc, http or both";
        section.problem("protocols", message);
    }
    ReceiverConfig {
        id: id.to_owned(),
        listen,
        max_grpc_message: grpc.get::<usize>("max_recv_msg_size_mib") * MIB,
        max_http_body: http.get("max_request_body_size"),
        max_concurrent_streams: grpc.get("max_concurrent_streams"),
        url_paths: url_paths(&http),
        connections: connections(&grpc, &http),
        auth: auth(&[&grpc, &http], known),
        cors: cors(&http.section("cors")),
    }
}

/// Every port accepts both protocols, so a section without what the other one has would be a way around it.
fn auth(protocols: &[&Section<'_>], known: &[(String, Extension)]) -> Option<BearerAuth> {
    let present = protocols.iter().filter(|protocol| protocol.is_present());
    let mut found = present.map(|protocol| (*protocol, extensions::auth_of(protocol, known)));
    let (_, auth) = found.next()?;
    for (protocol, other) in found {
        if other != auth {
            protocol.problem(
                "auth",
                "differs from that of the other protocol; every port accepts both protocols, write the same in both sections",
            );
        }
    }
    auth
}

fn cors(section: &Section<'_>) -> Option<Cors> {
    let items = |name: &str, parse: &dyn Fn(&str) -> Result<String, String>| -> Vec<String> {
        let read = section.parsed_items(name, parse, str::to_owned);
        read.into_iter().map(|(_, text)| text).collect()
    };
    let allowed_origins = items("allowed_origins", &|origin| {
        let is_plain = !origin.is_empty() && !origin.contains(char::is_whitespace);
        if is_plain && origin.matches('*').count() <= 1 {
            Ok(origin.to_ascii_lowercase())
        } else {
            Err(format!("`{origin}` is not an origin with at most one `*`"))
        }
    });
    if allowed_origins.is_empty() && section.is_present() {
        section.warn("allowed_origins", "is empty: browsers refuse to send");
    }
    (!allowed_origins.is_empty()).then(|| Cors {
        allowed_origins,
        allowed_headers: items("allowed_headers", &header_name),
        max_age: Duration::from_secs(section.get("max_age")),
    })
}

fn connections(grpc: &Section<'_>, http: &Section<'_>) -> Connections {
    let server = grpc.section("keepalive").section("server_parameters");
    Connections {
        idle_http1: http.get("idle_timeout"),
        idle_http2: server.get("max_connection_idle"),
        max_age: server.get("max_connection_age"),
        max_age_grace: server.get("max_connection_age_grace"),
        ping_after: server.get("time"),
        ping_timeout: server.get("timeout"),
    }
}

impl Default for Connections {
    fn default() -> Self {
        let findings = Findings::default();
        let receivers = Section::root(None, &findings).section("receivers");
        let protocols = receivers.absent("otlp").section("protocols");
        connections(&protocols.section("grpc"), &protocols.section("http"))
    }
}

/// The paths other than the default ones; one path means one signal.
fn url_paths(http: &Section<'_>) -> Vec<(String, Signal)> {
    let mut paths: Vec<(String, Signal)> = Vec::new();
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let name = format!("{}_url_path", signal.name());
        let Some(path) = http.parsed(&name, units::absolute_path, str::to_owned) else {
            continue;
        };
        if path == signal.http_path() {
            continue;
        }
        let is_taken = paths.iter().any(|(other, _)| *other == path);
        if is_taken || Signal::ALL.iter().any(|other| other.http_path() == path) {
            http.problem(&name, format!("`{path}` is the path of another signal"));
        }
        paths.push((path, signal));
    }
    paths
}

fn listen_on(protocol: &Section<'_>, listen: &mut Vec<ListenSocket>) {
    let address = bind_address(protocol);
    let tls = tls::server(&protocol.section("tls"));
    if tls.is_some() && matches!(address, BindAddress::Unix(_)) {
        protocol.problem("tls", "is not supported on a Unix socket; leave it out");
    }
    let is_fixed = !matches!(&address, BindAddress::Tcp(address) if address.port == 0);
    if is_fixed && listen.iter().any(|other| other.address == address) {
        protocol.problem(
            "endpoint",
            "is already used by the other protocol; one port accepts both protocols, leave the other section out",
        );
    }
    listen.push(ListenSocket { address, tls });
}

fn bind_address(protocol: &Section<'_>) -> BindAddress {
    let address = if protocol.get::<String>("transport") != "unix" {
        let address = protocol.parsed("endpoint", units::address, units::opaque_address);
        address.map(BindAddress::Tcp)
    } else if protocol.node("endpoint").is_some() {
        let path = protocol.parsed("endpoint", socket_path, str::to_owned);
        path.map(BindAddress::Unix)
    } else {
        protocol.problem("endpoint", "is missing; name the path of the socket");
        None
    };
    address.unwrap_or(BindAddress::Tcp(units::opaque_address("")))
}

/// A path that a Unix socket can have: `sun_path` holds 108 bytes, four of which are needed for the name under which
/// the socket is created.
fn socket_path(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!(
            "`{text}` is not the path of a socket; write for example /run/otelagent/otlp.sock"
        ));
    }
    if path.len() > 103 || path.contains('\0') {
        return Err(format!(
            "`{text}` is longer than 103 bytes, which the path of a socket cannot be"
        ));
    }
    Ok(path.to_owned())
}
