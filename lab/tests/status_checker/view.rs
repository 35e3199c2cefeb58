//! What kubectl shows of a cluster, as far as the status of one `OtelAgent` depends on it.

use kube::Client;
use otelagent_api::Mode;
use otelagent_core::names;
use serde_json::{Value, json};

use super::read::{is_finished, is_live, is_ready, is_terminating, label, list, text};

/// Namespace of the operator, which injection never touches.
pub(super) const OPERATOR_NAMESPACE: &str = "otelagent-system";
/// Where dry-run pods ask what the active injection does.
const CANARY_NAMESPACE: &str = "otelagent-canary";

/// One `OtelAgent`, and the cluster around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClusterView {
    /// The `OtelAgent` whose status is checked.
    pub(super) agent: Value,
    /// Every `OtelAgent`, this one included.
    pub(super) agents: Vec<Value>,
    pub(super) pods: Vec<Value>,
    pub(super) nodes: Vec<Value>,
    pub(super) namespaces: Vec<Value>,
    pub(super) daemon_sets: Vec<Value>,
    pub(super) services: Vec<Value>,
    pub(super) policies: Vec<Value>,
    pub(super) bindings: Vec<Value>,
    /// Webhook configurations.
    pub(super) webhooks: Vec<Value>,
    /// Limit ranges and resource quotas.
    pub(super) limits: Vec<Value>,
    /// What `kubectl create --dry-run=server` returns for pods that this `OtelAgent` should inject.
    pub(super) new_pods: Vec<Value>,
}

impl ClusterView {
    /// Reads the cluster.
    ///
    /// # Errors
    /// If that fails, or the `OtelAgent` does not exist.
    pub(crate) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Self, String> {
        let admission = async |kind: &str| {
            list(
                client,
                &format!("/apis/admissionregistration.k8s.io/v1/{kind}"),
            )
            .await
        };
        let agents = list(client, "/apis/otelagent.dev/v1alpha1/otelagents").await?;
        let agent = agents.iter().find(|agent| {
            agent["metadata"]["namespace"] == namespace && agent["metadata"]["name"] == name
        });
        let agent = agent.ok_or_else(|| format!("no OtelAgent {namespace}/{name}"))?;
        let mut limits = list(client, "/api/v1/limitranges").await?;
        limits.extend(list(client, "/api/v1/resourcequotas").await?);
        let mut view = Self {
            agent: agent.clone(),
            agents,
            pods: list(client, "/api/v1/pods").await?,
            nodes: list(client, "/api/v1/nodes").await?,
            namespaces: list(client, "/api/v1/namespaces").await?,
            daemon_sets: list(client, "/apis/apps/v1/daemonsets").await?,
            services: list(client, "/api/v1/services").await?,
            policies: admission("mutatingadmissionpolicies").await?,
            bindings: admission("mutatingadmissionpolicybindings").await?,
            webhooks: admission("mutatingwebhookconfigurations").await?,
            limits,
            new_pods: Vec::new(),
        };
        view.new_pods = view.create_by_dry_run(client).await?;
        Ok(view)
    }

    /// Pods created now: one that asks for this `OtelAgent`'s injection in the canary namespace, and one of a
    /// selected namespace. The first is refused only for want of injection (`onInjectionFailure: Fail`), and is then
    /// `Null`. The second may be refused for reasons of its namespace, which tells nothing.
    async fn create_by_dry_run(&self, client: &Client) -> Result<Vec<Value>, String> {
        let canary = json!({names::LABEL_CANARY: self.label()});
        let mut created = vec![
            create_by_dry_run(client, CANARY_NAMESPACE, &canary)
                .await?
                .unwrap_or_default(),
        ];
        if let Some((namespace, labels)) = self.example() {
            created.extend(create_by_dry_run(client, &namespace, &labels).await?);
        }
        Ok(created)
    }

    /// The value that names the checked `OtelAgent` in labels.
    pub(super) fn label(&self) -> String {
        agent_label(&self.agent)
    }

    /// The mode the spec asks for.
    pub(super) fn wanted(&self) -> &str {
        text(&self.agent, "/spec/mode")
    }

    /// Live pods that are injected for an `OtelAgent` that does not exist. Their telemetry goes to an agent that
    /// nothing keeps alive.
    pub(crate) fn orphaned(&self) -> Vec<&Value> {
        let known: Vec<String> = self.agents.iter().map(agent_label).collect();
        let live = self.pods.iter().filter(|pod| is_live(pod));
        live.filter(|pod| {
            label(pod, names::LABEL_AGENT)
                .is_some_and(|agent| !known.iter().any(|known| known == agent))
        })
        .collect()
    }

    /// The agent workload of a mode on nodes, unless it is being deleted or is another user's.
    pub(super) fn daemon_set(&self, mode: &str) -> Option<&Value> {
        self.own_daemon_sets()
            .find(|set| label(set, names::LABEL_WORKLOAD) == Some(mode))
    }

