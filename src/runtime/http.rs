//! The small server behind metrics and probes: one page per path, GET only, plain HTTP/1.1.
//!
//! Everything is bounded, since anyone on the network may connect: connections, header time and the
//! life of a connection. Must not know what the pages say.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::ProcessError;

/// What Linux answers where it was started without IPv6 (`errno.h`).
const EAFNOSUPPORT: i32 = 97;
/// Connections at a time; a scraper and a kubelet need one each. Where there are more, the oldest makes
/// way, so that those which say nothing cannot keep a probe out.
const CONNECTIONS: usize = 64;
/// How long a request may take to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live; each carries one request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept: out of file descriptors, trying again at once only burns the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// One answer.
pub(super) type Page = Response<Full<Bytes>>;

/// A page of text.
pub(super) fn page(status: StatusCode, content_type: &'static str, text: String) -> Page {
    let mut page = Response::new(Full::from(text));
    *page.status_mut() = status;
    page.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    page
}

/// Listens on an address; on all of either family where it is `[::]`, or of the one there is.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ProcessError> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if is_any_without_ipv6(address, &error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.map_err(|source| ProcessError::Listen { address, source })
}

/// Whether the kernel knows no IPv6 at all.
fn is_any_without_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Answers for ever with the page of each path, 404 where there is none.
pub(super) async fn serve(
    listener: TcpListener,
    page_at: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
) {
    let page_at = Arc::new(page_at);
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let page_at = Arc::clone(&page_at);
                let served = async move { connection(stream, page_at.as_ref()).await };
                open.push_back(tokio::spawn(served).abort_handle());
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one request. Who breaks off early is no news.
async fn connection(stream: TcpStream, page_at: &(impl Fn(&str) -> Option<Page> + Sync)) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request, page_at)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

fn answer<B>(request: &Request<B>, page_at: &impl Fn(&str) -> Option<Page>) -> Page {
    let empty = |status| page(status, "text/plain", String::new());
    if request.method() != Method::GET {
        let mut refusal = empty(StatusCode::METHOD_NOT_ALLOWED);
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
        return refusal;
    }
    page_at(request.uri().path()).unwrap_or_else(|| empty(StatusCode::NOT_FOUND))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::probes::{self, Readiness};
    use super::*;

    async fn start(readiness: &Readiness) -> SocketAddr {
        let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(probes::serve(listener, readiness.clone()));
        address
    }

    /// The answer to a request, from its status on.
    async fn ask(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.strip_prefix("HTTP/1.1 ").unwrap().to_owned()
    }

    #[tokio::test]
    async fn readiness_names_what_it_waits_for() {
        let readiness = Readiness::of(&["watches", "version"]);
        let address = start(&readiness).await;
        readiness.ready("version");
        let answer = ask(address, "GET /readyz").await;
        assert!(
            answer.starts_with("503") && answer.ends_with("waiting for: watches\n"),
            "{answer}"
        );
        readiness.ready("watches");
        assert!(ask(address, "GET /readyz").await.starts_with("200"));
        readiness.not_ready("watches");
        assert!(ask(address, "GET /readyz").await.starts_with("503"));
        assert!(ask(address, "GET /healthz").await.starts_with("200"));
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let address = start(&Readiness::of(&[])).await;
        assert!(ask(address, "GET /").await.starts_with("404"));
        assert!(ask(address, "POST /healthz").await.starts_with("405"));
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_others_out() {
        let address = start(&Readiness::of(&[])).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS * 4 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Less than they may take to say something.
        let answer = tokio::time::timeout(HEADER_TIMEOUT, ask(address, "GET /healthz"));
        assert!(answer.await.unwrap().starts_with("200"));
    }
}
