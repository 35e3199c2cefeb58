//! Parses strings: durations as Go writes them, addresses, paths.

use std::time::Duration;

use super::model::Address;

/// Reads a Go duration: `200ms`, `1m30s`, `0`, `1.5h`. Never negative.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write for example 200ms, 10s or 5m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .filter(|&at| at > 0)
            .ok_or_else(wrong)?;
        let (number, after) = rest.split_at(digits);
        let letters = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = next;
    }
    // Beyond this, deadlines computed from it would leave the clock's range.
    if total > Duration::from_hours(365 * 24) {
        return Err(format!("`{text}` is longer than a year"));
    }
    Ok(total)
}

/// Reads `host:port`, `[v6]:port` or `:port`.
pub(crate) fn address(text: &str) -> Result<Address, String> {
    let wrong = || format!("`{text}` is not an address; write host:port, for example 0.0.0.0:4317");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => {
            return Err(format!(
                "`{text}` needs brackets around its IPv6 address: [{host}]:{port}"
            ));
        }
        None => host,
    };
    if host.chars().any(|c| c.is_whitespace() || c == '/') {
        return Err(wrong());
    }
    let port = port
        .parse()
        .map_err(|_| format!("`{port}` is not a port; use 0 to 65535"))?;
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

/// An address that is not known yet, as written.
pub(super) fn opaque_address(text: &str) -> Address {
    Address {
        host: text.to_owned(),
        port: 0,
    }
}

/// Reads the path of a URL.
pub(super) fn absolute_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` is not a path; start it with a slash"));
    }
    if text.contains(['?', '#', ' ']) {
        return Err(format!("`{text}` is not a plain path"));
    }
    Ok(text.to_owned())
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn or_list(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
