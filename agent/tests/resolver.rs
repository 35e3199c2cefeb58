//! A resolver that does not answer, in a namespace of the agent's own.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use tokio::time::timeout;

use crate::support::agent::{Agent, Setup, temporary};
use crate::support::client::{self, Grpc};
use crate::support::sink::{Sink, Speaks};
use crate::support::telemetry::spans;
use crate::support::{eventually, skip_unless_root};

/// What an acknowledgement may take on a slow machine. A lookup takes longer.
const SOON: Duration = Duration::from_secs(15);

/// A name server that says nothing until it is told to.
struct MuteServer {
    address: SocketAddr,
    answers: Arc<AtomicBool>,
    /// The queries so far.
    asked: Arc<AtomicUsize>,
}

impl MuteServer {
    fn start() -> Self {
        // Any loopback address will do; others may be taken.
        let socket =
            (1..200).find_map(|last| UdpSocket::bind((format!("127.0.53.{last}"), 53)).ok());
        let socket = socket.unwrap();
        let server = Self {
            address: socket.local_addr().unwrap(),
            answers: Arc::default(),
            asked: Arc::default(),
        };
        let (answers, asked) = (Arc::clone(&server.answers), Arc::clone(&server.asked));
        std::thread::spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, client)) = socket.recv_from(&mut query) {
                asked.fetch_add(1, Ordering::Relaxed);
                if answers.load(Ordering::Relaxed) {
                    let _ = socket.send_to(&answer(&query[..length]), client);
                }
            }
        });
        server
    }
}

/// 127.0.0.1 for a question of type A, and nothing for others.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let question = &query[12..name + 4];
    let is_a = question.ends_with(&[0, 1, 0, 1]);
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(question);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

/// The threads of an agent that look up names.
fn lookups(agent: &Agent) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "resolve").count()
}

#[tokio::test]
async fn mute_resolver_holds_up_no_acknowledgement_and_gathers_no_threads() {
    if !skip_unless_root("a resolver of its own") {
        return;
    }
    for (kind, speaks) in [("otlp_http", Speaks::Http), ("otlp_grpc", Speaks::Grpc)] {
        let server = MuteServer::start();
        let sink = Sink::at("127.0.0.1:0".parse().unwrap(), speaks).await;
        let (resolv_conf, directory) = (temporary("resolv.conf"), temporary("queue"));
        // A query that is not answered is repeated after five seconds.
        let lines = format!(
            "nameserver {}\noptions timeout:5 attempts:5\n",
            server.address.ip()
        );
        std::fs::write(&resolv_conf, lines).unwrap();
        let mut setup = Setup::to_with_timeout(kind, sink.address, "200ms")
            .storage(&directory, "create_directory: true, fsync: true");
        let port = sink.address.port();
        setup.exporter =
            format!("{kind}: {{endpoint: 'http://collector.example.:{port}', timeout: 200ms");
        let began = Instant::now();
        let agent = setup.with_file(&resolv_conf, "/etc/resolv.conf").start();
        let mut grpc = Grpc::connect(agent.port()).await;
        for number in 0..20 {
            let message = spans(&format!("span-{number}"), 1).encode_to_vec();
            let answer = timeout(SOON, grpc.call(client::TRACES, &message)).await;
            assert_eq!(answer.unwrap().unwrap().status, 0);
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(lookups(&agent) <= 1);
        }
        let attempts = || agent.metric("otelagent_exporter_failed_attempts_total", "");
        eventually("attempts go on", || attempts() > 4).await;
        // Two questions of one lookup, and their repetitions.
        let asked = server.asked.load(Ordering::Relaxed);
        let most = 4 + 2 * usize::try_from(began.elapsed().as_secs() / 5).unwrap();
        assert!(asked <= most, "{asked}");
        server.answers.store(true, Ordering::Relaxed);
        eventually("everything arrives", || sink.spans().len() >= 20).await;
        assert_eq!(agent.books("spans"), 0);
        drop(agent);
        let _ = std::fs::remove_dir_all(directory);
        std::fs::remove_file(resolv_conf).unwrap();
    }
}
