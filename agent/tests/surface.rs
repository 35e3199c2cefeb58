//! What others can reach and read: the agent's sockets, their answers, its log.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use prost::Message;

use crate::support::agent::{Agent, Setup, get};
use crate::support::client::Grpc;
use crate::support::eventually;
use crate::support::sink::Sink;
use crate::support::telemetry::spans;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Contains a terminal escape and a forged log line.
const HOSTILE: &str = "canary-of-telemetry\u{1b}[31m\n{\"level\":\"ERROR\",\"message\":\"forged\"}";

/// The IPv4 TCP sockets that a process listens on, by the kernel's tables.
fn listens(agent: &Agent) -> BTreeSet<SocketAddr> {
    let of_process = format!("/proc/{}", agent.pid());
    let open: BTreeSet<String> = std::fs::read_dir(format!("{of_process}/fd"))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let table = std::fs::read_to_string(format!("{of_process}/net/{table}")).unwrap();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // State 0A is LISTEN; the tenth field is the inode.
            if fields[3] == "0A" && open.contains(&format!("socket:[{}]", fields[9])) {
                found.insert(address(fields[1]));
            }
        }
    }
    found
}

/// `0100007F:10DD`, as on little-endian machines.
fn address(text: &str) -> SocketAddr {
    let (ip, port) = text.split_once(':').unwrap();
    assert_eq!(ip.len(), 8, "an IPv6 socket: {text}");
    let ip = u32::from_str_radix(ip, 16).unwrap().to_le_bytes();
    let port = u16::from_str_radix(port, 16).unwrap();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port)
}

#[tokio::test]
async fn agent_listens_only_where_configured() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut expected: BTreeSet<SocketAddr> = agent.ports.iter().copied().collect();
    expected.extend([agent.health, agent.metrics]);
    assert_eq!(expected.len(), 4);
    assert_eq!(listens(&agent), expected);
}

#[tokio::test]
async fn metrics_health_and_log_contain_no_telemetry() {
    let sink = Sink::grpc().await;
    let agent = Setup::grpc(sink.address).start();
    let mut client = Grpc::connect(agent.port()).await;
    let message = spans(HOSTILE, 3).encode_to_vec();
    assert_eq!(client.call(EXPORT, &message).await.unwrap().status, 0);
    // One that is refused, with the same words in it.
    let broken = [message.as_slice(), &[0x0a, 0xff]].concat();
    assert_ne!(client.call(EXPORT, &broken).await.unwrap().status, 0);
    eventually("delivered", || sink.spans().len() == 3).await;
    let mut texts = Vec::new();
    for (port, path) in [
        (agent.metrics, "/metrics"),
        (agent.health, "/"),
        (agent.health, "/live"),
        (agent.health, "/ready"),
        (agent.health, "/delivery"),
    ] {
        let (status, body) = get(port, path);
        assert_eq!(status, 200, "{path}");
        texts.push(body);
    }
    // Nothing else is served there.
    for path in [
        "/debug/pprof/",
        "/debug/tracez",
        "/debug/servicez",
        "/config",
    ] {
        assert_eq!(get(agent.metrics, path).0, 404, "{path}");
        assert_eq!(get(agent.health, path).0, 404, "{path}");
    }
    agent.terminate();
    let (code, log) = agent.wait();
    assert_eq!(code, 0);
    texts.extend(log.iter().map(ToString::to_string));
    for text in texts {
        assert!(!text.contains("canary-of-telemetry"), "{text}");
        assert!(!text.contains("forged"), "{text}");
    }
}