    /// Every agent workload on nodes that is not being deleted.
    pub(super) fn own_daemon_sets(&self) -> impl Iterator<Item = &Value> {
        self.daemon_sets
            .iter()
            .filter(|object| self.owns(object) && !is_terminating(object))
    }

    /// The Service of mode `NodeLocal`, which has the name of the `OtelAgent`.
    pub(super) fn service(&self) -> Option<&Value> {
        let name = &self.agent["metadata"]["name"];
        let mut all = self.services.iter();
        all.find(|object| object["metadata"]["name"] == *name && self.owns(object))
    }

    /// Whether another user's object has a name that an agent workload or the Service needs.
    pub(super) fn has_taken_name(&self) -> bool {
        let name = text(&self.agent, "/metadata/name");
        let names = Mode::ALL.map(|mode| names::agent_workload(name, mode.kebab()));
        self.daemon_sets
            .iter()
            .chain(&self.services)
            .filter(|object| object["metadata"]["namespace"] == self.agent["metadata"]["namespace"])
            .filter(|object| !self.owns(object))
            .any(|object| {
                let found = text(object, "/metadata/name");
                found == name || names.iter().any(|needed| needed == found)
            })
    }

    fn owns(&self, object: &Value) -> bool {
        object["metadata"]["namespace"] == self.agent["metadata"]["namespace"]
            && label(object, names::LABEL_OWNER) == Some(&self.label())
    }

    /// Pods of the agent on nodes, in one mode.
    pub(super) fn agent_pods(&self, mode: &str) -> Vec<&Value> {
        let is_of_mode = |pod: &&Value| {
            self.owns(pod) && label(pod, names::LABEL_WORKLOAD) == Some(mode) && !is_finished(pod)
        };
        self.pods.iter().filter(is_of_mode).collect()
    }

    /// Nodes on which an agent of a mode is ready, each once.
    pub(super) fn covered_nodes(&self, mode: &str) -> Vec<&str> {
        let mut ready = self.agent_pods(mode);
        ready.retain(|pod| is_ready(pod) && !is_terminating(pod));
        nodes_of(&ready)
    }

    /// Nodes that are up and have an agent of a mode, none of which is ready.
    pub(super) fn silent_nodes(&self, mode: &str) -> Vec<&str> {
        let covered = self.covered_nodes(mode);
        let is_up = |name: &str| {
            let mut nodes = self.nodes.iter();
            nodes.any(|node| node["metadata"]["name"] == name && is_ready(node))
        };
        let mut nodes = nodes_of(&self.agent_pods(mode));
        nodes.retain(|node| is_up(node) && !covered.contains(node));
        nodes
    }

    /// Nodes that may be without a ready agent: `switchover.maxUnready`, a count or a percentage, rounded down.
    pub(super) fn tolerated_nodes(&self, desired: usize) -> usize {
        let tolerated = &self.agent["spec"]["switchover"]["maxUnready"];
        let number = |text: &str| text.parse::<usize>().unwrap_or_default();
        match tolerated.as_str() {
            None => number(&tolerated.to_string()),
            Some(text) => match text.strip_suffix('%') {
                Some(percent) => desired * number(percent) / 100,
                None => number(text),
            },
        }
    }

    /// Whether a pod is an agent that a `DaemonSet` of some `OtelAgent` runs: no application.
    pub(super) fn is_agent(&self, pod: &Value) -> bool {
        let owner = controller(pod);
        !owner.is_null()
            && self.daemon_sets.iter().any(|set| {
                set["metadata"]["uid"] == owner["uid"] && label(set, names::LABEL_OWNER).is_some()
            })
    }
}

/// The nodes on which pods are, each once.
pub(super) fn nodes_of<'a>(pods: &[&'a Value]) -> Vec<&'a str> {
    distinct(pods.iter().map(|pod| text(pod, "/spec/nodeName")))
}

/// The owner reference of the controller of an object; `Null` where it has none.
pub(super) fn controller(object: &Value) -> &Value {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let mut all = owners.into_iter().flatten();
    all.find(|owner| owner["controller"] == true)
        .unwrap_or(&Value::Null)
}

/// The values that are not empty, each once.
pub(super) fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The value that names an `OtelAgent` in labels.
pub(super) fn agent_label(agent: &Value) -> String {
    names::agent_label(
        text(agent, "/metadata/namespace"),
        text(agent, "/metadata/name"),
    )
}

async fn create_by_dry_run(
    client: &Client,
    namespace: &str,
    labels: &Value,
) -> Result<Option<Value>, String> {
    let restricted = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "status-checker", "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "none", "securityContext": restricted}]},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    let request =
        super::request(http::Method::POST, &path, &pod).map_err(|error| error.to_string())?;
    match client.request(request).await {
        Ok(pod) => Ok(Some(pod)),
        Err(kube::Error::Api(status)) if status.code < 500 => Ok(None),
        Err(error) => Err(format!("{path}: {error}")),
    }
}
