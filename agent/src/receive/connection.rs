//! One client connection: which HTTP it speaks, how long it may stay silent, and how it ends. Must not
//! know what requests carry.

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
use hyper::service::{Service as HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::body::{Answer, Arriving};
use super::places::Place;
use super::pulse::{InFlight, Pulse};
use super::{Door, grpc, http as otlp_http};
use crate::config::Connections;

/// Opening bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A new connection says which HTTP it speaks within this.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection that is to end gets one more request answered, if it comes within this: the first one
/// of a new HTTP/2 connection, and over HTTP/1.1 the one whose answer says that the connection ends.
/// To close in silence could lose a request that is on its way.
const ONE_MORE: Duration = Duration::from_millis(300);

/// How often a connection's silence is looked at.
const CHECK: Duration = Duration::from_secs(5);

/// A connection that was asked to leave ends within this, or is dropped.
const LEAVE: Duration = Duration::from_millis(100);

/// Bytes of headers one request may have.
const HEADER_LIST: u32 = 16 * 1024;

/// Bytes of the buffer an HTTP/1.1 connection reads into, and its longest head. A connection keeps it;
/// with 64 KiB one that had sent large bodies kept 114 KiB where 52 are paid for.
const HTTP1_BUFFER: usize = 32 * 1024;

/// Bytes one HTTP/2 stream, and one connection, may send before they are read.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Limits of requests and connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one gRPC message, also after decompression.
    pub(crate) grpc_message: usize,
    /// Bytes of one HTTP body, also after decompression.
    pub(crate) http_body: usize,
    /// Open calls of one HTTP/2 connection.
    pub(crate) concurrent_streams: u32,
    /// How long connections live.
    pub(crate) lifetimes: Connections,
}

/// A stream whose first bytes were read to tell what is spoken on it.
struct Opened<S> {
    read_ahead: Vec<u8>,
    at: usize,
    stream: S,
    pulse: Arc<Pulse>,
    door: Arc<Door>,
    waited: (u64, u64),
}

