//! `receivers`: `otlp` and its two protocols. Both ports take both protocols, so the two sections
//! differ only in their limits.

use std::time::Duration;

use otlp_wire::Signal;

use super::document::component_type;
use super::section::Section;
use super::units;
use super::{Address, Connections, Listener, Place, Receiver, tls};

const MIB: usize = 1024 * 1024;

pub(super) fn read(receivers: &Section<'_>) -> Vec<(String, Receiver)> {
    let mut found = Vec::new();
    for (id, node) in receivers.entries() {
        if component_type(receivers, id, &["otlp"]).is_none() {
            continue;
        }
        let section = Section::component(receivers, id, "otlp", node);
        found.push((id.to_owned(), otlp(section, id)));
    }
    if found.len() > 1 {
        receivers.problems().add(
            &receivers.path,
            "more than one otlp receiver is not supported; give one both ports",
        );
    }
    found
}

fn otlp(mut section: Section<'_>, id: &str) -> Receiver {
    let mut receiver = Receiver {
        id: id.to_owned(),
        listen: Vec::new(),
        max_grpc_message: 4 * MIB,
        max_http_body: 20 * MIB,
        max_concurrent_streams: 256,
        url_paths: Vec::new(),
        connections: Connections::default(),
    };
    if let Some(mut protocols) = section.section("protocols") {
        if let Some(grpc) = protocols.section("grpc") {
            grpc_protocol(grpc, &mut receiver);
        }
        if let Some(http) = protocols.section("http") {
            http_protocol(http, &mut receiver);
        }
        protocols.finish();
    }
    if receiver.listen.is_empty() {
        section.problem(
            "protocols",
            "names no protocol; configure grpc, http or both",
        );
    }
    section.finish();
    receiver
}

fn grpc_protocol(mut grpc: Section<'_>, receiver: &mut Receiver) {
    listen(&mut grpc, 4317, receiver);
    if let Some(mib) = grpc.integer("max_recv_msg_size_mib", 0..=1024)
        && mib > 0
    {
        receiver.max_grpc_message = usize::try_from(mib).unwrap_or(usize::MAX / MIB) * MIB;
    }
    if let Some(streams) = grpc.integer("max_concurrent_streams", 0..=u64::from(u32::MAX))
        && streams > 0
    {
        receiver.max_concurrent_streams = u32::try_from(streams).unwrap_or(u32::MAX);
    }
    if let Some(keepalive) = grpc.section("keepalive") {
        keep_alive(keepalive, &mut receiver.connections);
    }
    grpc.finish();
}

fn keep_alive(mut keepalive: Section<'_>, connections: &mut Connections) {
    if let Some(mut server) = keepalive.section("server_parameters") {
        let or_default = |given: Option<Duration>, default| match given {
            Some(given) if !given.is_zero() => given,
            _ => default,
        };
        let idle = server.duration("max_connection_idle");
        connections.idle_http2 = idle.unwrap_or(connections.idle_http2);
        connections.max_age = server.duration("max_connection_age").unwrap_or_default();
        connections.max_age_grace = server
            .duration("max_connection_age_grace")
            .unwrap_or_default();
        connections.ping_after = or_default(server.duration("time"), connections.ping_after);
        connections.ping_timeout = or_default(server.duration("timeout"), connections.ping_timeout);
        server.finish();
    }
    keepalive.finish();
}

fn http_protocol(mut http: Section<'_>, receiver: &mut Receiver) {
    listen(&mut http, 4318, receiver);
    if let Some(bytes) = http.integer("max_request_body_size", 0..=1024 * MIB as u64)
        && bytes > 0
    {
        receiver.max_http_body = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    if let Some(idle) = http.duration("idle_timeout").filter(|idle| !idle.is_zero()) {
        receiver.connections.idle_http1 = idle;
    }
    for (key, signal) in [
        ("traces_url_path", Signal::Traces),
        ("metrics_url_path", Signal::Metrics),
        ("logs_url_path", Signal::Logs),
    ] {
        if let Some(path) = http.parsed(key, units::absolute_path, str::to_owned) {
            url_path(&http, key, path, signal, receiver);
        }
    }
    http.finish();
}

/// One path means one signal.
fn url_path(http: &Section<'_>, key: &str, path: String, signal: Signal, receiver: &mut Receiver) {
    let default = |signal: Signal| format!("/v1/{}", signal.name());
    if path == default(signal) {
        return;
    }
    let taken = receiver.url_paths.iter().any(|(other, _)| *other == path);
    if taken || Signal::ALL.into_iter().any(|other| default(other) == path) {
        http.problem(key, format!("`{path}` is the path of another signal"));
    }
    receiver.url_paths.push((path, signal));
}

fn listen(section: &mut Section<'_>, default_port: u16, receiver: &mut Receiver) {
    let place = place(section, default_port);
    let tls = section.section("tls").and_then(tls::server);
    if tls.is_some() && matches!(place, Place::Unix(_)) {
        section.problem("tls", "is not supported on a Unix socket; leave it out");
    }
    let is_fixed = !matches!(&place, Place::Tcp(address) if address.port == 0);
    if is_fixed && receiver.listen.iter().any(|other| other.place == place) {
        section.problem(
            "endpoint",
            "is already taken by the other protocol; one port takes both protocols, leave the other section out",
        );
    }
    receiver.listen.push(Listener { place, tls });
}

fn place(section: &mut Section<'_>, default_port: u16) -> Place {
    let transports = [("tcp", false), ("unix", true)];
    if section.choice("transport", &transports).unwrap_or(false) {
        let path = section.parsed("endpoint", socket_path, str::to_owned);
        if path.is_none() && section.node("endpoint").is_none() {
            section.problem("endpoint", "is missing; name the socket's path");
        }
        return Place::Unix(path.unwrap_or_default());
    }
    let address = section.parsed("endpoint", address, opaque_address);
    Place::Tcp(address.unwrap_or_else(|| Address {
        host: "localhost".to_owned(),
        port: default_port,
    }))
}

/// A path Unix sockets can have: `sun_path` holds 108 bytes, four are kept for the name under which
/// a socket is made.
fn socket_path(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(format!(
            "`{text}` is not the path of a socket; write for example /run/otelagent/otlp.sock"
        ));
    }
    if path.len() > 103 || path.contains('\0') {
        return Err(format!(
            "`{text}` is longer than 103 bytes, a socket's path cannot be"
        ));
    }
    Ok(path.to_owned())
}

pub(super) fn address(text: &str) -> Result<Address, String> {
    let (host, port) = units::host_and_port(text)?;
    Ok(Address { host, port })
}

/// An address that cannot be read yet, kept as it was written.
pub(super) fn opaque_address(text: &str) -> Address {
    Address {
        host: text.to_owned(),
        port: 0,
    }
}
