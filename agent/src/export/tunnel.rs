//! A way through an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6).

use otlp_wire::status::base64_encode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::headers::AGENT;
use crate::config::{Address, Proxy};

/// The most bytes of a proxy's answer.
const MOST: usize = 16 * 1024;

/// The beginning of its reason that is worth a log line.
const REASON: usize = 100;

/// Why there is no way through.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct TunnelError {
    /// What the proxy says, and what to do.
    pub(super) message: String,
    /// Whether a setting has to change, here or at the proxy.
    pub(super) is_misconfigured: bool,
}

impl TunnelError {
    pub(super) fn slow(to: &Address) -> Self {
        Self {
            message: format!("it took too long to reach {to}"),
            is_misconfigured: false,
        }
    }
}

/// `Basic` and the credentials, if there are any.
pub(super) fn authorization(proxy: &Proxy) -> Option<String> {
    let credentials = proxy.credentials.as_ref()?;
    let mut encoded = base64_encode(credentials.value().as_bytes());
    while !encoded.len().is_multiple_of(4) {
        encoded.push('=');
    }
    Some(format!("Basic {encoded}"))
}

/// Asks the proxy at the other end of `stream` for a connection to `to`. Reads no byte of what follows its answer.
pub(super) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    to: &Address,
    proxy: &Proxy,
) -> Result<(), TunnelError> {
    let authorization = authorization(proxy).map_or_else(String::new, |value| {
        format!("proxy-authorization: {value}\r\n")
    });
    let request = format!(
        "CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nuser-agent: {AGENT}\r\n{authorization}\r\n"
    );
    let failed = |error: std::io::Error| TunnelError {
        message: format!("it closed the connection to {to}: {error}"),
        is_misconfigured: false,
    };
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut head = Vec::with_capacity(256);
    // Byte by byte, once for a connection: what follows belongs to the upstream, which may speak first.
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() >= MOST {
            return Err(no_proxy());
        }
        head.push(stream.read_u8().await.map_err(failed)?);
    }
    understand(&head, to, proxy)
}

fn no_proxy() -> TunnelError {
    TunnelError {
        message: "it does not answer as an HTTP proxy".to_owned(),
        is_misconfigured: true,
    }
}

fn understand(head: &[u8], to: &Address, proxy: &Proxy) -> Result<(), TunnelError> {
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.trim_end().splitn(3, ' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse::<u16>().ok());
    let (true, Some(status)) = (is_http, status) else {
        return Err(no_proxy());
    };
    let what = match status {
        200..=299 => return Ok(()),
        407 if proxy.credentials.is_none() => {
            format!(
                "it wants credentials: write http://user:password@{} in {}",
                proxy.address, proxy.origin
            )
        }
        407 => format!("it refuses the credentials in {}", proxy.origin),
        403 | 405 => {
            format!("it allows no connection to {to}: allow it there, or name the host in NO_PROXY")
        }
        502..=504 => format!("it cannot reach {to}"),
        _ => format!("it opens no connection to {to}"),
    };
    let reason: String = words
        .next()
        .unwrap_or_default()
        .chars()
        .filter(|char| !char.is_control())
        .take(REASON)
        .collect();
    Err(TunnelError {
        message: format!("{what} (HTTP status {status} {reason})"),
        is_misconfigured: !matches!(status, 502..=504),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn address(host: &str, port: u16) -> Address {
        let host = host.to_owned();
        Address { host, port }
    }

    async fn answered(answer: &[u8]) -> (Result<(), TunnelError>, Vec<u8>) {
        let (mut ours, mut theirs) = duplex(64 * 1024);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let proxy = Proxy {
            address: address("proxy", 3128),
            credentials: None,
            origin: "HTTPS_PROXY",
        };
        let opened = open(&mut ours, &address("fd12::1", 4317), &proxy).await;
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        (opened, rest)
    }

    #[tokio::test]
    async fn what_follows_the_answer_belongs_to_the_upstream() {
        for head in [
            "HTTP/1.1 200 Connection established\r\n\r\n",
            "HTTP/1.0 200\r\nvia: a\r\n\r\n",
        ] {
            let (opened, rest) = answered(format!("{head}hello").as_bytes()).await;
            assert_eq!((opened, rest.as_slice()), (Ok(()), &b"hello"[..]));
        }
    }

    #[tokio::test]
    async fn refusal_says_what_to_change() {
        for (answer, words, is_misconfigured) in [
            (
                "HTTP/1.1 407 Who are you\r\n\r\n",
                "write http://user:password@proxy:3128 in HTTPS_PROXY (HTTP status 407 Who are you)",
                true,
            ),
            (
                "HTTP/1.1 403\r\n\r\n",
                "no connection to [fd12::1]:4317: allow it there",
                true,
            ),
            (
                "HTTP/1.1 502 Bad Gateway\r\n\r\n",
                "cannot reach [fd12::1]:4317",
                false,
            ),
            ("HTTP/1.1 302 Found\r\n\r\n", "HTTP status 302 Found", true),
            (
                "SSH-2.0-OpenSSH\r\n\r\n",
                "not answer as an HTTP proxy",
                true,
            ),
            (
                "HTTP/1.1 99999 x\r\n\r\n",
                "not answer as an HTTP proxy",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n", "closed the connection", false),
        ] {
            let error = answered(answer.as_bytes()).await.0.unwrap_err();
            assert!(error.message.contains(words), "{error:?}");
            assert_eq!(error.is_misconfigured, is_misconfigured, "{error:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(10_000));
        let error = answered(endless.as_bytes()).await.0.unwrap_err();
        assert!(error.message.contains("not answer as an HTTP proxy"));
    }
}
