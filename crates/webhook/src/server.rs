//! Connections: HTTP/1.1 over TLS, bounded in number and time, one request each.
//!
//! The API server speaks HTTP/1.1 to webhooks. A kept connection could close while the API server writes a
//! call, which would lose the call, and calls could go to a replica that is gone. A handshake per call
//! costs less.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::answer::Answers;

/// Connections at a time; further ones wait.
const CONNECTIONS: u32 = 256;
/// How long a handshake, and the arrival of a request's headers, may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept: without file descriptors, an immediate retry would only use CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Answers until `stop`, and then until every connection has ended.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    answers: Arc<Answers>,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS as usize));
    loop {
        // The semaphore is never closed, so a permit always comes.
        let permit = Arc::clone(&permits).acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (acceptor, answers) = (acceptor.clone(), answers.clone());
                tokio::spawn(async move {
                    let whole = connection(stream, &acceptor, &answers);
                    // A peer that disconnects early or speaks no TLS is not worth a log line.
                    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, whole).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let _ = permits.acquire_many(CONNECTIONS).await;
}

async fn connection(stream: TcpStream, acceptor: &TlsAcceptor, answers: &Answers) {
    let Ok(Ok(stream)) = tokio::time::timeout(HEADER_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let service = service_fn(|request| answers.respond(request));
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
