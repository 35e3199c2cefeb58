//! An `OtelAgent` on simulated nodes whose agents are real processes, each at an address of its own, and the operator as
//! a process. The simulated pods have these addresses, so the operator and Prometheus find the processes by them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use http::Method;
use otelagent_core::names;
use serde_json::{Value, json};

use super::super::cluster::observed_cluster;
use super::super::kubelet::NODES;
use super::super::process::{self, Ended, OperatorProcess};
use super::super::run::{Outcome, Run, send};
use super::super::topology::{ALL, Topology};
use super::traffic::Upstream;
use crate::observe::prometheus::free_port;
use crate::status_checker::{get, list};

/// The mode of the agents.
pub(super) const MODE: Topology = ALL[3];
/// The variables by which each agent has an address and a queue of its own.
const ADDRESS: &str = "STAGE_ADDRESS";
const QUEUE: &str = "STAGE_QUEUE";
const METRICS: u16 = 8888;
const UNLUCKY: &str = "/apis/otelagent.dev/v1alpha1/namespaces/default/otelagents";

/// A real agent in place of a simulated one.
pub(super) struct AgentProcess {
    process: Ended,
    pub(super) address: Ipv4Addr,
    /// The name of its pod.
    pub(super) pod: String,
    folder: PathBuf,
}

impl AgentProcess {
    /// With the configuration that its pod mounts; the directory of its queue is not there yet.
    fn start(pod: &Value, configuration: &str, number: usize) -> Self {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let address = address(number);
        let folder = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.yaml");
        std::fs::write(&file, configuration).unwrap();
        let program = demo::images::program("otelagent-agent").expect("the agent's binary");
        let own = [
            (ADDRESS, address.to_string()),
            (QUEUE, folder.join("queue").display().to_string()),
        ];
        let process = process::agent(&program, &file, own);
        Self {
            process: process.expect("the agent's binary"),
            address,
            pod: name.to_owned(),
            folder,
        }
    }

    /// Makes the directory of its queue.
    pub(super) fn give_disk(&self) {
        std::fs::create_dir(self.folder.join("queue")).unwrap();
    }

    pub(super) fn metrics(&self) -> SocketAddr {
        (self.address, METRICS).into()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        self.process.end();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An address that no other run of this test has. Other tests of this process use smaller numbers.
fn address(number: usize) -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, 100 + u8::try_from(number).unwrap())
}

/// What is observed.
pub(super) struct Stage {
    pub(super) run: Run,
    pub(super) upstream: Upstream,
    pub(super) agents: Vec<AgentProcess>,
    operator: Option<OperatorProcess>,
    kubeconfig: PathBuf,
    /// The port of the operator's metrics.
    pub(super) metrics: u16,
    grpc_and_http: (u16, u16),
}

impl Stage {
    /// Applications first, so that they miss their agent.
    pub(super) async fn set() -> Outcome<Self> {
        let cluster = observed_cluster().await;
        let kubeconfig = tokio::task::spawn_blocking(|| cluster.operator_kubeconfig());
        let kubeconfig = kubeconfig.await.map_err(|error| error.to_string())?;
        let mut run = Run::start_on(cluster).await;
        run.without_controller().await;
        run.applications().await?;
        let mut stage = Self {
            run,
            upstream: Upstream::start().await,
            agents: Vec::new(),
            operator: None,
            kubeconfig,
            metrics: free_port(),
            grpc_and_http: (0, 0),
        };
        stage.start_operator();
        stage.run.create(MODE).await?;
        let export =
            json!({"endpoint": format!("http://{}", stage.upstream.address), "protocol": "http"});
        let buffer = json!({"memory": "4Mi", "disk": {"size": "16Mi"}});
        let config = stage.at_own_addresses().await?;
        let spec = json!({"spec": {"export": export, "buffer": buffer, "config": config}});
        stage.run.patch(&stage.run.path(), &spec).await?;
        stage.run.until_serving(MODE).await?;
        stage.until_updated().await?;
        stage.start_agents().await?;
        stage.show_operator().await?;
        Ok(stage)
    }

    pub(super) fn start_operator(&mut self) {
        let platform = format!("{},default", self.run.namespace);
        let process =
            OperatorProcess::start_with(&self.kubeconfig, &platform, "observed", self.metrics);
        self.operator = Some(process);
    }

    pub(super) fn stop_operator(&mut self) {
        self.operator = None;
    }

    /// Waits until all agents are of the present spec.
    async fn until_updated(&self) -> Outcome<()> {
        self.run
            .until("all agents updated", async || {
                let agent = get(&self.run.admin, &self.run.path()).await?;
                let counts = json!({"desired": NODES, "ready": NODES, "updated": NODES});
                let pods = self.agent_pods().await?.len();
                let done = agent["status"]["agents"] == counts && pods == NODES;
                Ok(done
                    .then_some(())
                    .ok_or_else(|| format!("{pods} pods, {}", agent["status"])))
            })
            .await
    }

