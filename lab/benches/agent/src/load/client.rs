//! One connection to an OTLP receiver: sends encoded requests and says how each was answered. Must
//! not know when or why they are sent.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE};
use http::{Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpSocket;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::Outcome;
use crate::telemetry::{EncodedRequest, Encoding};

/// As SDKs have it by default.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The two transports of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// OTLP/gRPC on HTTP/2 without TLS.
    Grpc,
    /// OTLP/HTTP on HTTP/1.1.
    Http,
}

/// Where to send, and how.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Host and port.
    pub address: SocketAddr,
    /// By gRPC or by HTTP.
    pub transport: Transport,
    /// What the stock's requests are compressed with.
    pub encoding: Encoding,
    /// The sender's address; the system's choice by default.
    pub from: Option<IpAddr>,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Taken.
    Acked,
    /// Not now.
    Refused(String),
    /// No answer: no connection, or it ended, or ten seconds have passed.
    Unanswered(String),
    /// Never.
    Permanent(String),
}

/// A connection that is made when it is needed, and made anew after it has failed.
pub struct Link {
    target: Target,
    uri: Uri,
    headers: HeaderMap,
    connection: Mutex<Option<Connection>>,
}

#[derive(Clone)]
enum Connection {
    Grpc(http2::SendRequest<Full<Bytes>>),
    Http(std::rc::Rc<Mutex<http1::SendRequest<Full<Bytes>>>>),
}

impl Link {
    /// Connects to nothing yet.
    pub fn new(target: Target) -> Outcome<Self> {
        let path = match target.transport {
            Transport::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Transport::Http => "/v1/traces",
        };
        let mut headers = HeaderMap::new();
        let encoding = HeaderValue::from_static(target.encoding.name());
        let compressed = target.encoding != Encoding::Identity;
        match target.transport {
            Transport::Grpc => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(TE, HeaderValue::from_static("trailers"));
                if compressed {
                    headers.insert(HeaderName::from_static("grpc-encoding"), encoding);
                }
            }
            Transport::Http => {
                let kind = HeaderValue::from_static("application/x-protobuf");
                headers.insert(CONTENT_TYPE, kind);
                let host = HeaderValue::from_str(&target.address.to_string())?;
                headers.insert(http::header::HOST, host);
                if compressed {
                    headers.insert(CONTENT_ENCODING, encoding);
                }
            }
        }
        let uri = match target.transport {
            Transport::Grpc => format!("http://{}{path}", target.address).parse()?,
            Transport::Http => path.parse()?,
        };
        Ok(Self {
            target,
            uri,
            headers,
            connection: Mutex::new(None),
        })
    }

    /// Sends one request and waits for its answer.
    pub async fn send(&self, request: &EncodedRequest) -> Reply {
        match timeout(TIMEOUT, self.exchange(request)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                *self.connection.lock().await = None;
                Reply::Unanswered(error.to_string())
            }
            Err(_) => {
                *self.connection.lock().await = None;
                Reply::Unanswered("no answer within 10 s".to_owned())
            }
        }
    }

    async fn exchange(&self, request: &EncodedRequest) -> Outcome<Reply> {
        let body = match self.target.transport {
            Transport::Grpc => request.framed.clone(),
            Transport::Http => request.message(),
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        match self.connected().await? {
            Connection::Grpc(mut sender) => {
                *request.version_mut() = Version::HTTP_2;
                sender.ready().await?;
                of_grpc(sender.send_request(request).await?).await
            }
            Connection::Http(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await?;
                of_http(sender.send_request(request).await?).await
            }
        }
    }

    async fn connected(&self) -> Outcome<Connection> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref() {
            return Ok(connection.clone());
        }
        let socket = match self.target.address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        if let Some(from) = self.target.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(self.target.address).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        let connection = match self.target.transport {
            Transport::Grpc => {
                let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                    .handshake(io)
                    .await?;
                tokio::spawn(driver);
                Connection::Grpc(sender)
            }
            Transport::Http => {
                let (sender, driver) = http1::handshake(io).await?;
                tokio::spawn(driver);
                Connection::Http(std::rc::Rc::new(Mutex::new(sender)))
            }
        };
        *slot = Some(connection.clone());
        Ok(connection)
    }
}

async fn of_grpc(response: Response<Incoming>) -> Outcome<Reply> {
    let (head, body) = response.into_parts();
    let trailers = body.collect().await?.trailers().cloned();
    let headers = trailers.unwrap_or(head.headers);
    let status = headers.get("grpc-status").ok_or("no gRPC status")?;
    let code: u32 = status.to_str()?.parse()?;
    let message = headers
        .get("grpc-message")
        .map(|message| String::from_utf8_lossy(message.as_bytes()).into_owned());
    let summary = format!("gRPC status {code}: {}", message.unwrap_or_default());
    // What the OTLP specification calls retryable; RESOURCE_EXHAUSTED only with RetryInfo.
    Ok(match code {
        0 => Reply::Acked,
        1 | 4 | 10 | 11 | 14 | 15 => Reply::Refused(summary),
        8 if headers.contains_key("grpc-status-details-bin") => Reply::Refused(summary),
        _ => Reply::Permanent(summary),
    })
}

async fn of_http(response: Response<Incoming>) -> Outcome<Reply> {
    let (head, body) = response.into_parts();
    body.collect().await?;
    let summary = format!("HTTP status {}", head.status);
    Ok(match head.status.as_u16() {
        200..=299 => Reply::Acked,
        429 | 502..=504 => Reply::Refused(summary),
        _ => Reply::Permanent(summary),
    })
}
