//! Agents that answer for real whether they deliver, at addresses of the loopback interface: truly, falsely, with too
//! much, or never.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use otelagent_core::names;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::kubelet::NODES;
use super::run::{Outcome, Run, condition};
use super::topology::{ALL, Topology};
use crate::status_checker::{get, list, mismatches_within};

const HOST_PORT: Topology = ALL[1];
/// Far above a round of questions.
const PATIENCE: Duration = Duration::from_mins(4);

/// How an agent answers.
#[derive(Clone, Copy)]
enum Says {
    Delivers,
    Refused,
    Nothing,
    Drops,
    Megabytes,
    Lies,
}

/// The agents of all nodes.
struct Agents {
    says: Mutex<[Says; NODES]>,
    asked: AtomicUsize,
    port: u16,
}

/// An address that no other run of this test has.
fn address(agent: usize) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, u8::try_from(agent).unwrap() + 1)
}

impl Agents {
    async fn start(says: [Says; NODES]) -> Arc<Self> {
        let first = TcpListener::bind((address(0), 0)).await.unwrap();
        let port = first.local_addr().unwrap().port();
        let mut listeners = vec![first];
        for agent in 1..NODES {
            let at = SocketAddr::from((address(agent), port));
            listeners.push(TcpListener::bind(at).await.unwrap());
        }
        let agents = Arc::new(Self {
            says: Mutex::new(says),
            asked: AtomicUsize::new(0),
            port,
        });
        for (number, listener) in listeners.into_iter().enumerate() {
            let agents = Arc::clone(&agents);
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(Arc::clone(&agents).answer(number, stream));
                }
            });
        }
        agents
    }

    fn say(&self, says: [Says; NODES]) {
        *self.says.lock().unwrap() = says;
    }

    async fn answer(self: Arc<Self>, number: usize, mut stream: TcpStream) {
        let mut request = [0; 1024];
        let read = stream.read(&mut request).await.unwrap_or_default();
        assert!(request[..read].starts_with(b"GET /delivery HTTP/1.1\r\n"));
        self.asked.fetch_add(1, Ordering::Relaxed);
        let says = self.says.lock().unwrap()[number];
        let delivery = |state: &str, error: &str| json!({"otlp_grpc": {"state": state, "seconds": 61, "error": error}});
        let hostile = format!(
            "gRPC status 16: \u{1b}[31mno\n token {}",
            "x".repeat(30_000)
        );
        let (code, body) = match says {
            Says::Delivers => (
                200,
                json!({"status": "delivering", "delivery": delivery("ok", "")}),
            ),
            Says::Refused => (
                503,
                json!({"status": "failing", "delivery": delivery("failing", &hostile)}),
            ),
            Says::Lies => (200, json!({"status": "failing", "delivery": 3})),
            Says::Megabytes => (200, json!("x".repeat(10 << 20))),
            Says::Nothing => return sleep(PATIENCE).await,
            Says::Drops => {
                while stream
                    .write_all(b"HTTP/1.1 200 OK\r\na: b\r\n")
                    .await
                    .is_ok()
                {
                    // Slowness is what this agent answers with; nothing is waited for.
                    sleep(Duration::from_millis(500)).await;
                }
                return;
            }
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {code} Any\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_what_agents_answer_and_is_not_misled_or_written_at_rest() {
    Run::through("agents that are asked whether they deliver", async |run| {
        tell(run).await
    })
    .await;
}

async fn tell(run: &Run) -> Outcome<()> {
    let agents = Agents::start([Says::Nothing, Says::Megabytes, Says::Lies]).await;
    run.create(HOST_PORT).await?;
    let ports = json!({"spec": {"ports": {"health": agents.port}}});
    run.patch(&run.path(), &ports).await?;
    run.until_serving(HOST_PORT).await?;
    let before = get(&run.admin, &run.path()).await?;
    assert_eq!(condition(&before, "Delivering")["reason"], "NotAsked");

    give_addresses(run).await?;
    let said = [
        "3 of 3 agents did not answer",
        "no answer within 2 s (node simulated-1)",
        "an answer of more than 64 KiB (node simulated-2)",
        "no answer of the bundled agent (node simulated-3)",
    ];
    until(run, "Unknown", "NotReachable", &said).await?;

    agents.say([Says::Drops, Says::Delivers, Says::Delivers]);
    let said = [
        "2 of 3 agents deliver; 1 did not answer",
        "node simulated-1",
    ];
    until(run, "True", "Delivering", &said).await?;

    agents.say([Says::Delivers, Says::Delivers, Says::Refused]);
    let said = [
        "1 of 3 agents do not deliver: otlp_grpc: gRPC status 16: [31mno token xxx",
        "(node simulated-3)",
    ];
    until(run, "False", "DeliveryFails", &said).await?;
    let agent = get(&run.admin, &run.path()).await?;
    let message = condition(&agent, "Delivering")["message"]
        .as_str()
        .unwrap_or_default();
    assert!(
        message.len() < 400 && !message.contains(char::is_control),
        "{message}"
    );
    let counts = json!({"asked": 3, "delivering": 2, "idle": 0, "failing": 1, "unanswered": 0});
    assert_eq!(agent["status"]["delivery"], counts);
    run.until("an event of it", async || {
        let events = format!("/apis/events.k8s.io/v1/namespaces/{}/events", run.namespace);
        let events = list(&run.admin, &events).await?;
        let is_there = events
            .iter()
            .any(|event| event["reason"] == "DeliveryFails" && event["type"] == "Warning");
        Ok(is_there.then_some(()).ok_or_else(|| format!("{events:?}")))
    })
    .await?;
    let wrong = mismatches_within(&run.admin, &run.namespace, &run.name, PATIENCE).await?;
    assert!(wrong.is_empty(), "{wrong:#?}");

    let (writes, asked) = (
        run.faults.writes().len(),
        agents.asked.load(Ordering::Relaxed),
    );
    run.until("asked twice more", async || {
        let now = agents.asked.load(Ordering::Relaxed);
        Ok((now >= asked + 2 * NODES)
            .then_some(())
            .ok_or_else(|| format!("{now}")))
    })
    .await?;
    let writes = run.faults.writes().split_off(writes);
    assert!(writes.is_empty(), "nothing has changed: {writes:?}");
    Ok(())
}

/// Agents that run have addresses.
async fn give_addresses(run: &Run) -> Outcome<()> {
    let path = format!("/api/v1/namespaces/{}/pods", run.namespace);
    let pods = list(&run.admin, &path).await?;
    let agents = pods
        .iter()
        .filter(|pod| pod["metadata"]["labels"][names::LABEL_OWNER].is_string());
    for pod in agents {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        let number: usize = node.trim_start_matches("simulated-").parse().unwrap();
        let ip = address(number - 1).to_string();
        let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        run.patch(&format!("{path}/{name}/status"), &status).await?;
    }
    Ok(())
}

/// Waits for the condition, with these parts in its message. On the way it is False only if that is awaited.
async fn until(run: &Run, status: &str, reason: &str, said: &[&str]) -> Outcome<()> {
    run.until(reason, async || {
        let agent = get(&run.admin, &run.path()).await?;
        let found = condition(&agent, "Delivering");
        if status != "False" && found["status"] == "False" {
            return Err(format!("misled: {found}"));
        }
        let message = found["message"].as_str().unwrap_or_default();
        let holds = found["status"] == status
            && found["reason"] == reason
            && said.iter().all(|part| message.contains(part));
        Ok(holds.then_some(()).ok_or_else(|| found.to_string()))
    })
    .await
}
