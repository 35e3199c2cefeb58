//! HTTP/2 frame by frame, for clients that break its rules (RFC 9113, sections 4 and 6; RFC 7541).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::TRACES;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Never reached by a server that defends itself in time.
const LONG: Duration = Duration::from_secs(20);

/// One frame as it arrived.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header as a literal that no table keeps.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        length(text.len(), 7, 0, &mut bytes);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// An integer of HPACK with a prefix of `bits`.
fn length(value: usize, bits: u32, first: u8, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(first | u8::try_from(value).unwrap());
        return;
    }
    out.push(first | u8::try_from(most).unwrap());
    let mut rest = value - most;
    while rest >= 128 {
        out.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    out.push(u8::try_from(rest).unwrap());
}

/// The headers of an export call, as SDKs send them.
pub fn export_headers() -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", TRACES),
        header(":authority", "agent"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// One connection without any frames of its own.
pub struct Raw(TcpStream);

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connects and opens HTTP/2 with these settings.
    pub async fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::connect(address).await;
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &payload));
        assert!(raw.write(&bytes).await);
        raw
    }

    /// Whether the bytes could be written: the server may have closed, or have stopped reading.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(LONG, self.0.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The same for a server that may stop reading, which it does to defend itself.
    pub async fn write_within(&mut self, time: Duration, bytes: &[u8]) -> bool {
        matches!(timeout(time, self.0.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next frame, or nothing once the connection is closed.
    pub async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        let read = timeout(LONG, self.0.read_exact(&mut head)).await;
        read.unwrap().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        })
    }

    /// Reads until the connection is closed; returns whether a GOAWAY named the error.
    pub async fn read_to_end(&mut self) -> bool {
        let mut went_away = false;
        while let Some(frame) = self.read().await {
            went_away |= frame.kind == GOAWAY && frame.payload[4..8] != [0; 4];
        }
        went_away
    }

    /// Reads until a frame of this kind arrives on this stream; none if the connection is closed first.
    pub async fn read_until(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if (frame.kind, frame.stream) == (kind, stream) {
                return Some(frame);
            }
        }
    }
}
