//! Whether a status says what is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use kube::Client;
use otelagent_core::names;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::read::{get, is_going, is_live, is_ready, label, list, text};

/// Where dry-run pods ask what a binding does.
const CANARY: &str = "otelagent-canary";
/// Namespaces whose pods nobody injects.
const SYSTEM: [&str; 2] = ["kube-system", "otelagent-system"];

/// Something a status says that is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lie(String);

impl fmt::Display for Lie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything one look at the cluster found.
struct Cluster {
    agent: Value,
    rivals: Vec<Value>,
    workloads: Vec<Value>,
    pods: Vec<Value>,
    nodes: BTreeMap<String, bool>,
    namespaces: BTreeMap<String, Value>,
    /// What a pod created now comes out as.
    newborn: Value,
    label: String,
}

/// What the status of one `OtelAgent` says that is not so, at this moment. Caches and counts lag by a
/// second or two: [`truth_within`] waits for that.
///
/// # Errors
/// If the cluster cannot be read.
pub(crate) async fn truth(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Vec<Lie>, String> {
    let cluster = look(client, namespace, name).await?;
    Ok(lies(&cluster))
}

/// The lies that are still told after `patience`; returns as soon as there are none.
///
/// # Errors
/// If the cluster cannot be read.
pub(crate) async fn truth_within(
    client: &Client,
    namespace: &str,
    name: &str,
    patience: Duration,
) -> Result<Vec<Lie>, String> {
    let end = Instant::now() + patience;
    loop {
        let lies = truth(client, namespace, name).await?;
        if lies.is_empty() || Instant::now() > end {
            return Ok(lies);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn look(client: &Client, namespace: &str, name: &str) -> Result<Cluster, String> {
    let agents = list(client, "/apis/otelagent.dev/v1alpha1/otelagents").await?;
    let is_meant = |agent: &Value| {
        text(agent, "/metadata/namespace") == namespace && text(agent, "/metadata/name") == name
    };
    let (mut own, rivals): (Vec<Value>, Vec<Value>) = agents.into_iter().partition(is_meant);
    let agent = own
        .pop()
        .ok_or_else(|| format!("no OtelAgent {namespace}/{name}"))?;
    let label = names::agent_label(namespace, name);
    let workloads = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets");
    let by_name = |object: Value| (text(&object, "/metadata/name").to_owned(), object);
    Ok(Cluster {
        newborn: newborn(client, &label).await?,
        workloads: list(client, &workloads)
            .await?
            .into_iter()
            .filter(|object| self::label(object, names::LABEL_OWNER) == Some(&label))
            .collect(),
        pods: list(client, "/api/v1/pods").await?,
        nodes: list(client, "/api/v1/nodes")
            .await?
            .iter()
            .map(|node| (text(node, "/metadata/name").to_owned(), is_ready(node)))
            .collect(),
        namespaces: list(client, "/api/v1/namespaces")
            .await?
            .into_iter()
            .map(by_name)
            .collect(),
        agent,
        rivals,
        label,
    })
}

/// What the API server makes of a pod that asks for this `OtelAgent`'s binding; by dry run.
async fn newborn(client: &Client, agent: &str) -> Result<Value, String> {
    let restricted = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "oracle-newborn", "labels": {names::LABEL_CANARY: agent}},
        "spec": {"containers": [{"name": "app", "image": "none", "securityContext": restricted}]},
    });
    let request = http::Request::post(format!("/api/v1/namespaces/{CANARY}/pods?dryRun=All"))
        .header("content-type", "application/json")
        .body(pod.to_string().into_bytes())
        .map_err(|error| error.to_string())?;
    match client.request(request).await {
        Ok(pod) => Ok(pod),
        // With `onInjectionFailure: Fail` a pod that is not injected is refused: it is not born.
        Err(kube::Error::Api(status)) if status.code < 500 => {
            get(client, &format!("/api/v1/namespaces/{CANARY}")).await?;
            Ok(Value::Null)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Collects what is not so.
struct Court(Vec<Lie>);

impl Court {
    fn check(&mut self, holds: bool, lie: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Lie(lie()));
        }
    }

    fn equal(&mut self, what: &str, said: &Value, so: i64) {
        let said = said.as_i64().unwrap_or_default();
        self.check(said == so, || format!("{what} says {said}, there are {so}"));
    }
}

fn lies(cluster: &Cluster) -> Vec<Lie> {
    let (agent, status) = (&cluster.agent, &cluster.agent["status"]);
    let mut court = Court(Vec::new());
    court.check(
        status["observedGeneration"] == agent["metadata"]["generation"],
        || {
            format!(
                "observedGeneration {} of generation {}",
                status["observedGeneration"], agent["metadata"]["generation"]
            )
        },
    );
    for kind in ["Accepted", "Ready", "Switching", "Injected"] {
        let condition = condition(status, kind);
        court.check(!condition.is_null(), || format!("no condition {kind}"));
        court.check(
            !text(condition, "/reason").is_empty() && !text(condition, "/message").is_empty(),
            || format!("{kind} gives no reason or no message"),
        );
        court.check(
            condition["observedGeneration"] == agent["metadata"]["generation"],
            || format!("{kind} speaks of another generation"),
        );
    }
    check_serving(cluster, &mut court);
    check_pods(cluster, &mut court);
    check_agents(cluster, &mut court);
    check_switching(cluster, &mut court);
    court.0
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["conditions"].as_array();
    all.and_then(|all| all.iter().find(|condition| condition["type"] == kind))
        .unwrap_or(&Value::Null)
}

fn is_true(status: &Value, kind: &str) -> bool {
    condition(status, kind)["status"] == "True"
}

impl Cluster {
    fn selects(&self) -> bool {
        self.agent["spec"]["workloads"].is_object()
    }

    fn accepted(&self) -> bool {
        is_true(&self.agent["status"], "Accepted")
    }

    /// Mode and recipe of a pod created now.
    fn given(&self) -> Option<(&str, &str)> {
        Some((
            label(&self.newborn, names::LABEL_MODE)?,
            label(&self.newborn, names::LABEL_CONFIG)?,
        ))
    }

    fn workload(&self, mode: &str) -> Option<&Value> {
        self.workloads
            .iter()
            .find(|object| label(object, names::LABEL_WORKLOAD) == Some(mode) && !is_going(object))
    }

    /// How many nodes of a vehicle may be without a ready agent: `spec.switchover.maxUnready`, a count or
    /// percent of those that should have one, rounded down.
    fn may_be_unready(&self, mode: &str) -> usize {
        let desired = self
            .workload(mode)
            .and_then(|object| object["status"]["desiredNumberScheduled"].as_u64())
            .unwrap_or_default();
        let said = match &self.agent["spec"]["switchover"]["maxUnready"] {
            Value::String(text) => match text.strip_suffix('%') {
                Some(percent) => percent
                    .parse()
                    .ok()
                    .map(|percent: u64| desired * percent / 100),
                None => text.parse().ok(),
            },
            other => other.as_u64(),
        };
        said.and_then(|nodes| usize::try_from(nodes).ok())
            .unwrap_or_default()
    }

    /// Agent pods of a mode by node, those that are ready.
    fn agents(&self, mode: &str) -> BTreeMap<&str, bool> {
        let mut nodes: BTreeMap<&str, bool> = BTreeMap::new();
        for pod in &self.pods {
            let node = text(pod, "/spec/nodeName");
            if is_live(pod)
                && label(pod, names::LABEL_OWNER) == Some(&self.label)
                && label(pod, names::LABEL_WORKLOAD) == Some(mode)
                && !node.is_empty()
            {
                *nodes.entry(node).or_default() |= is_ready(pod) && !is_going(pod);
            }
        }
        nodes
    }

    /// Live pods injected by this `OtelAgent`; `going` ones too where asked.
    fn injected(&self, with_going: bool) -> impl Iterator<Item = &Value> {
        self.pods.iter().filter(move |pod| {
            is_live(pod)
                && (with_going || !is_going(pod))
                && label(pod, names::LABEL_AGENT) == Some(&self.label)
        })
    }
}

fn check_serving(cluster: &Cluster, court: &mut Court) {
    let status = &cluster.agent["status"];
    let said = status["mode"].as_str();
    let is_ready = is_true(status, "Ready");
    if cluster.selects() && cluster.accepted() {
        match cluster.given() {
            Some((mode, _)) => court.check(said == Some(mode), || {
                format!("status.mode is {said:?}, a pod created now is given {mode}")
            }),
            None => court.check(!is_ready, || {
                "Ready is true, and a pod created now is not injected".into()
            }),
        }
    }
    if is_true(status, "Injected") && cluster.selects() {
        court.check(cluster.given().is_some(), || {
            "Injected is true, and a pod created now is not".into()
        });
    }
    let Some(mode) = said else {
        court.check(!is_ready, || "Ready is true, and nothing serves".into());
        return;
    };
    court.check(!text(status, "/endpoint").is_empty(), || {
        format!("{mode} serves without an endpoint")
    });
    if is_ready && mode != "Sidecar" {
        court.check(cluster.workload(mode).is_some(), || {
            format!("Ready is true, and {mode} has no vehicle")
        });
        let silent: Vec<&str> = cluster
            .agents(mode)
            .into_iter()
            .filter(|(node, ready)| !ready && cluster.nodes.get(*node) == Some(&true))
            .map(|(node, _)| node)
            .collect();
        let tolerated = cluster.may_be_unready(mode);
        court.check(silent.len() <= tolerated, || {
            format!("Ready is true, and {mode} has no ready agent on {silent:?}, which is more than {tolerated}")
        });
    }
}

fn check_pods(cluster: &Cluster, court: &mut Court) {
    let counts = &cluster.agent["status"]["pods"];
    let mut by_mode: BTreeMap<&str, i64> = BTreeMap::new();
    let (mut injected, mut current) = (0, 0);
    for pod in cluster.injected(false) {
        let mode = label(pod, names::LABEL_MODE).unwrap_or_default();
        let born = (mode, label(pod, names::LABEL_CONFIG).unwrap_or_default());
        injected += 1;
        current += i64::from(cluster.given() == Some(born));
        *by_mode.entry(mode).or_default() += 1;
    }
    court.equal("pods.injected", &counts["injected"], injected);
    for (mode, pods) in &by_mode {
        court.equal(
            &format!("pods.byMode.{mode}"),
            &counts["byMode"][*mode],
            *pods,
        );
    }
    let named = counts["byMode"].as_object().into_iter().flatten();
    for (mode, pods) in named {
        if !by_mode.contains_key(mode.as_str()) {
            court.equal(&format!("pods.byMode.{mode}"), pods, 0);
        }
    }
    // With nothing given, or a refused spec in force, what is current cannot be told from here.
    if cluster.selects() && cluster.accepted() {
        if cluster.given().is_some() {
            court.equal("pods.current", &counts["current"], current);
            court.equal("pods.stale", &counts["stale"], injected - current);
        }
        let missed = i64::try_from(missed(cluster)).unwrap_or(i64::MAX);
        court.equal("pods.missed", &counts["missed"], missed);
        court.check(
            missed == 0 || !is_true(&cluster.agent["status"], "Injected"),
            || format!("Injected is true, and {missed} pods were missed"),
        );
    }
}

fn missed(cluster: &Cluster) -> usize {
    let created = |agent: &Value| {
        ["creationTimestamp", "namespace", "name"]
            .map(|key| text(&agent["metadata"], &format!("/{key}")).to_owned())
    };
    let older: Vec<&Value> = cluster
        .rivals
        .iter()
        .filter(|rival| {
            created(rival) < created(&cluster.agent) && is_true(&rival["status"], "Accepted")
        })
        .collect();
    cluster
        .pods
        .iter()
        .filter(|pod| {
            is_live(pod)
                && !is_going(pod)
                && pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null()
                && label(pod, names::LABEL_AGENT).is_none()
                && !SYSTEM.contains(&text(pod, "/metadata/namespace"))
                && selects(&cluster.agent, pod, &cluster.namespaces)
                && !older
                    .iter()
                    .any(|rival| selects(rival, pod, &cluster.namespaces))
        })
        .count()
}

/// Whether the spec of an `OtelAgent` selects a pod.
fn selects(agent: &Value, pod: &Value, namespaces: &BTreeMap<String, Value>) -> bool {
    let workloads = &agent["spec"]["workloads"];
    let namespace = text(pod, "/metadata/namespace");
    let in_namespace = if workloads["namespaceSelector"].is_object() {
        namespaces.get(namespace).is_some_and(|namespace| {
            matches(
                &workloads["namespaceSelector"],
                &namespace["metadata"]["labels"],
            )
        })
    } else {
        namespace == text(agent, "/metadata/namespace")
    };
    workloads.is_object()
        && in_namespace
        && label(pod, names::LABEL_INJECT) != Some("false")
        && matches(&workloads["podSelector"], &pod["metadata"]["labels"])
}

/// A label selector, as the API convention has it.
fn matches(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"]
        .as_object()
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value));
    let expressions = selector["matchExpressions"].as_array();
    equal
        && expressions.into_iter().flatten().all(|expression| {
            let value = &labels[text(expression, "/key")];
            let among = expression["values"]
                .as_array()
                .is_some_and(|values| values.contains(value));
            match text(expression, "/operator") {
                "In" => among,
                "NotIn" => !among,
                "Exists" => !value.is_null(),
                _ => value.is_null(),
            }
        })
}

