//! The cluster: nodes, namespaces, workloads and `OtelAgent`s.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use otelagent_api::{OtelAgent, OtelAgentStatus};
use serde_json::{Value, json};
use testbed::Bed;

use crate::{Args, Outcome};

pub(crate) const PLATFORM: &str = "otelagent-system";
/// `OtelAgent`s of node modes; each of their agent workloads has a pod on every node.
pub(crate) const NODE_AGENTS: usize = 4;
/// Two cores make some 30 pods a second ready; a hundred thousand take about an hour.
const FILLED_WITHIN: Duration = Duration::from_hours(3);
/// Requests of the benchmark at a time.
const AT_ONCE: usize = 8;

pub(crate) struct World {
    pub(crate) bed: Bed,
    pub(crate) client: Client,
}

impl World {
    /// Control plane, nodes, and the installation but for the operator's Deployment.
    pub(crate) async fn start(args: &Args) -> Outcome<Self> {
        let builder = Bed::builder()
            .name("bench-scale")
            .simulated_nodes(args.nodes)
            .audit(true)
            .apiserver_arg("--audit-log-maxsize=100000")
            .controller_manager_arg("--concurrent-deployment-syncs=20")
            .controller_manager_arg("--concurrent-replicaset-syncs=20")
            .controller_manager_arg("--kube-api-qps=1000")
            .controller_manager_arg("--kube-api-burst=2000");
        let bed = tokio::task::spawn_blocking(move || builder.start()).await??;
        let world = Self::of(bed).await?;
        world.install()?;
        Ok(world)
    }

    /// A world that is there already.
    pub(crate) async fn attach(name: &str) -> Outcome<Self> {
        Self::of(Bed::attach(name)?).await
    }

    async fn of(bed: Bed) -> Outcome<Self> {
        let config = Config::from_custom_kubeconfig(
            Kubeconfig::read_from(bed.kubeconfig())?,
            &KubeConfigOptions::default(),
        )
        .await?;
        Ok(Self {
            client: Client::try_from(config)?,
            bed,
        })
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> Outcome<String> {
        let output = self.bed.kubectl().args(args).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?.trim().to_owned());
        }
        Err(format!(
            "kubectl {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
        .into())
    }

    fn install(&self) -> Outcome<()> {
        self.apply("manifests/default")?;
        // It runs as a process beside the bed instead.
        self.kubectl(&["delete", "deployment", "otelagent-operator", "-n", PLATFORM])?;
        Ok(())
    }

