//! One `OtelAgent` from its creation to its end with a fault on the way, and the verdict of the status checker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, cluster, platform};
use super::faults::{Faults, Plan, Write};
use super::operator::{Operator, settings};
use super::topology::Topology;
use super::views::{Snapshot, Views};
use crate::status_checker::log::{self, Count};
use crate::status_checker::{end_state, get, list, mismatches_within, request};
use otelagent_operator::controller::Settings;

/// The longest time to wait: far above the half minute for which an older policy is kept.
const PATIENCE: Duration = Duration::from_mins(4);
/// For how long a settled operator must write nothing, per part.
const QUIET: Duration = Duration::from_secs(3);
/// Application pods.
pub(super) const REPLICAS: usize = 2;

/// What happens to the object during a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Story {
    /// It is created.
    Create(Topology),
    /// Its topology changes under running pods, which are restarted once it serves.
    Switch(Topology, Topology),
    /// It is deleted.
    Delete(Topology),
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Create(to) => write!(f, "create {}", to.name),
            Self::Switch(from, to) => write!(f, "{} to {}", from.name, to.name),
            Self::Delete(of) => write!(f, "delete {}", of.name),
        }
    }
}

/// The result of a run without faults.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub(super) end: BTreeMap<String, Value>,
    pub(super) summary: BTreeMap<String, Count>,
    pub(super) writes: Vec<Write>,
}

/// A run under way.
pub(super) struct Run {
    pub(super) cluster: &'static Cluster,
    pub(super) admin: Client,
    pub(super) namespace: String,
    pub(super) name: String,
    ports: (u16, u16),
    pub(super) faults: Faults,
    operator: Operator,
}

pub(super) type Outcome<T> = Result<T, String>;

/// Runs a story, with a fault if one is planned. `Err` describes the failure; `Ok(None)` means that the write
/// never happened.
pub(super) async fn run(
    story: Story,
    plan: Option<Plan>,
    reference: Option<&Reference>,
) -> Outcome<Option<Reference>> {
    let run = Run::start().await;
    let outcome = run.tell(story, plan.clone(), reference).await;
    let met = plan.is_none() || run.faults.met();
    run.end().await;
    outcome.map(|found| met.then_some(found))
}

impl Run {
    /// How long an old route is held.
    pub(super) const HOLD_OLD: &str = "5s";

    pub(super) async fn start() -> Self {
        Self::start_on(cluster().await).await
    }

    /// Tries something on a run and ends that, whatever came of it; skipped where no API server can run.
    pub(super) async fn through(what: &str, tried: impl AsyncFnOnce(&mut Self) -> Outcome<()>) {
        if !testbed::skip_unless_possible(what) {
            return;
        }
        let mut run = Self::start().await;
        let outcome = tried(&mut run).await;
        run.end().await;
        outcome.unwrap();
    }

    /// On another than the cluster that runs share.
    pub(super) async fn start_on(cluster: &'static Cluster) -> Self {
        Self::start_with(cluster, |_| {}).await
    }

    /// With a controller whose settings are changed first.
    pub(super) async fn start_with(
        cluster: &'static Cluster,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let (namespace, name) = (format!("space{number}x"), format!("agent{number}x"));
        let faults = Faults::none(&namespace, &name);
        let admin = cluster.admin().await;
        for (path, object) in platform(&namespace) {
            send(&admin, http::Method::POST, &path, &object)
                .await
                .unwrap();
        }
        // A right takes a moment to be known.
        sleep(Duration::from_millis(500)).await;
        let mut settings = settings(&namespace);
        change(&mut settings);
        Self {
            operator: Operator::start_with(cluster, &namespace, &faults, settings),
            ports: (20_000 + 2 * number, 20_001 + 2 * number),
            cluster,
            admin,
            namespace,
            name,
            faults,
        }
    }