fn check_agents(cluster: &Cluster, court: &mut Court) {
    let status = &cluster.agent["status"];
    let Some(mode) = status["mode"].as_str() else {
        return;
    };
    if mode == "Sidecar" {
        let carrying = |pod: &&Value| label(pod, names::LABEL_MODE) == Some("Sidecar");
        let ready = |pods: usize| i64::try_from(pods).unwrap_or(i64::MAX);
        let all = cluster.injected(false).filter(carrying).count();
        let up = cluster
            .injected(false)
            .filter(carrying)
            .filter(|pod| is_ready(pod))
            .count();
        court.equal("agents.desired", &status["agents"]["desired"], ready(all));
        court.equal("agents.ready", &status["agents"]["ready"], ready(up));
        return;
    }
    let desired = cluster
        .workload(mode)
        .and_then(|object| object["status"]["desiredNumberScheduled"].as_i64())
        .unwrap_or_default();
    court.equal("agents.desired", &status["agents"]["desired"], desired);
    let ready = cluster
        .agents(mode)
        .values()
        .filter(|ready| **ready)
        .count();
    let ready = i64::try_from(ready).unwrap_or(i64::MAX);
    court.equal("agents.ready", &status["agents"]["ready"], ready);
}

fn check_switching(cluster: &Cluster, court: &mut Court) {
    let status = &cluster.agent["status"];
    if !cluster.accepted() {
        return;
    }
    let wanted = text(&cluster.agent, "/spec/mode");
    let serving = status["mode"].as_str();
    let mut older: BTreeSet<&str> = cluster
        .injected(true)
        .filter_map(|pod| label(pod, names::LABEL_MODE))
        .collect();
    older.extend(
        cluster
            .workloads
            .iter()
            .filter(|object| !is_going(object))
            .filter_map(|object| label(object, names::LABEL_WORKLOAD)),
    );
    older.remove(wanted);
    let under_way = serving != Some(wanted) || !older.is_empty();
    let said = is_true(status, "Switching");
    court.check(said == under_way, || {
        format!(
            "Switching is {said} ({}), {wanted} is wanted, {serving:?} serves, {older:?} stand or are used",
            text(condition(status, "Switching"), "/reason")
        )
    });
}
