//! Nodes with IPv6 addresses: the endpoint that applications get (RFC 3986, 3.2.2).

use std::time::{Duration, Instant};

use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use super::installed::{self, InstalledOperator, begin};
use super::server::Server;

/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
async fn applications_get_an_ipv6_nodes_address_in_brackets() {
    let Some((bed, server)) = begin("IPv6 nodes on a real API server", "addresses").await else {
        return;
    };
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "six", "labels": {"kubernetes.io/os": "linux"}}});
    let made = server.apply_at("/api/v1/nodes", "six", &node).await;
    assert!(made.is_ok(), "{made:?}");
    let mut reported = node.clone();
    reported["status"] = json!({"addresses": [{"type": "Hostname", "address": "six"},
        {"type": "InternalIP", "address": "fd00::6"}, {"type": "ExternalIP", "address": "10.0.0.6"}]});
    let reported = server
        .apply_at("/api/v1/nodes", "six/status", &reported)
        .await;
    assert!(reported.is_ok(), "{reported:?}");
    let operator = InstalledOperator::start(&bed, InjectionSettings::default()).await;
    for (name, mode, port) in [("port", "HostPort", 4317), ("network", "HostNetwork", 5317)] {
        let agents = "/apis/otelagent.dev/v1alpha1/namespaces/otelagent-system/otelagents";
        let agent = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": name},
            "spec": {"mode": mode, "ports": {"grpc": port, "http": port + 1}, "export": {"endpoint": "http://c.o.svc:4317"},
                "workloads": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}},
                    "podSelector": {"matchLabels": {"app": name}}}}});
        let applied = server.apply_at(agents, name, &agent).await;
        assert!(applied.is_ok(), "{applied:?}");
        let endpoint = format!("http://[$(OTELAGENT_HOST_IP)]:{port}");
        until_given(&server, name, mode, &endpoint).await;
    }
    installed::end(operator, bed).await;
}

async fn until_given(server: &Server, app: &str, mode: &str, endpoint: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "app-", "labels": {"app": app}},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
    let begun = Instant::now();
    loop {
        say_ready(server).await;
        let answer = server.dry_run("shop", &pod).await;
        let env = &answer.body["spec"]["containers"][0]["env"];
        let variables = env.as_array().into_iter().flatten();
        let values: Vec<&Value> = variables
            .filter(|variable| variable["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT")
            .map(|variable| &variable["value"])
            .collect();
        if answer.label("otelagent.dev/mode") == Some(mode) && values == [endpoint] {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{mode}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What the kubelet of that node would say of its agents.
async fn say_ready(server: &Server) {
    let pods = "/api/v1/namespaces/otelagent-system/pods";
    let agents = server.get(pods).await.body["items"].as_array().cloned();
    for agent in agents.unwrap_or_default() {
        let name = agent["metadata"]["name"].as_str().unwrap();
        let status = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let said = server
            .apply_at(pods, &format!("{name}/status"), &status)
            .await;
        assert!(said.is_ok(), "{said:?}");
    }
}
