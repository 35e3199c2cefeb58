//! Clients that send spans over OTLP/HTTP at a steady rate, one connection each, as SDKs do. Must not
//! know who takes them.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http;

/// Spans of one request.
const SPANS: u32 = 20;

/// A client that was refused or cut off waits this long.
const BREATH: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
}

/// Running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// `rate` spans a second together.
    pub(crate) fn start(agent: SocketAddr, clients: u32, rate: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let pause = Duration::from_secs(1) * SPANS * clients / rate.max(1);
        let threads = (0..clients)
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || client(number, agent, pause, &shared))
            })
            .collect();
        Self { shared, threads }
    }

    /// Spans in requests that were taken.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Requests that were not.
    pub(crate) fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Ends once every open request is answered; spans in requests that were taken.
    pub(crate) fn stop(self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.shared.acknowledged.load(Ordering::Relaxed)
    }
}

fn client(number: u32, agent: SocketAddr, pause: Duration, shared: &Shared) {
    let mut connection = None;
    let mut seed = u64::from(number) + 1;
    let mut due = Instant::now() + pause * number / 8;
    while !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += pause;
        let body = request(&mut seed);
        if let Ok(true) = exchange(agent, &mut connection, &body) {
            let spans = u64::from(SPANS);
            shared.acknowledged.fetch_add(spans, Ordering::Relaxed);
        } else {
            connection = None;
            shared.refused.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(BREATH);
            due = Instant::now();
        }
    }
}

type Connection = io::BufReader<std::net::TcpStream>;

/// Whether the request was taken.
fn exchange(
    agent: SocketAddr,
    connection: &mut Option<Connection>,
    body: &[u8],
) -> io::Result<bool> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => http::connect(agent)?,
    };
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: agent\r\ncontent-type: application/x-protobuf\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .get_mut()
        .write_all(&[head.as_bytes(), body].concat())?;
    let answer = http::read(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let goes_on = answer
        .headers
        .get("connection")
        .is_none_or(|value| value != "close");
    *connection = goes_on.then_some(stream);
    Ok(answer.first.contains(" 200"))
}

/// An `ExportTraceServiceRequest` of one service. All lengths are below 2^14.
fn request(seed: &mut u64) -> Vec<u8> {
    let mut spans = Vec::new();
    for _ in 0..SPANS {
        field(2, &span(seed), &mut spans);
    }
    let mut resource = Vec::new();
    field(1, &attribute("service.name", "shop"), &mut resource);
    let mut entry = Vec::new();
    field(1, &resource, &mut entry);
    field(2, &spans, &mut entry);
    let mut request = Vec::new();
    field(1, &entry, &mut request);
    request
}

fn span(seed: &mut u64) -> Vec<u8> {
    let routes = ["/cart", "/checkout", "/product/{id}", "/search"];
    let route = routes.get(usize::try_from(random(seed) % 4).unwrap_or(0));
    let route = route.copied().unwrap_or("/");
    let mut span = Vec::new();
    let trace = [random(seed).to_be_bytes(), random(seed).to_be_bytes()].concat();
    field(1, &trace, &mut span);
    field(2, &(random(seed) | 1).to_be_bytes(), &mut span);
    field(5, format!("GET {route}").as_bytes(), &mut span);
    // Kind: server. Then start and end, 64 bits each.
    span.extend([0x30, 2]);
    let start = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let start = u64::try_from(start.as_nanos()).unwrap_or_default();
    span.push(0x39);
    span.extend(start.to_le_bytes());
    span.push(0x41);
    span.extend((start + random(seed) % 50_000_000).to_le_bytes());
    for (key, value) in [
        ("http.request.method", "GET"),
        ("http.route", route),
        ("url.scheme", "https"),
        ("server.address", "shop.example"),
        ("http.response.status_code", "200"),
    ] {
        field(9, &attribute(key, value), &mut span);
    }
    span
}

fn attribute(key: &str, value: &str) -> Vec<u8> {
    let mut any = Vec::new();
    field(1, value.as_bytes(), &mut any);
    let mut attribute = Vec::new();
    field(1, key.as_bytes(), &mut attribute);
    field(2, &any, &mut attribute);
    attribute
}

/// A field with a length (wire type 2).
fn field(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    let [low, high] = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
    if bytes.len() < 0x80 {
        out.push(low);
    } else {
        out.extend([low | 0x80, high << 1 | low >> 7]);
    }
    out.extend_from_slice(bytes);
}

/// Good enough for ids: a multiplicative generator and its upper bits.
fn random(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed ^ *seed >> 33
}
