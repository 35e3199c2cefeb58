//! The HTTP proxy on the way to an upstream: `proxy_url`, or what the environment says. The rules are those of Go's
//! `golang.org/x/net/http/httpproxy`, by which the collector's exporters go.

use std::net::IpAddr;

use super::expand::Resolve;
use super::model::{Address, Exporter, Protocol, Proxy};
use super::problem::Findings;
use super::text::Text;
use super::units;
use otlp_wire::status::percent_decode;

const DEFAULT_PORT: u16 = 80;

/// Reads the URL of a proxy. Messages do not repeat it: it may hold a password.
pub(super) fn url(text: &str, origin: &'static str) -> Result<Proxy, String> {
    let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text));
    if !scheme.eq_ignore_ascii_case("http") {
        return Err("names a proxy of a kind that is not supported; write http://host:port".into());
    }
    let (authority, _) = rest.trim().split_once('/').unwrap_or((rest.trim(), ""));
    let (credentials, host) = match authority.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, authority),
    };
    let address =
        units::address(host).or_else(|_| units::address(&format!("{host}:{DEFAULT_PORT}")));
    let address = address.ok().filter(|address| {
        !address.host.is_empty() && !address.host.contains(['?', '#']) && address.port != 0
    });
    let decoded = |text: &str| {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let [user, password] = [user, password].map(|part| percent_decode(part.as_bytes()));
        Text::literal(format!("{user}:{password}"))
    };
    Ok(Proxy {
        address: address.ok_or("is not the URL of a proxy; write http://host:port")?,
        credentials: credentials.map(decoded),
        origin,
    })
}

/// A proxy that is not known yet.
pub(super) fn opaque(text: &str, origin: &'static str) -> Proxy {
    Proxy {
        address: units::opaque_address(text),
        credentials: None,
        origin,
    }
}

/// Gives an exporter the proxy that the environment names for it, unless its section has named one.
pub(super) fn by_environment(exporter: &mut Exporter, resolve: &dyn Resolve, findings: &Findings) {
    if matches!(exporter.protocol, Protocol::Debug | Protocol::Nop) {
        return;
    }
    let first = |names: [&'static str; 2]| {
        let value = |name| Some((name, resolve.env(name).filter(|value| !value.is_empty())?));
        names.into_iter().find_map(value)
    };
    // Other gRPC clients ask for the proxy of https, whatever they send.
    let is_https = exporter.tls.is_some() || exporter.protocol == Protocol::Grpc;
    let names = if is_https {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let (_, exempt) = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let found = first(names).filter(|_| !is_exempt(&exempt, &exporter.endpoint));
    if exporter.proxy.is_none()
        && let Some((name, text)) = found
    {
        match url(&text, name) {
            Ok(proxy) => exporter.proxy = Some(proxy),
            Err(message) => findings.problem(name, message),
        }
    }
    for backup in &mut exporter.backups {
        by_environment(backup, resolve, findings);
    }
}

/// Whether a destination is reached without a proxy: this machine always is.
fn is_exempt(rules: &str, to: &Address) -> bool {
    let host = to.host.trim_end_matches('.').to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    let ip = ip.map(|ip| ip.to_canonical());
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    let mut rules = rules
        .split(',')
        .map(|rule| rule.trim().to_ascii_lowercase());
    rules.any(|rule| covers(&rule, &host, ip, to.port))
}

fn covers(rule: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    if let Some((network, bits)) = network(rule) {
        return ip.is_some_and(|ip| shares(network, ip, bits));
    }
    let (name, of_port) = match rule.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            match digits.parse::<u16>() {
                Ok(number) => (name, Some(number)),
                Err(_) => return false,
            }
        }
        _ => (rule, None),
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() || of_port.is_some_and(|of_port| of_port != port) {
        return false;
    }
    if let Ok(named) = name.parse::<IpAddr>() {
        return ip == Some(named.to_canonical());
    }
    match name.strip_prefix("*.").or_else(|| name.strip_prefix('.')) {
        Some(domain) => is_below(host, domain),
        None => host == name || is_below(host, name),
    }
}

fn is_below(host: &str, domain: &str) -> bool {
    let above = host.strip_suffix(domain);
    above.is_some_and(|above| above.ends_with('.'))
}

