//! An API server of a few lines, for tests.

use std::sync::{Arc, Mutex};

use kube::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers each request as `answer` says to its first line, and keeps those lines.
pub(super) async fn serve(
    answer: impl Fn(&str) -> String + Clone + Send + 'static,
) -> (Config, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (seen, answer) = (seen.clone(), answer.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..read]);
                    let line = text.lines().next().unwrap().to_owned();
                    let answer = answer(&line);
                    seen.lock().unwrap().push(line);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    (Config::new(uri.parse().unwrap()), requests)
}
