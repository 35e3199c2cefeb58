//! `otelagent-agent ready`: asks the agent behind a Unix socket or an address whether it is ready.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The time limit of a probe.
const LIMIT: Duration = Duration::from_secs(2);

/// The longest answer that is read, in bytes.
const ANSWER: u64 = 64 * 1024;

/// Where an agent answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Socket(PathBuf),
    Address(String),
}

impl Place {
    /// Nothing if the agent is ready, or why it is not.
    pub(super) fn lacks(&self) -> io::Result<Option<String>> {
        match self {
            Self::Socket(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                ask(stream)
            }
            Self::Address(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream.set_write_timeout(Some(LIMIT))?;
                ask(stream)
            }
        }
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<Option<String>> {
    stream.write_all(b"GET /ready HTTP/1.0\r\nhost: agent\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    Ok((status.split(' ').nth(1) != Some("200")).then(|| problem(&answer)))
}

/// The first of `"problems":["…"]`, which the agent writes without escapes here.
fn problem(answer: &str) -> String {
    let (_, problems) = answer.split_once(r#""problems":[""#).unwrap_or_default();
    match problems.split('"').next() {
        None | Some("") => "not ready".to_owned(),
        Some(first) => first.to_owned(),
    }
}
