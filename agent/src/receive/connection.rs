//! One client connection: its version of HTTP, its time limits, and its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::Answer;
use super::connection_state::{ConnectionState, InFlight};
use super::connection_table::ConnectionSlot;
use super::request_body::RequestBody;
use super::server::ServerState;
use super::{grpc, http as otlp_http};
use crate::config::Connections;
use crate::stream::Stream;

/// The opening bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The time limit for the first bytes, which tell the version of HTTP.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A closing connection still answers one request that arrives within this: the first one of a new HTTP/2
/// connection, or over HTTP/1.1 the one whose answer announces the end. A silent close could lose a
/// request on its way.
const ONE_MORE: Duration = Duration::from_millis(300);

/// The interval of checks for silence.
const CHECK: Duration = Duration::from_secs(5);

/// A connection that was asked to close ends within this, or is dropped.
const CLOSE: Duration = Duration::from_millis(100);

/// The maximum size of the headers of a request.
const HEADER_LIST: u32 = 16 * 1024;

/// The read buffer of an HTTP/1.1 connection, which also limits its headers. With 64 KiB, connections that
/// had sent large bodies kept 114 KiB of memory instead of the reserved 52.
const HTTP1_BUFFER: usize = 32 * 1024;

/// The flow-control windows of an HTTP/2 stream and connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A stream whose first bytes were read to tell the version of HTTP.
struct PeekedStream {
    read_ahead: Vec<u8>,
    at: usize,
    stream: Stream,
    state: Arc<ConnectionState>,
    server: Arc<ServerState>,
    waited: (u64, u64),
}

impl AsyncRead for PeekedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let ahead = this.read_ahead.get(this.at..).unwrap_or_default();
        if !ahead.is_empty() {
            let taken = ahead.get(..buf.remaining()).unwrap_or(ahead);
            buf.put_slice(taken);
            this.at += taken.len();
            return Poll::Ready(Ok(()));
        }
        let poll = this.state.polls();
        if this.server.read_quota.is_used_up(poll, &mut this.waited) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            this.server.read_quota.bytes_arrived(read);
            this.state.progress().bytes_arrived();
        }
        result
    }
}

impl AsyncWrite for PeekedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Serves a connection until it ends, is idle too long, too old or evicted, or until `stop` turns true and
/// its requests are answered.
pub(crate) async fn serve(
    mut stream: Stream,
    server: Arc<ServerState>,
    stop: watch::Receiver<bool>,
    slot: ConnectionSlot,
) {
    let mut read_ahead = Vec::with_capacity(PREFACE.len());
    let state = Arc::clone(&slot.state);
    let opened = timeout(HANDSHAKE, async {
        let is_http2 = speaks_http2(&mut stream, &mut read_ahead).await?;
        slot.speak(is_http2).await;
        io::Result::Ok(is_http2)
    });
    let is_http2 = tokio::select! {
        _ = state.asked_to_close() => return,
        opened = opened => match opened {
            Ok(Ok(is_http2)) => is_http2,
            _ => return,
        },
    };
    let opened = PeekedStream {
        read_ahead,
        at: 0,
        stream,
        state: Arc::clone(&state),
        server,
        waited: (0, 0),
    };
    state.run(speak(opened, stop, is_http2)).await;
    drop(slot);
}

/// Speaks HTTP on a connection. Boxed, so that a silent connection uses little memory.
fn speak(
    opened: PeekedStream,
    stop: watch::Receiver<bool>,
    is_http2: bool,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let (state, server) = (Arc::clone(&opened.state), Arc::clone(&opened.server));
    let receiver = server.receiver();
    let lifetimes = receiver.config.connections;
    let lifetime = Lifetime {
        state: Arc::clone(&state),
        lifetimes,
        is_http2,
    };
    let stopping = stop.clone();
    let service = service_fn(move |request| {
        server.read_quota.request_arrived();
        answer(
            Arc::clone(&server),
            request,
            state.begin(),
            stopping.clone(),
        )
    });
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(receiver.config.max_concurrent_streams)
            .max_header_list_size(HEADER_LIST)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(64 * 1024)
            .keep_alive_interval(lifetimes.ping_after)
            .keep_alive_timeout(lifetimes.ping_timeout)
            .serve_connection(TokioIo::new(opened), service);
        Box::pin(lifetime.drive(connection, http2::Connection::graceful_shutdown, stop))
    } else {
        lifetime.state.progress().bytes_arrived();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(HTTP1_BUFFER)
            .serve_connection(TokioIo::new(opened), service);
        Box::pin(lifetime.drive(connection, http1::Connection::graceful_shutdown, stop))
    }
}

