//! The upstream: takes OTLP/HTTP, and counts what is in it. Must not know who sends.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use otlp_wire::{Signal, inspect};

use crate::http;

/// What has arrived.
#[derive(Clone, Copy, Default)]
pub(crate) struct Arrived {
    pub(crate) requests: u64,
    pub(crate) spans: u64,
}

/// A running sink.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    arrived: Arc<Mutex<Arrived>>,
}

impl Sink {
    pub(crate) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let arrived = Arc::new(Mutex::new(Arrived::default()));
        let shared = Arc::clone(&arrived);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                // A connection that breaks is the agent's to replace.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Ok(Self { address, arrived })
    }

    pub(crate) fn arrived(&self) -> Arrived {
        *self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(stream: TcpStream, arrived: &Mutex<Arrived>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(message) = http::read(&mut stream)? {
        let mut request = Vec::new();
        match message.headers.get("content-encoding").map(String::as_str) {
            Some("gzip") => {
                let mut decoder = flate2::read::GzDecoder::new(message.body.as_slice());
                decoder.read_to_end(&mut request)?;
            }
            _ => request = message.body,
        }
        let spans = inspect(Signal::Traces, &request).map_err(io::Error::other)?;
        {
            let mut arrived = arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.requests += 1;
            arrived.spans += spans as u64;
        }
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer)?;
    }
    Ok(())
}