    async fn tell(
        &self,
        story: Story,
        plan: Option<Plan>,
        reference: Option<&Reference>,
    ) -> Outcome<Reference> {
        let spoiled = plan.as_ref().map_or(0, |plan| plan.fault.times());
        let first = match story {
            Story::Create(topology) | Story::Switch(topology, _) | Story::Delete(topology) => {
                topology
            }
        };
        if matches!(story, Story::Create(_)) {
            self.faults.arm(plan.clone());
        }
        self.create(first).await?;
        self.until_serving(first).await?;
        self.applications().await?;
        self.until_settled(first).await?;
        let before = self.faults.writes().len();
        let mut from = if matches!(story, Story::Create(_)) {
            0
        } else {
            before
        };
        let mut last = Some(first);
        match story {
            Story::Create(_) => {}
            Story::Switch(_, to) => {
                self.faults.arm(plan);
                self.want(to).await?;
                self.until_serving(to).await?;
                self.roll().await?;
                self.until_settled(to).await?;
                last = Some(to);
            }
            Story::Delete(_) => {
                self.faults.arm(plan);
                send(
                    &self.admin,
                    http::Method::DELETE,
                    &self.path(),
                    &Value::Null,
                )
                .await?;
                self.until_nothing_is_left().await?;
                last = None;
            }
        }
        let end = self
            .judge(last, reference.map(|reference| &reference.end))
            .await?;
        if let Some(reference) = reference {
            let excess = excess(&reference.summary, &self.summary(), spoiled);
            if !excess.is_empty() {
                return Err(excess.join("\n    "));
            }
        }
        let writes = self.faults.writes();
        from = from.min(writes.len());
        Ok(Reference {
            end,
            summary: self.summary(),
            writes: writes[from..].to_vec(),
        })
    }

    pub(super) async fn end(mut self) {
        self.operator.stop().await;
        let prefix = format!("otelagent.{}.", self.namespace);
        let _ = send(
            &self.admin,
            http::Method::DELETE,
            &self.path(),
            &Value::Null,
        )
        .await;
        for kind in end_state::ADMISSION {
            let path = format!("/apis/admissionregistration.k8s.io/v1/{kind}");
            for object in list(&self.admin, &path).await.unwrap_or_default() {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                if name.starts_with(&prefix) {
                    let path = format!("{path}/{name}");
                    let _ = send(&self.admin, http::Method::DELETE, &path, &Value::Null).await;
                }
            }
        }
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let _ = send(&self.admin, http::Method::DELETE, &path, &Value::Null).await;
        self.cluster.recorder.forget(&self.namespace);
    }

    pub(super) fn path(&self) -> String {
        let (namespace, name) = (&self.namespace, &self.name);
        format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents/{name}")
    }

    fn application(&self) -> String {
        format!(
            "/apis/apps/v1/namespaces/{}/deployments/shop",
            self.namespace
        )
    }

    pub(super) async fn create(&self, topology: Topology) -> Outcome<()> {
        let mut spec = json!({
            "export": {"endpoint": "http://collector.observability.svc:4317"},
            "ports": {"grpc": self.ports.0, "http": self.ports.1},
            "switchover": {"holdOld": Self::HOLD_OLD},
            "workloads": {"podSelector": {"matchLabels": {"app": "shop"}}},
        });
        for (key, value) in topology.spec().as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let agent = json!({
            "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
            "metadata": {"name": self.name}, "spec": spec,
        });
        let path = self.path();
        let path = path.trim_end_matches(&format!("/{}", self.name));
        send(&self.admin, http::Method::POST, path, &agent)
            .await
            .map(drop)
    }

