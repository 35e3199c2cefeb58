//! Answers in the place of the simulated agents when the operator asks whether they deliver: the kernel takes their
//! addresses for its own, and one thread answers for all.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::Outcome;

/// Where agents answer, `spec.ports.health`.
const PORT: u16 = 13133;
/// The addresses of simulated pods and nodes, see the test bed.
const ADDRESSES: [&str; 2] = ["198.18.0.0/15", "100.64.0.0/19"];

/// The agents, until it is dropped.
pub(crate) struct Agents;

impl Agents {
    pub(crate) fn start() -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        let agents = Self;
        for addresses in ADDRESSES {
            route("replace", addresses)?;
        }
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who asks may have gone.
                let _ = answer(stream);
            }
        });
        Ok(agents)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for addresses in ADDRESSES {
            let _ = route("del", addresses);
        }
    }
}

fn route(change: &str, addresses: &str) -> Outcome<()> {
    let words = ["route", change, "local", addresses, "dev", "lo"];
    let status = Command::new("ip").args(words).status()?;
    let done = status.success().then_some(());
    done.ok_or_else(|| format!("ip {words:?}: {status}").into())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 1024];
    let _ = stream.read(&mut request)?;
    let body = r#"{"status":"delivering","delivery":{"otlp_grpc":{"state":"ok","seconds_since_success":1}},"queue":{"traces":{"bytes":0,"capacity":67108864,"oldest_ms":0},"metrics":{"bytes":0,"capacity":67108864,"oldest_ms":0},"logs":{"bytes":0,"capacity":67108864,"oldest_ms":0}},"memory":{"held":0,"limit":88080384}}"#;
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}
