//! An upstream behind a thin link: it reads so many bytes a second in all, and takes what it has read completely.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::sink::{Body, grpc_ok};

/// The most that is read at once.
const TURN: usize = 16 * 1024;

/// How much a reader can be late without loss of speed.
const LATE: Duration = Duration::from_millis(200);

/// A running upstream; stops when dropped.
pub struct SlowSink {
    link: Arc<Link>,
    task: JoinHandle<()>,
}

struct Link {
    rate: usize,
    read: AtomicUsize,
    /// When the link is free again.
    free: Mutex<Instant>,
}

impl Link {
    /// Sends so many bytes over the link; returns when it is free again.
    fn take(&self, bytes: usize) -> Instant {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        let mut free = self.free.lock().unwrap();
        let time = Duration::from_secs(1) * u32::try_from(bytes).unwrap()
            / u32::try_from(self.rate).unwrap();
        // A reader that wakes up late finds what has arrived meanwhile.
        let arrived = Instant::now().checked_sub(LATE);
        *free = arrived.map_or(*free, |arrived| arrived.max(*free)) + time;
        *free
    }
}

impl SlowSink {
    pub fn http(address: SocketAddr, rate: usize) -> Self {
        Self::start(address, rate, false)
    }

    pub fn grpc(address: SocketAddr, rate: usize) -> Self {
        Self::start(address, rate, true)
    }

    /// Bytes read so far.
    pub fn read(&self) -> usize {
        self.link.read.load(Ordering::Relaxed)
    }

    fn start(address: SocketAddr, rate: usize, is_grpc: bool) -> Self {
        let link = Arc::new(Link {
            rate,
            read: AtomicUsize::new(0),
            free: Mutex::new(Instant::now()),
        });
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        // As behind a real link, little waits on this side.
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(128).unwrap();
        let shared = Arc::clone(&link);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = SlowStream {
                    stream,
                    link: Arc::clone(&shared),
                    pause: None,
                };
                connections.spawn(serve(TokioIo::new(stream), is_grpc));
            }
        });
        Self { link, task }
    }
}

impl Drop for SlowSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(io: TokioIo<SlowStream>, is_grpc: bool) {
    // The agent may close in the middle of a request.
    let _ = if is_grpc {
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(io, service_fn(grpc)).await
    } else {
        let builder = http1::Builder::new();
        builder.serve_connection(io, service_fn(http)).await
    };
}

async fn http(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    request.into_body().collect().await?;
    Ok(Response::new(Full::default()))
}

async fn grpc(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    request.into_body().collect().await?;
    Ok(grpc_ok(&[]))
}

struct SlowStream {
    stream: TcpStream,
    link: Arc<Link>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for SlowStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let mut turn = [0; TURN];
        let mut whole = ReadBuf::new(&mut turn);
        let mut part = whole.take(buffer.remaining());
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
        let bytes = part.filled().len();
        buffer.put_slice(part.filled());
        if bytes > 0 {
            let free = self.link.take(bytes);
            self.pause = Some(Box::pin(sleep_until(free)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SlowStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