/// `10.0.0.0/8`, `fd00::/8`.
fn network(rule: &str) -> Option<(IpAddr, u32)> {
    let (network, bits) = rule.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let bits: u32 = bits.parse().ok()?;
    let most = if network.is_ipv4() { 32 } else { 128 };
    (bits <= most).then_some((network, bits))
}

/// Whether two addresses share their first bits.
fn shares(network: IpAddr, ip: IpAddr, bits: u32) -> bool {
    let differ = match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => u128::from(network.to_bits() ^ ip.to_bits()) << 96,
        (IpAddr::V6(network), IpAddr::V6(ip)) => network.to_bits() ^ ip.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exempt(rules: &str, host: &str, port: u16) -> bool {
        let host = host.to_owned();
        is_exempt(rules, &Address { host, port })
    }

    #[test]
    fn rules_of_no_proxy_are_those_of_go() {
        for (rules, host, port, expected) in [
            ("", "collector.example", 4317, false),
            ("", "localhost", 4317, true),
            ("", "127.0.0.9", 4317, true),
            ("", "::1", 4317, true),
            ("*", "collector.example", 4317, true),
            ("example", "collector.example", 4317, true),
            ("EXAMPLE", "Collector.Example.", 4317, true),
            ("collector.example", "collector.example", 4317, true),
            ("example", "badexample", 4317, false),
            ("example", "example", 4317, true),
            (".example", "example", 4317, false),
            (".example", "a.b.example", 4317, true),
            ("*.example", "a.example", 4317, true),
            ("*.example", "example", 4317, false),
            ("a, .svc , b", "collector.ns.svc", 4317, true),
            ("collector.example:4317", "collector.example", 4317, true),
            ("collector.example:4318", "collector.example", 4317, false),
            ("collector.example:x", "collector.example", 4317, false),
            ("10.0.0.0/8", "10.200.1.2", 4317, true),
            ("10.0.0.0/8", "11.0.0.1", 4317, false),
            ("10.0.0.0/33", "10.0.0.1", 4317, false),
            ("0.0.0.0/0", "8.8.8.8", 4317, true),
            ("fd00::/8", "fd12::1", 4317, true),
            ("fd00::/8", "fe80::1", 4317, false),
            ("10.1.2.3", "10.1.2.3", 4317, true),
            ("10.1.2.3:4317", "10.1.2.3", 4317, true),
            ("10.1.2.3:80", "10.1.2.3", 4317, false),
            ("[fd12::1]:4317", "fd12::1", 4317, true),
            ("fd12::1", "fd12::1", 4317, true),
            (",:,[,]:80,/8,:4317", "collector.example", 4317, false),
        ] {
            assert_eq!(exempt(rules, host, port), expected, "{rules} {host}:{port}");
        }
    }

    #[test]
    fn url_of_a_proxy_has_a_host_and_perhaps_credentials() {
        let read = |text| {
            let proxy = url(text, "HTTPS_PROXY")?;
            let credentials = proxy.credentials.map(|text| text.value().to_owned());
            Ok::<_, String>((proxy.address.to_string(), credentials))
        };
        let plain = |address: &str| Ok((address.to_owned(), None));
        assert_eq!(read("http://proxy:3128"), plain("proxy:3128"));
        assert_eq!(read("proxy:3128/"), plain("proxy:3128"));
        assert_eq!(read("HTTP://proxy"), plain("proxy:80"));
        assert_eq!(read("http://[fd12::1]"), plain("[fd12::1]:80"));
        let with = |credentials: &str| Ok(("proxy:3128".to_owned(), Some(credentials.to_owned())));
        assert_eq!(read("http://a:b%40%3A@proxy:3128"), with("a:b@:"));
        assert_eq!(read("http://a@proxy:3128"), with("a:"));
        for wrong in [
            "https://s3cret@proxy",
            "socks5://s3cret@proxy",
            "http://s3cret@",
            "http://s3cret@a b",
            "http://s3cret@a:0",
        ] {
            let message = read(wrong).unwrap_err();
            assert!(!message.contains("s3cret"), "{message}");
        }
    }
}