/// What ends a connection.
struct Lifetime {
    state: Arc<ConnectionState>,
    lifetimes: Connections,
    is_http2: bool,
}

impl Lifetime {
    /// Drives a connection; its errors are for the client to handle.
    async fn drive<C: Future>(
        self,
        connection: C,
        graceful_shutdown: impl Fn(Pin<&mut C>),
        stop: watch::Receiver<bool>,
    ) {
        let idle = if self.is_http2 {
            self.lifetimes.idle_http2
        } else {
            self.lifetimes.idle_http1
        };
        let check = if idle.is_zero() {
            CHECK
        } else {
            CHECK.min(idle)
        };
        let mut connection = pin!(connection);
        let mut asked_to_end = pin!(self.asked_to_end(stop));
        let mut cut = None;
        let (mut ending, mut closing) = (false, false);
        loop {
            tokio::select! {
                biased;
                _ = connection.as_mut() => return,
                aged = &mut asked_to_end, if !ending => {
                    ending = true;
                    graceful_shutdown(connection.as_mut());
                    let grace = self.lifetimes.max_age_grace;
                    cut = (aged && !grace.is_zero()).then(|| Instant::now() + grace);
                }
                at_once = self.state.asked_to_close() => {
                    if at_once {
                        return;
                    }
                    closing = true;
                    graceful_shutdown(connection.as_mut());
                }
                () = sleep(if closing { CLOSE } else { check }) => {
                    let is_cut = cut.is_some_and(|cut| Instant::now() >= cut);
                    if is_cut || self.is_hopeless(closing) {
                        return;
                    }
                    if !ending && self.state.progress().is_idle(idle) {
                        self.state.ask_to_close();
                    }
                }
            }
        }
    }

    /// Whether nothing more can be expected of the client.
    fn is_hopeless(&self, closing: bool) -> bool {
        let progress = self.state.progress();
        (!self.is_http2 && progress.is_stuck()) || (closing && progress.can_close())
    }

    /// Waits until the connection should end and can; returns whether because of its age.
    async fn asked_to_end(&self, mut stop: watch::Receiver<bool>) -> bool {
        let age = self.lifetimes.max_age;
        let aged = async {
            if age.is_zero() {
                std::future::pending::<()>().await;
            }
            // Spreads the ends of connections that began together.
            sleep(age.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        };
        let aged = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => false,
            () = aged => true,
        };
        self.state.progress().closing = true;
        let until = Instant::now() + ONE_MORE;
        while Instant::now() < until && !(self.is_http2 && self.state.progress().served) {
            sleep(ONE_MORE / 20).await;
        }
        aged
    }
}

/// Reads until the bytes differ from HTTP/2's preface or complete it.
async fn speaks_http2(stream: &mut Stream, read_ahead: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        let mut space = [0; PREFACE.len()];
        let missing = PREFACE.len() - read_ahead.len();
        let space = space.get_mut(..missing).unwrap_or_default();
        let read = stream.read(space).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read_ahead.extend_from_slice(space.get(..read).unwrap_or_default());
        if !PREFACE.starts_with(read_ahead) {
            return Ok(false);
        }
        if read_ahead.len() == PREFACE.len() {
            return Ok(true);
        }
    }
}

async fn answer(
    server: Arc<ServerState>,
    request: Request<Incoming>,
    in_flight: InFlight,
    stop: watch::Receiver<bool>,
) -> Result<Response<Answer>, Infallible> {
    let receiver = server.receiver();
    let version = request.version();
    let request = request.map(|body| RequestBody::new(body, &in_flight));
    let mut response = if grpc::is_grpc(request.headers()) {
        grpc::answer(&receiver, request).await
    } else {
        otlp_http::answer(&receiver, request).await
    };
    // Announced with the last answer, so that no client sends another request into the close.
    let ends = in_flight.state.progress().closing || *stop.borrow();
    if version < Version::HTTP_2 && ends {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(in_flight);
    Ok(response)
}
