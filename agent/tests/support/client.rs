//! Clients: raw gRPC and HTTP for what SDKs would not send.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// The answer to a gRPC call.
#[derive(Debug)]
pub struct GrpcAnswer {
    pub http_status: u16,
    pub status: u32,
    /// Headers and trailers together.
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One HTTP/2 connection for raw calls.
#[derive(Clone)]
pub struct Grpc(http2::SendRequest<Full<Bytes>>);

impl Grpc {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await.ok()
    }

    /// The same on any stream, for agents that want more than TCP.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, hyper::Error> {
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends bytes that are framed already.
    pub async fn framed(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<GrpcAnswer, hyper::Error> {
        let mut request = Request::post(format!("http://agent{path}")).header("te", "trailers");
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body)).unwrap();
        self.0.ready().await?;
        let (head, body) = self.0.send_request(request).await?.into_parts();
        let collected = body.collect().await?;
        let mut headers = head.headers;
        headers.extend(collected.trailers().cloned().unwrap_or_default());
        let status = headers["grpc-status"].to_str().unwrap().parse().unwrap();
        Ok(GrpcAnswer {
            http_status: head.status.as_u16(),
            status,
            headers,
            body: collected.to_bytes(),
        })
    }

    /// Sends one uncompressed message.
    pub async fn call(&mut self, path: &str, message: &[u8]) -> Result<GrpcAnswer, hyper::Error> {
        self.framed(path, &[], frame(0, message)).await
    }
}

/// gRPC's five bytes before a message.
pub fn frame(compressed: u8, message: &[u8]) -> Vec<u8> {
    let mut framed = vec![compressed];
    framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend(message);
    framed
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// RFC 1950.
pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// RFC 1951.
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The answer to an HTTP/1.1 request.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl HttpAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A hundred equal requests in protobuf, to be sent without waiting for answers.
pub fn hundred(message: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        message.len()
    );
    [head.as_bytes(), message].concat().repeat(100)
}

/// One HTTP/1.1 connection for raw requests.
pub struct Http(Box<dyn Duplex>);

/// What HTTP can be spoken on.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

impl Http {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    pub async fn try_connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).unwrap();
        Some(Self::over(stream))
    }

    /// Connects from another address of this machine, as another sender.
    pub async fn connect_from(own: [u8; 4], address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((own, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// The same on any stream.
    pub fn over(stream: impl Duplex + 'static) -> Self {
        Self(Box::new(stream))
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Whether the connection still took the bytes.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// Begins a request with a body of this length, and waits until the agent has read its head and asks for the
    /// body.
    pub async fn begin(&mut self, path: &str, length: usize) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        );
        self.write(head.as_bytes()).await;
        assert_eq!(self.read().await.map(|answer| answer.status), Some(100));
    }

    /// Reads this many answers without bodies, all successful.
    pub async fn skip(&mut self, many: usize) {
        let mut bytes = Vec::new();
        let mut left = many;
        while left > 0 {
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0);
            while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                assert!(bytes.starts_with(b"HTTP/1.1 200 "));
                bytes.drain(..end + 4);
                left -= 1;
            }
        }
    }

    /// Reads this many answers; returns how many of them were refusals for now.
    pub async fn refused_of(&mut self, many: usize) -> usize {
        let (mut bytes, mut refused) = (Vec::new(), 0);
        for _ in 0..many {
            let (head, end) = loop {
                if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
                    break (head, at + 4);
                }
                assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0);
            };
            let length = head.split("content-length: ").nth(1).unwrap();
            let end = end + length.lines().next().unwrap().parse::<usize>().unwrap();
            while bytes.len() < end {
                assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0);
            }
            bytes.drain(..end);
            let status = head.split(' ').nth(1).unwrap();
            assert!(["200", "503"].contains(&status), "{head}");
            refused += usize::from(status == "503");
        }
        refused
    }

    /// Reads one answer, by its content-length.
    pub async fn read(&mut self) -> Option<HttpAnswer> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if self.0.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let mut body = bytes.split_off(end);
        let head = String::from_utf8(bytes).unwrap();
        let mut answer = HttpAnswer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        while body.len() < length {
            if self.0.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        answer.body = body;
        Some(answer)
    }

    pub async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Option<HttpAnswer> {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: agent\r\ncontent-length: {}\r\n",
            body.len()
        );
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            head.push_str("content-type: application/x-protobuf\r\n");
        }
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        // An agent that refuses a body early may close while it is still being written.
        let _ = self.0.write_all(&request).await;
        self.read().await
    }
}
