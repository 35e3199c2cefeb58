//! One question to one agent.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use otelagent_core::delivery::AgentAnswer;
use tokio::net::TcpStream;

/// Time limit of a question, from its first packet to the end of the answer.
const TIME: Duration = Duration::from_secs(2);
/// Longest answer in bytes; that of an agent has one or two thousand.
const SIZE: usize = 64 * 1024;
/// Longest head of an answer in bytes; hyper takes no less.
const HEAD: usize = 8 * 1024;

/// Asks an agent whether it delivers.
///
/// # Errors
/// Why there is no answer. The text is the same for every agent with the same trouble.
pub(super) async fn ask(agent: SocketAddr) -> Result<AgentAnswer, String> {
    ask_within(TIME, agent).await
}

async fn ask_within(time: Duration, agent: SocketAddr) -> Result<AgentAnswer, String> {
    let asked = tokio::time::timeout(time, exchange(agent)).await;
    let timed_out = |_| format!("no answer within {} s", time.as_secs());
    let (status, body) = asked.map_err(timed_out)??;
    AgentAnswer::read(status, &body)
}

/// The status and the body of the answer.
async fn exchange(agent: SocketAddr) -> Result<(u16, Bytes), String> {
    let stream = TcpStream::connect(agent).await;
    let stream = stream.map_err(|error| in_words(&error))?;
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD).max_headers(50);
    let connected = client.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|_| broken())?;
    let request = Request::get("/delivery")
        .header(HOST, agent.to_string())
        .header(CONNECTION, "close")
        .header(USER_AGENT, "otelagent-operator")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|_| broken())?;
    let answer = async {
        let response = sender.send_request(request).await;
        read(response.map_err(|_| broken())?).await
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

async fn read(response: Response<Incoming>) -> Result<(u16, Bytes), String> {
    let status = response.status().as_u16();
    match Limited::new(response.into_body(), SIZE).collect().await {
        Ok(body) => Ok((status, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(format!("an answer of more than {} KiB", SIZE / 1024))
        }
        Err(_) => Err(broken()),
    }
}

fn broken() -> String {
    "a connection that ends without an answer in HTTP".into()
}

/// Without what differs from time to time, such as numbers of errors.
fn in_words(error: &io::Error) -> String {
    error.kind().to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use otelagent_core::delivery::DeliveryAnswer;

    use super::*;

    /// On a machine that is busy with other tests.
    const PATIENCE: Duration = Duration::from_mins(2);

    /// The address of a server that reads a request and then does this with the connection, once.
    fn server(answer: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            assert!(request.starts_with(b"GET /delivery HTTP/1.1\r\n"));
            answer(stream);
        });
        address
    }

    fn says(text: impl Into<Vec<u8>>) -> SocketAddr {
        let text = text.into();
        server(move |mut stream| {
            let _ = stream.write_all(&text);
        })
    }

    #[tokio::test]
    async fn answer_of_an_agent_is_read() {
        let body = r#"{"status":"delivering","delivery":{"otlp_grpc":{"state":"ok"}}}"#;
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let agent = says(head + body);
        assert_eq!(
            ask_within(PATIENCE, agent).await.map(|said| said.delivery),
            Ok(DeliveryAnswer::Delivers)
        );
    }

    #[tokio::test]
    async fn hostile_answers_end_within_bounds_and_are_named() {
        let megabytes = "x".repeat(20 << 20);
        let head = "HTTP/1.1 200 OK\r\n";
        for (agent, expected) in [
            (
                says(format!("{head}\r\n{megabytes}")),
                "an answer of more than 64 KiB",
            ),
            (
                says(format!("{head}a: {megabytes}")),
                "ends without an answer",
            ),
            (says("SSH-2.0-x\r\n"), "ends without an answer"),
            (says(""), "ends without an answer"),
            (
                says(format!("{head}content-length: 2\r\n\r\n{{}}")),
                "HTTP status 200, and no answer",
            ),
        ] {
            let why = ask_within(PATIENCE, agent).await.unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[tokio::test]
    async fn silent_and_slow_agents_are_given_up() {
        let silent = server(|mut stream| {
            // Until the other side ends it.
            let _ = stream.read(&mut [0]);
        });
        let slow = server(|mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        for agent in [silent, slow] {
            let why = ask_within(Duration::from_secs(1), agent).await.unwrap_err();
            assert_eq!(why, "no answer within 1 s");
        }
    }

    #[tokio::test]
    async fn refused_connection_is_named_without_numbers() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(
            ask_within(PATIENCE, free).await.unwrap_err(),
            "connection refused"
        );
    }
}
