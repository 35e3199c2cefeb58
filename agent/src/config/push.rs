//! `service.telemetry.metrics.readers`, a periodic one: where the agent pushes its own metrics. It has the keys of the
//! declarative configuration as the collector takes it, which are others than those of exporters.

use std::net::IpAddr;
use std::time::Duration;

use super::exporters::{NO_HEADER_VALUE, Url, header_to_set, url, without_settings};
use super::model::{
    Address, BindAddress, ClientTls, Compression, Exporter, Identity, MetricsPush, Pem, Protocol,
    ReceiverConfig,
};
use super::section::Section;
use super::text::{Text, is_header_value};
use otlp_wire::Signal;

/// Where the readers are in a document, and the name of this one in the log.
pub const PUSH_READER: &str = "service.telemetry.metrics.readers";

/// Reads `periodic`.
pub(super) fn read(periodic: &Section<'_>) -> MetricsPush {
    let otlp = periodic.section("exporter").section("otlp");
    let milliseconds = |section: &Section<'_>, name: &str| -> Duration {
        Duration::from_millis(section.get(name))
    };
    let protocol = match otlp.get::<String>("protocol").as_str() {
        "grpc" => Protocol::Grpc,
        _ => Protocol::Http,
    };
    let timeout = milliseconds(periodic, "timeout");
    let exporter = Exporter {
        compression: match otlp.get::<String>("compression").as_str() {
            "gzip" => Compression::Gzip,
            _ => Compression::None,
        },
        timeout: milliseconds(&otlp, "timeout").min(timeout),
        headers: headers(&otlp),
        ..without_settings(PUSH_READER, protocol)
    };
    MetricsPush {
        interval: milliseconds(periodic, "interval"),
        timeout,
        exporter: to_endpoint(exporter, &otlp),
    }
}

fn headers(otlp: &Section<'_>) -> Vec<(String, Text)> {
    let mut headers = Vec::new();
    for header in otlp.section("headers").items() {
        let name = header.parsed("name", header_to_set, str::to_owned);
        let value = header.given::<String>("value").zip(header.node("value"));
        let Some((name, (value, node))) = name.zip(value) else {
            continue;
        };
        if !is_header_value(&value) {
            header.problem("value", NO_HEADER_VALUE);
        }
        headers.push((name, Text::new(value, node)));
    }
    headers
}

/// The exporter with its destination.
fn to_endpoint(exporter: Exporter, otlp: &Section<'_>) -> Exporter {
    let insecure: bool = otlp.get("insecure");
    let protocol = exporter.protocol;
    let parse = |text: &str| {
        // As in the collector, an endpoint without a scheme gets one.
        let scheme = match text.contains("://") {
            true => "",
            false if insecure => "http://",
            false => "https://",
        };
        url(&format!("{scheme}{text}"), protocol)
    };
    let Some(url) = otlp.parsed("endpoint", parse, Url::opaque) else {
        return exporter;
    };
    let tls = tls(otlp);
    let is_encrypted = url.scheme.map_or(!insecure, |scheme| scheme == "https");
    if !is_encrypted && tls != ClientTls::default() {
        let message =
            "is plaintext, but certificates are configured; write https://, or leave them out";
        otlp.problem("endpoint", message);
    }
    if let Some(doubt) = doubt(&url, protocol) {
        otlp.warn("endpoint", doubt);
    }
    Exporter {
        // A path is used as it is.
        signal: (protocol == Protocol::Http).then_some(Signal::Metrics),
        base_path: match (protocol, url.path.as_str()) {
            (Protocol::Grpc, _) => String::new(),
            (_, "/") => Signal::Metrics.http_path().to_owned(),
            (_, path) => path.to_owned(),
        },
        tls: is_encrypted.then_some(tls),
        endpoint: url.address,
        ..exporter
    }
}

/// What is most likely meant otherwise.
fn doubt(url: &Url, protocol: Protocol) -> Option<&'static str> {
    match (protocol, url.address.port) {
        (Protocol::Grpc, 4318) => Some(
            "port 4318 is most often that of OTLP/HTTP; OTLP/gRPC has 4317, or write protocol: http/protobuf",
        ),
        (Protocol::Http, 4317) => Some(
            "port 4317 is most often that of OTLP/gRPC; OTLP/HTTP has 4318, or write protocol: grpc",
        ),
        _ => None,
    }
}

fn tls(otlp: &Section<'_>) -> ClientTls {
    let file = |name: &str| {
        let path = otlp.given(name).filter(|path: &String| !path.is_empty());
        path.map(Pem::File)
    };
    let (certificate, key) = (file("client_certificate"), file("client_key"));
    match (&certificate, &key) {
        (Some(_), None) => otlp.problem(
            "client_key",
            "is missing; client_certificate needs its private key",
        ),
        (None, Some(_)) => otlp.problem(
            "client_certificate",
            "is missing; client_key needs its certificate",
        ),
        _ => {}
    }
    let identity = certificate.zip(key);
    ClientTls {
        ca: file("certificate"),
        identity: identity.map(|(certificate, key)| Identity { certificate, key }),
        ..ClientTls::default()
    }
}

/// Refuses an endpoint of the agent itself: its metrics would be telemetry that they count.
pub(super) fn check_loop(root: &Section<'_>, push: &MetricsPush, receiver: &ReceiverConfig) {
    let to = &push.exporter.endpoint;
    let is_own = receiver.listen.iter().any(|socket| match &socket.address {
        BindAddress::Tcp(own) => is_at(own, to),
        BindAddress::Unix(_) => false,
    });
    if is_own {
        let message = format!(
            "the periodic reader sends to {to}, where this agent listens: its metrics would count themselves; write the \
             endpoint of the collector"
        );
        root.problem(PUSH_READER, message);
    }
}

/// Whether what is sent to an address of this machine arrives at a socket, as far as the two texts tell.
fn is_at(socket: &Address, to: &Address) -> bool {
    let ip = |host: &str| host.parse::<IpAddr>().ok();
    let is_name = |host: &str| host.eq_ignore_ascii_case("localhost");
    let is_any = |host: &str| host.is_empty() || ip(host).is_some_and(|ip| ip.is_unspecified());
    let is_local =
        |host: &str| is_name(host) || is_any(host) || ip(host).is_some_and(|ip| ip.is_loopback());
    let both_local = is_local(&socket.host) && is_local(&to.host);
    // Two different addresses of this machine are two sockets.
    let one_means_all = is_any(&socket.host) || is_name(&socket.host) || is_name(&to.host);
    socket.port != 0
        && socket.port == to.port
        && (both_local && one_means_all || socket.host.eq_ignore_ascii_case(&to.host))
}