    pub(super) fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.run.namespace)
    }

    pub(super) async fn agent_pods(&self) -> Outcome<Vec<Value>> {
        let pods = list(&self.run.admin, &self.pods()).await?.into_iter();
        let is_agent = |pod: &Value| pod["metadata"]["labels"][names::LABEL_OWNER].is_string();
        Ok(pods.filter(is_agent).collect())
    }

    async fn give_address(&self, pod: &str, address: Ipv4Addr) -> Outcome<()> {
        let ip = address.to_string();
        let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
        let path = format!("{}/{pod}/status", self.pods());
        self.run.patch(&path, &status).await
    }

    /// The ports for gRPC, HTTP, metrics and health.
    async fn ports(&self) -> Outcome<[u16; 4]> {
        let spec = get(&self.run.admin, &self.run.path()).await?["spec"].clone();
        Ok(["grpc", "http", "metrics", "health"].map(|name| {
            let port = spec["ports"][name].as_u64().unwrap_or_default();
            u16::try_from(port).unwrap_or_default()
        }))
    }

    /// What makes each agent listen at its own address, with the text that all of them have: they say which text they
    /// run.
    async fn at_own_addresses(&self) -> Outcome<Value> {
        let [grpc, http, metrics, health] = self.ports().await?;
        let at = |port: u16| format!("${{env:{ADDRESS}}}:{port}");
        let prometheus = json!({
            "host": format!("${{env:{ADDRESS}}}"), "port": metrics,
            "without_type_suffix": true, "without_units": true, "without_scope_info": true,
        });
        Ok(json!({
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": at(grpc)}, "http": {"endpoint": at(http)}}}},
            "extensions": {
                "health_check": {"endpoint": at(health)},
                "file_storage": {"directory": format!("${{env:{QUEUE}}}")},
            },
            "service": {"telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": prometheus}}}]}}},
        }))
    }

    /// A real agent for each pod. Only the last one has no disk.
    async fn start_agents(&mut self) -> Outcome<()> {
        let [grpc, http, _, _] = self.ports().await?;
        self.grpc_and_http = (grpc, http);
        let name = names::agent_configuration(&self.run.name, "node-local");
        let path = format!(
            "/api/v1/namespaces/{}/configmaps/{name}",
            self.run.namespace
        );
        let data = get(&self.run.admin, &path).await?["data"].clone();
        for (number, pod) in self.agent_pods().await?.iter().enumerate() {
            let template = &pod["metadata"]["labels"][names::LABEL_TEMPLATE];
            let key = names::configuration_key(template.as_str().unwrap_or_default());
            let text = data[&key].as_str().expect("the pod has a configuration");
            let agent = AgentProcess::start(pod, text, number);
            if number + 1 < NODES {
                agent.give_disk();
            }
            self.give_address(&agent.pod, agent.address).await?;
            self.agents.push(agent);
        }
        Ok(())
    }

    /// Where applications send to an agent.
    pub(super) fn receiver(&self, agent: usize) -> SocketAddr {
        (self.agents[agent].address, self.grpc_and_http.1).into()
    }

    /// A pod that stands for the operator's, by which its process is found.
    async fn show_operator(&self) -> Outcome<()> {
        let port = json!({"name": "metrics", "containerPort": self.metrics});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "operator-0", "labels": {"app.kubernetes.io/name": "otelagent"}},
            "spec": {"containers": [{"name": "operator", "image": "none", "ports": [port]}]},
        });
        send(&self.run.admin, Method::POST, &self.pods(), &pod).await?;
        let path = format!("{}/operator-0", self.pods());
        self.run
            .until("the operator's pod runs", async || {
                let pod = get(&self.run.admin, &path).await?;
                let runs = pod["status"]["phase"] == "Running";
                Ok(runs.then_some(()).ok_or_else(|| pod.to_string()))
            })
            .await?;
        self.give_address("operator-0", Ipv4Addr::LOCALHOST).await
    }

    /// Lets all agents' pods be ready or not.
    pub(super) async fn agents_ready(&self, ready: bool) -> Outcome<()> {
        let status = if ready { "True" } else { "False" };
        let condition = |kind: &str| json!({"type": kind, "status": status});
        let change =
            json!({"status": {"conditions": [condition("ContainersReady"), condition("Ready")]}});
        for agent in &self.agents {
            let path = format!("{}/{}/status", self.pods(), agent.pod);
            self.run.patch(&path, &change).await?;
        }
        Ok(())
    }

    /// An `OtelAgent` in a platform namespace without the Role, which the operator cannot carry out.
    pub(super) async fn make_errors(&self) -> Outcome<()> {
        let unlucky = json!({
            "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": "unlucky"},
            "spec": {"mode": "NodeLocal", "export": {"endpoint": "http://127.0.0.1:1"}},
        });
        let made = send(&self.run.admin, Method::POST, UNLUCKY, &unlucky).await;
        made.map(drop)
    }

    pub(super) async fn end_errors(&self) -> Outcome<()> {
        let path = format!("{UNLUCKY}/unlucky");
        let gone = send(&self.run.admin, Method::DELETE, &path, &Value::Null).await;
        gone.map(drop)
    }

    pub(super) async fn end(mut self) {
        self.stop_operator();
        self.agents.clear();
        self.run.end().await;
    }
}
