//! Finds out what an upstream speaks that does not answer as it should, so that the log says which setting to change:
//! most often the port or the scheme belong to another protocol.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::answer::{Fault, UpstreamAnswer};
use super::connect::{ConnectError, Dialer};
use super::connection_end::ConnectionEnd;
use crate::lock::lock;
use crate::logging::causes;
use crate::stream::Stream;
use crate::tls;

/// The time limit of one question.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long an answer counts: so often at most an upstream is asked.
const AGAIN: Duration = Duration::from_mins(1);

/// A frame of HTTP/2 begins with so many bytes; the other protocols show in fewer.
const FRAME_HEAD: usize = 9;
const SETTINGS: u8 = 4;

const HTTP1: &[u8] = b"HEAD / HTTP/1.1\r\nhost: upstream\r\nconnection: close\r\n\r\n";
/// The preface and empty settings (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spoken {
    http1: bool,
    http2: bool,
}

/// A setting that is wrong, and what to write instead.
type Finding = Option<(Fault, String)>;

/// Asks one upstream.
pub(super) struct Diagnosis {
    dialer: Arc<Dialer>,
    /// Whether HTTP/2 is wanted, for gRPC; otherwise HTTP/1.1.
    wants_http2: bool,
    last: Mutex<Option<(Instant, Finding)>>,
}

impl Diagnosis {
    pub(super) fn new(dialer: &Arc<Dialer>, wants_http2: bool) -> Self {
        Self {
            dialer: Arc::clone(dialer),
            wants_http2,
            last: Mutex::new(None),
        }
    }

    /// The upstream has answered as it should: whatever fails next is no wrong setting.
    pub(super) fn works(&self) {
        *lock(&self.last) = Some((Instant::now(), None));
    }

    /// The answer of an attempt without a connection.
    pub(super) async fn not_connected(&self, error: &ConnectError) -> UpstreamAnswer {
        let why = causes(error);
        let tls = match error {
            ConnectError::Tls(_, tls) => tls,
            // The upstream spoke first.
            ConnectError::Http(_) => return self.explained(why, UpstreamAnswer::unreachable).await,
            ConnectError::Tunnel(_, tunnel) if tunnel.is_misconfigured => {
                return UpstreamAnswer::misconfigured(Fault::Proxy, why);
            }
            _ => return UpstreamAnswer::unreachable(why),
        };
        if tls::is_other_protocol(tls) {
            let (fault, advice) = self.other_protocol();
            return UpstreamAnswer::misconfigured(fault, format!("{why}: {advice}"));
        }
        match tls::advice(tls) {
            Some(advice) => UpstreamAnswer::misconfigured(Fault::Tls, format!("{why}: {advice}")),
            None => self.explained(why, UpstreamAnswer::unreachable).await,
        }
    }

    /// The answer of an attempt whose new connection ended without one.
    pub(super) async fn broken(&self, end: &ConnectionEnd, error: &hyper::Error) -> UpstreamAnswer {
        let why = end.explain(error);
        match end.advice() {
            Some(advice) => UpstreamAnswer::misconfigured(Fault::Tls, format!("{why}: {advice}")),
            None => self.explained(why, UpstreamAnswer::broken).await,
        }
    }

    async fn explained(
        &self,
        why: String,
        answer: impl Fn(String) -> UpstreamAnswer,
    ) -> UpstreamAnswer {
        match self.finding().await {
            Some((fault, advice)) => {
                UpstreamAnswer::misconfigured(fault, format!("{why}: {advice}"))
            }
            None => answer(why),
        }
    }

    async fn finding(&self) -> Finding {
        // A proxy that reads the requests answers for itself.
        if self.dialer.is_forwarded {
            return None;
        }
        {
            let mut last = lock(&self.last);
            if let Some((at, finding)) = &*last
                && at.elapsed() < AGAIN
            {
                return finding.clone();
            }
            // Others do not ask meanwhile.
            *last = Some((Instant::now(), None));
        }
        let finding = self.look().await;
        if finding.is_some() {
            *lock(&self.last) = Some((Instant::now(), finding.clone()));
        }
        finding
    }

    async fn look(&self) -> Finding {
        let (speaks_tls, plain) = tokio::join!(self.speaks_tls(), self.spoken(false));
        let spoken = match (self.dialer.is_encrypted(), speaks_tls) {
            (false, true) => return Some(self.other_scheme()),
            (true, false) if plain != Spoken::default() => return Some(self.other_scheme()),
            (false, false) => plain,
            (true, _) => self.spoken(true).await,
        };
        let is_other = if self.wants_http2 {
            spoken.http1 && !spoken.http2
        } else {
            spoken.http2 && !spoken.http1
        };
        is_other.then(|| self.other_protocol())
    }

    /// TLS where there is none, or none where there is TLS.
    pub(super) fn other_scheme(&self) -> (Fault, String) {
        let what = if self.dialer.is_encrypted() {
            "does not speak TLS: write http:// in the endpoint, or tls.insecure: true"
        } else {
            "speaks TLS: write https:// in the endpoint"
        };
        let advice = format!("the upstream at {} {what}", self.dialer.address);
        (Fault::Scheme, advice)
    }

    fn other_protocol(&self) -> (Fault, String) {
        let what = if self.wants_http2 {
            "answers in HTTP/1.1: use the exporter otlp_http, or the port of OTLP/gRPC, which is 4317 most often"
        } else {
            "speaks only HTTP/2: use the exporter otlp_grpc, or the port of OTLP/HTTP, which is 4318 most often"
        };
        let advice = format!("the upstream at {} {what}", self.dialer.address);
        (Fault::Protocol, advice)
    }

    async fn speaks_tls(&self) -> bool {
        let Some(hello) = tls::client_hello(&self.dialer.address.host) else {
            return false;
        };
        let answer = self.ask(false, &hello).await;
        // A handshake or an alert, of any version (RFC 8446, section 5.1).
        matches!(answer.as_slice(), [21 | 22, 3, ..])
    }

    async fn spoken(&self, encrypted: bool) -> Spoken {
        let (http1, http2) = tokio::join!(self.ask(encrypted, HTTP1), self.ask(encrypted, HTTP2));
        Spoken {
            http1: http1.starts_with(b"HTTP/1."),
            http2: http2.get(3) == Some(&SETTINGS),
        }
    }

    /// The beginning of what comes back on a connection of its own.
    async fn ask(&self, encrypted: bool, question: &[u8]) -> Vec<u8> {
        let mut answer = Vec::with_capacity(FRAME_HEAD);
        let asked = async {
            let mut stream: Stream = if encrypted {
                self.dialer.dial().await.ok()?.0
            } else {
                Box::new(self.dialer.dial_plain().await.ok()?)
            };
            stream.write_all(question).await.ok()?;
            stream.flush().await.ok()?;
            while answer.len() < FRAME_HEAD {
                answer.push(stream.read_u8().await.ok()?);
            }
            Some(())
        };
        let _ = timeout(PATIENCE, asked).await;
        answer
    }
}