    /// Applies a kustomization of the repository.
    pub(crate) fn apply(&self, what: &str) -> Outcome<()> {
        let manifests = demo::repository().join(what);
        let apply = [
            "apply",
            "--server-side",
            "-k",
            &manifests.display().to_string(),
        ];
        // Objects of a kind that was made a moment ago may need a second try.
        for _ in 0..5 {
            if self.kubectl(&apply).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        self.kubectl(&apply)?;
        Ok(())
    }

    pub(crate) async fn create_agents(&self, args: &Args) -> Outcome<()> {
        for number in 0..args.agents {
            let (namespace, object) = agent(number);
            let api: Api<OtelAgent> = Api::namespaced(self.client.clone(), &namespace);
            api.create(&PostParams::default(), &serde_json::from_value(object)?)
                .await?;
        }
        self.until_serving(args).await
    }

    async fn until_serving(&self, args: &Args) -> Outcome<()> {
        let api: Api<OtelAgent> = Api::all(self.client.clone());
        let begun = Instant::now();
        loop {
            let all = api.list(&ListParams::default()).await?;
            let serving = all.iter().filter(|agent| is_ready(agent)).count();
            if serving == args.agents {
                return Ok(());
            }
            if begun.elapsed() > FILLED_WITHIN {
                let not: Vec<String> = all
                    .iter()
                    .filter(|agent| !is_ready(agent))
                    .take(3)
                    .map(|agent| format!("{:?} {:?}", agent.metadata.name, agent.status))
                    .collect();
                return Err(format!("{serving} of {} serve: {not:#?}", args.agents).into());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(crate) async fn create_namespaces(&self, args: &Args) -> Outcome<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let sidecars = args.agents.saturating_sub(NODE_AGENTS);
        stream::iter(0..args.namespaces)
            .map(|number| {
                let api = api.clone();
                async move {
                    let name = namespace(number);
                    // The first ones have a sidecar agent of their own.
                    let tier = match number.checked_sub(sidecars) {
                        None => "sidecar".to_owned(),
                        Some(rest) => format!("node-{}", rest % NODE_AGENTS),
                    };
                    let object = json!({"metadata": {"name": name, "labels": {"tier": tier}}});
                    api.create(&PostParams::default(), &serde_json::from_value(object)?)
                        .await?;
                    Outcome::Ok(())
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    /// Two Deployments in every namespace: one whose pods are selected, one whose pods are not.
    pub(crate) async fn create_workloads(&self, args: &Args) -> Outcome<()> {
        let agents = NODE_AGENTS.min(args.agents) * usize::from(args.nodes);
        let per_namespace = args.pods.saturating_sub(agents) / args.namespaces;
        let others = per_namespace / 4;
        for number in 0..args.namespaces {
            let api: Api<Deployment> = Api::namespaced(self.client.clone(), &namespace(number));
            for (name, replicas) in [("cart", per_namespace - others), ("batch", others)] {
                let object = serde_json::from_value(deployment(name, replicas))?;
                api.create(&PostParams::default(), &object).await?;
            }
        }
        let wanted = per_namespace * args.namespaces + agents;
        let begun = Instant::now();
        loop {
            let running = self.count_running().await?;
            if running >= wanted {
                return Ok(());
            }
            if begun.elapsed() > FILLED_WITHIN {
                return Err(format!("{running} of {wanted} pods run").into());
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    async fn count_running(&self) -> Outcome<usize> {
        let mut running = 0;
        let deployments: Api<Deployment> = Api::all(self.client.clone());
        for object in deployments.list(&ListParams::default()).await? {
            running += object
                .status
                .and_then(|status| status.ready_replicas)
                .unwrap_or_default();
        }
        let daemon_sets: Api<DaemonSet> = Api::all(self.client.clone());
        for object in daemon_sets.list(&ListParams::default()).await? {
            running += object.status.map_or(0, |status| status.number_ready);
        }
        Ok(usize::try_from(running)?)
    }

    /// Agents ready of an object's agent workload in a mode, by the suffix of the agent workload's name.
    pub(crate) async fn ready_agents(&self, workload: &str) -> Outcome<i32> {
        let api: Api<DaemonSet> = Api::namespaced(self.client.clone(), PLATFORM);
        let found = api.get_opt(workload).await?;
        Ok(found
            .and_then(|object| object.status)
            .map_or(0, |status| status.number_ready))
    }

    pub(crate) async fn agent_status(&self, name: &str) -> Outcome<OtelAgentStatus> {
        let api: Api<OtelAgent> = Api::namespaced(self.client.clone(), PLATFORM);
        Ok(api.get(name).await?.status.unwrap_or_default())
    }

    pub(crate) async fn switch(&self, name: &str, mode: &str) -> Outcome<i64> {
        let patch = json!({"spec": {"mode": mode}});
        let api: Api<OtelAgent> = Api::namespaced(self.client.clone(), PLATFORM);
        let patched = api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(patched.metadata.generation.unwrap_or_default())
    }
}

pub(crate) fn namespace(number: usize) -> String {
    format!("shop-{number}")
}

fn is_ready(agent: &OtelAgent) -> bool {
    agent.status.as_ref().is_some_and(|status| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// Namespace and manifest of an `OtelAgent`.
fn agent(number: usize) -> (String, Value) {
    let modes = ["NodeLocal", "NodeLocal", "HostPort", "HostNetwork"];
    let selects = json!({"matchLabels": {"app": "cart"}});
    let (place, mode, workloads) = match modes.get(number) {
        Some(mode) => (
            PLATFORM.to_owned(),
            *mode,
            json!({
                "namespaceSelector": {"matchLabels": {"tier": format!("node-{number}")}},
                "podSelector": selects,
            }),
        ),
        None => (
            namespace(number - modes.len()),
            "Sidecar",
            json!({"podSelector": selects}),
        ),
    };
    // Node ports of one node must not meet.
    let port = 20_000 + 10 * (number % modes.len());
    let object = json!({
        "apiVersion": "otelagent.dev/v1alpha1",
        "kind": "OtelAgent",
        "metadata": {"name": format!("agent-{number}"), "namespace": place},
        "spec": {
            "mode": mode,
            "ports": {"grpc": port, "http": port + 1},
            "export": {"endpoint": "http://collector.example:4317"},
            "workloads": workloads,
        },
    });
    (place, object)
}

/// Labels and spec of pods; those of `cart` are selected, others are not.
pub(crate) fn pod_template(app: &str) -> Value {
    let environment = json!([{"name": "A", "value": "b"}]);
    json!({
        "metadata": {"labels": {"app": app, "team": "shop", "version": "1"}},
        "spec": {"containers": [{"name": "main", "image": "app:1", "env": environment}]},
    })
}

fn deployment(name: &str, replicas: usize) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template(name),
        },
    })
}
