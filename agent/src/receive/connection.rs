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
use tokio::time::{sleep, timeout};

use super::body::{Answer, Arriving};
use super::places::Place;
use super::pulse::{InFlight, Pulse};
use super::{Intake, grpc, http as otlp_http};

/// Opening bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A new connection says which HTTP it speaks within this.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A connection that was accepted while the agent stops still gets its first request answered, if it
/// comes within this.
const FIRST_REQUEST: Duration = Duration::from_millis(500);

/// How often a connection's silence is looked at.
const CHECK: Duration = Duration::from_secs(5);

/// A connection that was asked to leave ends within this, or is dropped.
const LEAVE: Duration = Duration::from_millis(100);

/// Bytes of headers one request may have.
const HEADER_LIST: u32 = 16 * 1024;

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
}

/// A stream whose first bytes were read to tell what is spoken on it.
struct Opened<S> {
    read_ahead: Vec<u8>,
    at: usize,
    stream: S,
    pulse: Arc<Pulse>,
    intake: Arc<Intake>,
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
        if this.intake.turn.is_over(poll, &mut this.waited) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        if read > 0 {
            this.intake.turn.bytes_arrived(read);
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

/// Serves a connection until it ends, is idle too long, has to make way for another, or `stop` turns
/// true and its requests are answered.
pub(crate) async fn serve<S>(
    mut stream: S,
    intake: Arc<Intake>,
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
        intake,
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
    let (pulse, intake) = (Arc::clone(&opened.pulse), Arc::clone(&opened.intake));
    let service = service(intake, Arc::clone(&pulse), stop.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(opened), service);
    let stuck = || pulse.is_stuck();
    let leave = http1::Connection::graceful_shutdown;
    watch_over(connection, leave, stuck, &pulse, stop).await;
}

async fn speak_http2<S>(opened: Opened<S>, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (pulse, intake) = (Arc::clone(&opened.pulse), Arc::clone(&opened.intake));
    let streams = intake.limits.concurrent_streams;
    let service = service(intake, Arc::clone(&pulse), stop.clone());
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADER_LIST)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_mins(1))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(opened), service);
    let leave = http2::Connection::graceful_shutdown;
    watch_over(connection, leave, || false, &pulse, stop).await;
}

/// Drives a connection; its errors are the client's and show in what it does next.
async fn watch_over<C: Future>(
    connection: C,
    graceful_shutdown: impl Fn(Pin<&mut C>),
    is_stuck: impl Fn() -> bool,
    pulse: &Pulse,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = pin!(connection);
    let mut asked_to_stop = pin!(async {
        let _ = stop.wait_for(|stop| *stop).await;
        while pulse.is_unused_within(FIRST_REQUEST) {
            sleep(FIRST_REQUEST / 20).await;
        }
    });
    let (mut stopping, mut leaving) = (false, false);
    loop {
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = &mut asked_to_stop, if !stopping => {
                stopping = true;
                graceful_shutdown(connection.as_mut());
            }
            at_once = pulse.asked_to_leave() => {
                if at_once {
                    return;
                }
                leaving = true;
                graceful_shutdown(connection.as_mut());
            }
            () = sleep(if leaving { LEAVE } else { CHECK }) => {
                if leaving && pulse.can_go() || is_stuck() {
                    return;
                }
                if !stopping && pulse.is_idle() {
                    pulse.ask_to_leave();
                }
            }
        }
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
    intake: Arc<Intake>,
    pulse: Arc<Pulse>,
    stop: watch::Receiver<bool>,
) -> impl HttpService<
    Request<Incoming>,
    Response = Response<Answer>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Answer>, Infallible>> + Send,
> {
    service_fn(move |request| {
        intake.turn.request_arrived();
        answer(Arc::clone(&intake), request, pulse.begin(), stop.clone())
    })
}

async fn answer(
    intake: Arc<Intake>,
    request: Request<Incoming>,
    in_flight: InFlight,
    stop: watch::Receiver<bool>,
) -> Result<Response<Answer>, Infallible> {
    let version = request.version();
    let request = request.map(|body| Arriving::new(body, in_flight.pulse()));
    let mut response = if grpc::is_grpc(request.headers()) {
        grpc::answer(&intake, request).await
    } else {
        otlp_http::answer(&intake, request).await
    };
    // Said with the last answer, so that no client sends another request into a closing connection.
    if version < Version::HTTP_2 && *stop.borrow() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    drop(in_flight);
    Ok(response)
}
