//! One agent replaces another under load: one of the two answers every request, and none is refused, reset or
//! lost, even for clients that never retry.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use crate::support::agent::{Agent, Setup, get, temporary};
use crate::support::client::{self, Grpc, Http};
use crate::support::sink::{Reply, Sink};
use crate::support::telemetry::spans;
use crate::support::{eventually, eventually_answers};

/// What clients share.
#[derive(Clone)]
struct Load {
    port: SocketAddr,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

/// The result of one client.
#[derive(Default)]
struct Account {
    acknowledged: Vec<String>,
    /// Failed requests, with the reason.
    failed: Vec<String>,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn settle(&self, account: &mut Account, name: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => account.acknowledged.push(format!("{name}-0")),
            Err(why) => account.failed.push(why),
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection for every request.
    async fn ever_new(self, number: usize) -> Account {
        let mut account = Account::default();
        for sequence in 0.. {
            if !self.goes_on() {
                break;
            }
            let name = format!("new{number}-{sequence}");
            let outcome = match Http::try_connect(self.port).await {
                Some(mut http) => post(&mut http, &name).await.map(drop),
                None => Err("not connected".to_owned()),
            };
            self.settle(&mut account, &name, outcome);
        }
        account
    }

    /// One connection until the agent announces its end.
    async fn kept(self, number: usize) -> Account {
        let mut account = Account::default();
        let mut connection = None;
        for sequence in 0.. {
            if !self.goes_on() {
                break;
            }
            let mut http = match connection.take() {
                Some(http) => http,
                None => Http::connect(self.port).await,
            };
            let name = format!("kept{number}-{sequence}");
            let outcome = post(&mut http, &name).await;
            if outcome == Ok(false) {
                connection = Some(http);
            }
            self.settle(&mut account, &name, outcome.map(drop));
        }
        account
    }

    /// gRPC on one connection; like every gRPC library, repeats a call on another connection if the GOAWAY says
    /// that the agent did not begin it.
    async fn grpc(self, number: usize) -> Account {
        let mut account = Account::default();
        let mut grpc = Grpc::connect(self.port).await;
        for sequence in 0.. {
            if !self.goes_on() {
                break;
            }
            let name = format!("grpc{number}-{sequence}");
            let message = spans(&name, 1).encode_to_vec();
            let mut answer = grpc.call(client::TRACES, &message).await;
            let never_left = |error: &hyper::Error| error.is_canceled() || error.is_closed();
            if answer.as_ref().is_err_and(never_left) {
                grpc = Grpc::connect(self.port).await;
                answer = grpc.call(client::TRACES, &message).await;
            }
            let outcome = match answer {
                Ok(answer) if answer.status == 0 => Ok(()),
                Ok(answer) => Err(format!("gRPC status {}", answer.status)),
                Err(error) => Err(format!("{error:?}")),
            };
            self.settle(&mut account, &name, outcome);
        }
        account
    }
}

/// Whether the agent announced the end of the connection.
async fn post(http: &mut Http, name: &str) -> Result<bool, String> {
    let message = spans(name, 1).encode_to_vec();
    let answer = http.post("/v1/traces", &[], &message);
    match tokio::time::timeout(Duration::from_mins(1), answer).await {
        Ok(Some(answer)) if answer.status == 200 => {
            Ok(answer.header("connection") == Some("close"))
        }
        Ok(Some(answer)) => Err(format!("HTTP status {}", answer.status)),
        Ok(None) => Err("reset".to_owned()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// An agent at this port, which it shares with agents of the same owner.
fn of_owner(owner: &str, sink: &Sink, port: SocketAddr) -> Setup {
    Setup::grpc(sink.address)
        .receiver(&format!("grpc: {{endpoint: '{port}'}}"))
        .env("OTELAGENT_REUSE_PORT", owner)
}

fn follower(sink: &Sink, port: SocketAddr) -> Agent {
    of_owner("x.node", sink, port).start()
}

/// The last words of an agent that does not start.
fn refusal(owner: &str, yaml: &str) -> String {
    let file = temporary("config.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut command = Command::new(crate::program());
    command.arg("--config").arg(&file);
    let ended = command.env("OTELAGENT_REUSE_PORT", owner).output().unwrap();
    std::fs::remove_file(file).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let log = String::from_utf8(ended.stderr).unwrap();
    log.lines().last().unwrap_or_default().to_owned()
}

/// Another program of the same user that shares the port, and answers nothing.
fn stranger(port: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(port).unwrap();
    socket.listen(1024).unwrap()
}

const ANY: &str = "127.0.0.1:0";

async fn end(agent: Agent) -> Vec<serde_json::Value> {
    agent.terminate();
    let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    log
}

#[tokio::test]
async fn successive_agents_on_one_port_answer_every_request() {
    let sink = Sink::grpc().await;
    let mut current = follower(&sink, ANY.parse().unwrap());
    let load = Load {
        port: current.port(),
        stop: Arc::default(),
        answered: Arc::default(),
    };
    let mut clients = JoinSet::new();
    for number in 0..4 {
        clients.spawn(load.clone().ever_new(number));
        clients.spawn(load.clone().kept(number));
        clients.spawn(load.clone().grpc(number));
    }
    for _ in 0..4 {
        let before = load.answered.load(Ordering::Relaxed);
        let next = follower(&sink, load.port);
        eventually("both serve", || {
            load.answered.load(Ordering::Relaxed) > before + 200
        })
        .await;
        end(std::mem::replace(&mut current, next)).await;
    }
    load.stop.store(true, Ordering::Relaxed);
    let mut acknowledged = HashSet::new();
    while let Some(account) = clients.join_next().await {
        let account = account.unwrap();
        assert!(account.failed.is_empty(), "{:?}", account.failed);
        acknowledged.extend(account.acknowledged);
    }
    end(current).await;
    let arrived: HashSet<_> = sink.spans().into_iter().collect();
    assert!(acknowledged.len() > 800, "{}", acknowledged.len());
    assert_eq!(acknowledged.difference(&arrived).count(), 0);
}

#[tokio::test]
async fn agent_shares_no_port_with_another_owner_or_program() {
    let sink = Sink::grpc().await;
    let any = ANY.parse().unwrap();
    let first = follower(&sink, any);
    let port = first.port();
    // OTLP, and the ports of health and metrics.
    let yaml = of_owner("x.other", &sink, any).yaml();
    let (health, metrics) = (first.health, first.metrics);
    let taken = [
        (port, of_owner("x.other", &sink, port).yaml()),
        (
            health,
            yaml.replace(
                "health_check: {endpoint: '127.0.0.1:0'",
                &format!("health_check: {{endpoint: '{health}'"),
            ),
        ),
        (
            metrics,
            yaml.replace(
                "host: 127.0.0.1, port: 0",
                &format!("host: 127.0.0.1, port: {}", metrics.port()),
            ),
        ),
    ];
    for (address, yaml) in taken {
        let log = refusal("x.other", &yaml);
        let named = format!("{address}: the agents of `x.node` listen there");
        assert!(log.contains(&named) && log.contains("port_owner"), "{log}");
    }
    // The first is as reachable as before, and shares with its own.
    let second = follower(&sink, port);
    for name in ["a", "b", "c", "d"] {
        let mut http = Http::connect(port).await;
        post(&mut http, name).await.unwrap();
    }
    end(first).await;
    end(second).await;
    assert_eq!(sink.spans().len(), 4);

    let stranger = stranger(any);
    let taken = stranger.local_addr().unwrap();
    let log = refusal("x.node", &of_owner("x.node", &sink, taken).yaml());
    assert!(log.contains("that is no agent of `x.node`"), "{log}");
}

#[tokio::test]
async fn ending_agent_does_not_take_a_stranger_for_its_successor() {
    let sink = Sink::grpc().await;
    let agent = of_owner("x.node", &sink, ANY.parse().unwrap())
        .env("OTELAGENT_SHUTDOWN_GRACE", "120")
        .start();
    // A request that takes its time keeps the agent from closing.
    let body = spans("slow", 1).encode_to_vec();
    let mut slow = Http::connect(agent.port()).await;
    slow.begin("/v1/traces", body.len()).await;
    let _stranger = stranger(agent.port());
    agent.terminate();
    eventually("it drains", || get(agent.health, "/ready").0 == 503).await;
    // The kernel sends about half of the connections to the stranger, which does not answer. Connections are asked
    // to end a moment after the drain has begun; by then an agent with a successor has closed its port.
    eventually_answers(
        "a late request is answered, and its connection ends",
        async || {
            let mut http = Http::connect(agent.port()).await;
            let answer = post(&mut http, "late");
            let answer = tokio::time::timeout(Duration::from_secs(1), answer).await;
            answer.is_ok_and(|answer| answer == Ok(true))
        },
    )
    .await;
    slow.write(&body).await;
    assert_eq!(slow.read().await.unwrap().status, 200);
    end(agent).await;
}

#[tokio::test]
async fn agent_without_successor_serves_new_connections_while_draining() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address)
        .env("OTELAGENT_SHUTDOWN_GRACE", "120")
        .start();
    // A request that takes its time keeps the agent from closing.
    let body = spans("slow", 1).encode_to_vec();
    let mut slow = Http::connect(agent.port()).await;
    slow.begin("/v1/traces", body.len()).await;
    agent.terminate();
    eventually("it drains", || get(agent.health, "/ready").0 == 503).await;
    // Connections are asked to end a moment after the drain has begun.
    let mut late = 0;
    eventually_answers("a request is taken, and its connection ends", async || {
        late += 1;
        let mut http = Http::connect(agent.port()).await;
        post(&mut http, "late").await.unwrap()
    })
    .await;
    let mut grpc = Grpc::connect(agent.port()).await;
    let message = spans("grpc", 1).encode_to_vec();
    assert_eq!(grpc.call(client::TRACES, &message).await.unwrap().status, 0);
    slow.write(&body).await;
    assert_eq!(slow.read().await.unwrap().status, 200);
    let (code, _) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!((code, sink.spans().len()), (0, late + 2));
}

#[tokio::test]
async fn draining_agent_refuses_requests_as_retryable() {
    let sink = Sink::grpc().await;
    sink.always(Some(Reply::Grpc(14, None)));
    let agent = Setup::grpc(sink.address)
        .env("OTELAGENT_SHUTDOWN_GRACE", "60")
        .start();
    let message = spans("kept", 1).encode_to_vec();
    {
        let mut grpc = Grpc::connect(agent.port()).await;
        grpc.call(client::TRACES, &message).await.unwrap();
    }
    agent.terminate();
    let refused = || async {
        let mut http = Http::connect(agent.port()).await;
        let answer = http.post("/v1/traces", &[], &message).await.unwrap();
        (answer.status == 503).then(|| answer.header("retry-after").map(str::to_owned))
    };
    let mut answer = None;
    eventually_answers("a request is refused", async || {
        answer = refused().await;
        answer.is_some()
    })
    .await;
    assert_eq!(answer, Some(Some("1".to_owned())));
    let mut grpc = Grpc::connect(agent.port()).await;
    let refusal = grpc.call(client::TRACES, &message).await.unwrap();
    assert_eq!(refusal.status, 14);
    let shutting_down = "otelagent_refused_requests_total";
    assert!(agent.metric(shutting_down, "reason=\"shutting_down\"") >= 2);
    sink.always(None);
    let (code, log) = tokio::task::spawn_blocking(|| agent.wait()).await.unwrap();
    assert_eq!(code, 0);
    let done = log.iter().find(|line| line["message"] == "done").unwrap();
    assert_eq!(
        (&done["lost"], &done["accepted"]),
        (&0.into(), &done["delivered"])
    );
}
