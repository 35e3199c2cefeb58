//! One HTTP/1.1 exchange at a time: what a scraper, a client and a sink need of it. Must not know
//! telemetry.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(10);

/// The first line of a message, its headers with names in lower case, and its body.
pub(crate) struct Message {
    pub(crate) first: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// A connection with its timeouts set.
pub(crate) fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(BufReader::new(stream))
}

/// Reads one message with a content-length; `None` where the connection ends before it begins.
pub(crate) fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Message>> {
    let mut first = String::new();
    if stream.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok(Some(Message {
        first,
        headers,
        body,
    }))
}

/// Every metric of the agent: the sum of its series.
pub(crate) fn metrics(address: SocketAddr) -> io::Result<HashMap<String, f64>> {
    let mut stream = connect(address)?;
    let request = b"GET /metrics HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n";
    stream.get_mut().write_all(request)?;
    let message = read(&mut stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let text = String::from_utf8_lossy(&message.body).into_owned();
    let mut metrics = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((series, value)) = line.rsplit_once(' ') {
            let name = series.split('{').next().unwrap_or(series);
            *metrics.entry(name.to_owned()).or_insert(0.0) += value.parse().unwrap_or(0.0);
        }
    }
    Ok(metrics)
}