    pub(super) async fn applications(&self) -> Outcome<()> {
        let labels = json!({"app": "shop"});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop"},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "none"}]},
            }},
        });
        let path = self.application();
        let path = path.trim_end_matches("/shop");
        send(&self.admin, http::Method::POST, path, &deployment)
            .await
            .map(drop)
    }

    /// As `kubectl rollout restart` does.
    pub(super) async fn roll(&self) -> Outcome<()> {
        static COUNT: AtomicU16 = AtomicU16::new(0);
        let nth = COUNT.fetch_add(1, Ordering::Relaxed);
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": nth.to_string()});
        let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
        self.patch(&self.application(), &patch).await
    }

    /// As a user changes it.
    pub(super) async fn want(&self, topology: Topology) -> Outcome<()> {
        self.patch(&self.path(), &json!({"spec": topology.spec()}))
            .await
    }

    /// Changes how long an old route is held.
    pub(super) async fn hold_old(&self, time: &str) -> Outcome<()> {
        let spec = json!({"spec": {"switchover": {"holdOld": time}}});
        self.patch(&self.path(), &spec).await
    }

    /// Some application pods, or none.
    pub(super) async fn scale(&self, replicas: usize) -> Outcome<()> {
        self.patch(
            &self.application(),
            &json!({"spec": {"replicas": replicas}}),
        )
        .await
    }

    /// Waits until the status counts that many pods, all of them on the serving route.
    pub(super) async fn until_counted(&self, replicas: usize) -> Outcome<()> {
        self.until("counted", async || {
            let agent = get(&self.admin, &self.path()).await?;
            let pods = &agent["status"]["pods"];
            let is = |key: &str| pods[key].as_u64().unwrap_or_default() == replicas as u64;
            Ok((is("injected") && is("current"))
                .then_some(())
                .ok_or_else(|| agent["status"].to_string()))
        })
        .await
    }

    /// A pod that bears a mode's labels, as an API server gives them that lags behind the cut-over.
    pub(super) async fn late_pod(&self, mode: &str) -> Outcome<()> {
        let owner = otelagent_core::names::agent_label(&self.namespace, &self.name);
        let labels = json!({
            otelagent_core::names::LABEL_AGENT: owner,
            otelagent_core::names::LABEL_MODE: mode,
        });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "none"}]},
        });
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        send(&self.admin, http::Method::POST, &path, &pod)
            .await
            .map(drop)
    }

    /// Ends it.
    pub(super) async fn end_late_pod(&self) -> Outcome<()> {
        let path = format!("/api/v1/namespaces/{}/pods/late", self.namespace);
        send(&self.admin, http::Method::DELETE, &path, &Value::Null)
            .await
            .map(drop)
    }

    /// What the controllers of this run are shown.
    pub(super) fn views(&self) -> &Views {
        &self.faults.views
    }

    /// Lists as a controller lists them, as administrator.
    pub(super) async fn snapshot(&self, kinds: &[&'static str]) -> Outcome<Snapshot> {
        self.views().snapshot(&self.admin, kinds).await
    }

    /// Ends the controller; the caller starts others.
    pub(super) async fn without_controller(&mut self) {
        self.operator.stop().await;
    }

    /// Kills the controller; `meanwhile` happens while there is none.
    pub(super) async fn restart(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.operator.stop().await;
        meanwhile(self);
        self.operator = Operator::start(self.cluster, &self.namespace, &self.faults);
    }

    /// Ends the controller, and starts one with other settings.
    pub(super) async fn restart_with(&mut self, settings: Settings) {
        self.operator.stop().await;
        self.operator = Operator::start_with(self.cluster, &self.namespace, &self.faults, settings);
    }

    pub(super) async fn patch(&self, path: &str, change: &Value) -> Outcome<()> {
        send(&self.admin, http::Method::PATCH, path, change)
            .await
            .map(drop)
    }

    pub(super) async fn until(
        &self,
        what: &str,
        test: impl AsyncFn() -> Outcome<Result<(), String>>,
    ) -> Outcome<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match test().await? {
                Ok(()) => return Ok(()),
                Err(seen) if Instant::now() > end => return Err(format!("never {what}: {seen}")),
                Err(_) => sleep(Duration::from_millis(500)).await,
            }
        }
    }

    pub(super) async fn until_serving(&self, topology: Topology) -> Outcome<()> {
        self.until(&format!("serving {}", topology.name), async || {
            let agent = get(&self.admin, &self.path()).await?;
            let serves = agent["status"]["mode"] == topology.mode
                && agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
                && condition(&agent, "Ready")["reason"] == "Serving";
            Ok(serves
                .then_some(())
                .ok_or_else(|| agent["status"].to_string()))
        })
        .await
    }

    /// One route, one policy, and every application pod on it.
    pub(super) async fn until_settled(&self, topology: Topology) -> Outcome<()> {
        self.until(&format!("settled in {}", topology.name), async || {
            let agent = get(&self.admin, &self.path()).await?;
            let pods = &agent["status"]["pods"];
            let settled = agent["status"]["mode"] == topology.mode
                && agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
                && condition(&agent, "Ready")["reason"] == "Serving"
                && is(&agent, "Switching", "False")
                && pods["injected"] == REPLICAS
                && pods["current"] == REPLICAS;
            let left = self.policies().await?;
            let rolled = self.is_rolled().await?;
            Ok((settled && rolled && left.len() == 1)
                .then_some(())
                .ok_or_else(|| format!("{}, rolled {rolled}, policies {left:?}", agent["status"])))
        })
        .await
    }

    /// Whether the pods that are there are those that `roll` brought, and no others.
    async fn is_rolled(&self) -> Outcome<bool> {
        let application = get(&self.admin, &self.application()).await?;
        let status = &application["status"];
        let pods = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let pods = list(&self.admin, &pods).await?;
        let is_app = |pod: &&Value| pod["metadata"]["labels"]["app"] == "shop";
        Ok(
            status["observedGeneration"] == application["metadata"]["generation"]
                && status["updatedReplicas"] == REPLICAS
                && pods.iter().filter(is_app).count() == REPLICAS,
        )
    }

    /// All objects, without what differs from run to run.
    pub(super) async fn end_state(&self) -> Outcome<BTreeMap<String, Value>> {
        end_state::normalised(&self.admin, &self.namespace, &self.name, Some(self.ports)).await
    }

    pub(super) async fn until_nothing_is_left(&self) -> Outcome<()> {
        self.until("without anything left", async || {
            let found = self.end_state().await?;
            let left: Vec<&String> = found.keys().filter(|key| *key != "injected pods").collect();
            Ok(left
                .is_empty()
                .then_some(())
                .ok_or_else(|| format!("{left:?}")))
        })
        .await
    }

    async fn policies(&self) -> Outcome<Vec<String>> {
        let prefix = format!("otelagent.{}.", self.namespace);
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
        let all = list(&self.admin, path).await?;
        let names = all
            .iter()
            .filter_map(|object| object["metadata"]["name"].as_str());
        Ok(names
            .filter(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .collect())
    }

    fn summary(&self) -> BTreeMap<String, Count> {
        log::summary(&self.cluster.recorder.events(&self.namespace), &self.name)
    }

    /// Everything but the summary: status, quiescence, invariants and the end state `expected`.
    pub(super) async fn judge(
        &self,
        last: Option<Topology>,
        expected: Option<&BTreeMap<String, Value>>,
    ) -> Outcome<BTreeMap<String, Value>> {
        let mut wrong = Vec::new();
        if last.is_some() {
            let found = mismatches_within(&self.admin, &self.namespace, &self.name, PATIENCE);
            wrong.extend(found.await?.iter().map(ToString::to_string));
        }
        wrong.extend(self.disquiet(last.is_some()).await?);
        let end = self.end_state().await?;
        let events = self.cluster.recorder.events(&self.namespace);
        wrong.extend(log::violations(&events, &self.namespace, &self.name, true));
        wrong.extend(self.faults.wrong());
        if let Some(expected) = expected {
            wrong.extend(end_state::differences(expected, &end));
        }
        if wrong.is_empty() {
            Ok(end)
        } else {
            Err(wrong.join("\n    "))
        }
    }

    /// Writes made though there is nothing to do: at rest, after forced reconciles, after a restart.
    async fn disquiet(&self, forced: bool) -> Outcome<Vec<String>> {
        sleep(QUIET).await;
        let from = self.faults.writes().len();
        if forced {
            for number in 0..3 {
                let pods = format!("/api/v1/namespaces/{}/pods", self.namespace);
                for pod in list(&self.admin, &pods).await? {
                    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                    let patch =
                        json!({"metadata": {"annotations": {"test/poke": number.to_string()}}});
                    self.patch(&format!("{pods}/{name}"), &patch).await?;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        let mut another = Operator::start(self.cluster, &self.namespace, &self.faults);
        sleep(QUIET).await;
        another.stop().await;
        let writes = self.faults.writes();
        Ok(writes[from..]
            .iter()
            .map(|write| format!("written at rest: {}", write.key))
            .collect())
    }
}

/// Objects made or removed more often than without faults. A policy may have to be verified again by each
/// reconcile that was spoiled.
fn excess(
    reference: &BTreeMap<String, Count>,
    found: &BTreeMap<String, Count>,
    spoiled: usize,
) -> Vec<String> {
    found
        .iter()
        .filter_map(|(key, found)| {
            let allowed = reference.get(key).copied().unwrap_or_default();
            let again = if key.ends_with("canary") { spoiled } else { 0 };
            (found.made > allowed.made + again || found.removed > allowed.removed + again)
                .then(|| format!("{key}: {found:?}, without faults {allowed:?}"))
        })
        .collect()
}

pub(super) fn is(agent: &Value, kind: &str, status: &str) -> bool {
    condition(agent, kind)["status"] == status
}

/// One condition; `Null` if there is none.
pub(super) fn condition<'a>(agent: &'a Value, kind: &str) -> &'a Value {
    let conditions = agent["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found.unwrap_or(&Value::Null)
}

pub(super) async fn send(
    client: &Client,
    method: http::Method,
    path: &str,
    body: &Value,
) -> Outcome<Value> {
    let request = request(method, path, body).map_err(|error| error.to_string())?;
    client
        .request(request)
        .await
        .map_err(|error| format!("{path}: {error}"))
}