impl<S: AsyncRead + Unpin> AsyncRead for Opened<S> {
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
        let poll = this.pulse.polls();
        if this.door.turn.is_over(poll, &mut this.waited) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            this.door.turn.bytes_arrived(read);
            this.pulse.bytes_arrived();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opened<S> {
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

/// Serves a connection until it ends, is idle too long or too old, has to make way for another, or
/// `stop` turns true and its requests are answered.
pub(crate) async fn serve<S>(
    mut stream: S,
    door: Arc<Door>,
    stop: watch::Receiver<bool>,
    place: Place,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut read_ahead = Vec::with_capacity(PREFACE.len());
    let pulse = Arc::clone(&place.pulse);
    let opened = timeout(HANDSHAKE, async {
        let is_http2 = speaks_http2(&mut stream, &mut read_ahead).await?;
        place.speak().await;
        io::Result::Ok(is_http2)
    });
    let is_http2 = tokio::select! {
        _ = pulse.asked_to_leave() => return,
        opened = opened => match opened {
            Ok(Ok(is_http2)) => is_http2,
            _ => return,
        },
    };
    let opened = Opened {
        read_ahead,
        at: 0,
        stream,
        pulse,
        door,
        waited: (0, 0),
    };
    let pulse = Arc::clone(&opened.pulse);
    // Boxed, so that a connection that says nothing costs little.
    if is_http2 {
        pulse.run(Box::pin(speak_http2(opened, stop))).await;
    } else {
        pulse.bytes_arrived();
        pulse.run(Box::pin(speak_http1(opened, stop))).await;
    }
    drop(place);
}

async fn speak_http1<S>(opened: Opened<S>, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (pulse, door) = (Arc::clone(&opened.pulse), Arc::clone(&opened.door));
    let watch = Watch {
        pulse: &pulse,
        lifetimes: door.intake().limits.lifetimes,
        is_http2: false,
    };
    let service = service(door, Arc::clone(&pulse), stop.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(HTTP1_BUFFER)
        .serve_connection(TokioIo::new(opened), service);
    let end = http1::Connection::graceful_shutdown;
    watch.over(connection, end, stop).await;
}

async fn speak_http2<S>(opened: Opened<S>, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (pulse, door) = (Arc::clone(&opened.pulse), Arc::clone(&opened.door));
    let limits = door.intake().limits;
    let watch = Watch {
        pulse: &pulse,
        lifetimes: limits.lifetimes,
        is_http2: true,
    };
    let service = service(door, Arc::clone(&pulse), stop.clone());
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.concurrent_streams)
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(limits.lifetimes.ping_after)
        .keep_alive_timeout(limits.lifetimes.ping_timeout)
        .serve_connection(TokioIo::new(opened), service);
    let end = http2::Connection::graceful_shutdown;
    watch.over(connection, end, stop).await;
}

/// What a connection's life is measured by.
struct Watch<'a> {
    pulse: &'a Pulse,
    lifetimes: Connections,
    is_http2: bool,
}

impl Watch<'_> {
    /// Drives a connection; its errors are the client's and show in what it does next.
    async fn over<C: Future>(
        &self,
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
        let (mut ending, mut leaving) = (false, false);
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
                at_once = self.pulse.asked_to_leave() => {
                    if at_once {
                        return;
                    }
                    leaving = true;
                    graceful_shutdown(connection.as_mut());
                }
                () = sleep(if leaving { LEAVE } else { check }) => {
                    let is_stuck = !self.is_http2 && self.pulse.is_stuck();
                    let can_go = leaving && self.pulse.can_go();
                    if is_stuck || can_go || cut.is_some_and(|cut| Instant::now() >= cut) {
                        return;
                    }
                    if !ending && self.pulse.is_idle(idle) {
                        self.pulse.ask_to_leave();
                    }
                }
            }
        }
    }

    /// Waits until the connection is to end and can; whether that is for its age.
    async fn asked_to_end(&self, mut stop: watch::Receiver<bool>) -> bool {
        let age = self.lifetimes.max_age;
        let aged = async {
            if age.is_zero() {
                std::future::pending::<()>().await;
            }
            // Clients that came together must not leave together.
            sleep(age.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        };
        let aged = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => false,
            () = aged => true,
        };
        self.pulse.close();
        let until = Instant::now() + ONE_MORE;
        while Instant::now() < until && !(self.is_http2 && self.pulse.has_served()) {
            sleep(ONE_MORE / 20).await;
        }
        aged
    }
}

/// Reads until the bytes differ from HTTP/2's preface or are all of it.
async fn speaks_http2<S>(stream: &mut S, read_ahead: &mut Vec<u8>) -> io::Result<bool>
where
    S: AsyncRead + Unpin,
{
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

/// What answers the requests of one connection.
fn service(
    door: Arc<Door>,
    pulse: Arc<Pulse>,
    stop: watch::Receiver<bool>,
) -> impl HttpService<
    Request<Incoming>,
    Response = Response<Answer>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Answer>, Infallible>> + Send,
> {
    service_fn(move |request| {
        door.turn.request_arrived();
        answer(Arc::clone(&door), request, pulse.begin(), stop.clone())
    })
}

async fn answer(
    door: Arc<Door>,
    request: Request<Incoming>,
    in_flight: InFlight,
    stop: watch::Receiver<bool>,
) -> Result<Response<Answer>, Infallible> {
    let intake = door.intake();
    let version = request.version();
    let request = request.map(|body| Arriving::new(body, in_flight.pulse()));
    let mut response = if grpc::is_grpc(request.headers()) {
        grpc::answer(&intake, request).await
    } else {
        otlp_http::answer(&intake, request).await
    };
    // Said with the last answer, so that no client sends another request into a closing connection.
    let ends = in_flight.pulse().is_closing() || *stop.borrow();
    if version < Version::HTTP_2 && ends {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(in_flight);
    Ok(response)
}
