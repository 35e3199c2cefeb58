//! The operator is down while everything changes, and comes back; also as another release.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use otelagent_api::Mode;
use otelagent_core::names;
use otelagent_operator::controller::{Controller, InjectionSettings, Settings};
use otelagent_operator::runtime::{Fence, Metrics, client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::creator::mode_of;
use super::world::{
    OutageBed, PATIENCE, PLATFORM, condition, config, is, name_of, pods_path, unplaced, until,
};
use crate::status_checker::log::{Recorder, violations};
use crate::status_checker::{get, list};
use crate::test_scale::is_full;

const AGENT: (&str, &str) = (PLATFORM, "node");
/// Longer than an unused route is held, and than an operator takes to act.
const A_WHILE: Duration = Duration::from_secs(6);
/// Missed while the operator was down: their namespace was selected after they had been created.
const MISSED: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn operator_after_an_outage_reports_changes_and_removes_nothing_used() {
    if !testbed::skip_unless_possible("an outage of the operator") {
        return;
    }
    let world = OutageBed::start("operator").await;
    let ours = json!({"team": "a"});
    for (name, labels) in [("one", &ours), ("two", &json!({})), ("three", &ours)] {
        world.namespace(name, labels.clone()).await;
    }
    let operator = world.operator(&[]);
    let selected = json!({"namespaceSelector": {"matchLabels": ours}});
    let spec = json!({"mode": "NodeLocal", "workloads": selected});
    world.agent(AGENT.0, AGENT.1, spec).await;
    world.until_serving(AGENT, "NodeLocal").await;
    world.deployment("one", "web", 3).await;
    world.deployment("three", "app", 2).await;
    let five = |status: &Value| status["pods"]["current"] == 5;
    world.until_status(AGENT, "five pods", five).await;

    let recorder = Recorder::start(&world.admin);
    drop(operator);
    churn(&world).await;
    let before = running(&world).await;
    assert!(before.len() > 50, "{} pods", before.len());

    let mut operator = world.operator(&[]);
    let status = world
        .until_status(AGENT, "HostPort serves", |status| {
            status["mode"] == "HostPort"
                && is(status, "Ready", "True")
                && status["pods"]["missed"] == MISSED
        })
        .await;
    world.check_status(AGENT).await;
    sleep(A_WHILE).await;
    world.check_status(AGENT).await;
    operator.must_run();
    let injected = condition(&status, "Injected");
    assert_eq!(injected["reason"], "PodsMissed", "{injected}");
    let message = injected["message"].to_string();
    assert!(message.contains("Pod two/early-0: 1"), "{message}");
    let gone = gone(&before, &running(&world).await);
    assert!(gone.is_empty(), "restarted or removed: {gone:?}");
    let wrong = violations(&recorder.events(AGENT.0), AGENT.0, AGENT.1, true);
    assert!(wrong.is_empty(), "{wrong:#?}");
    drop(operator);
    world.end();
}

/// An hour of a cluster: pods and namespaces come, change and go, workloads are restarted, and the
/// spec is edited.
async fn churn(world: &OutageBed) {
    let agent = |spec| world.want(AGENT.0, AGENT.1, spec);
    agent(json!({"workloads": {"flushInterval": "2s"}})).await;
    world.namespace("brief", json!({"team": "a"})).await;
    let pods = if is_full() { 1000 } else { 150 };
    for number in 0..pods {
        let namespace = ["one", "three", "brief"][number % 3];
        let made = world.make(&pods_path(namespace), &unplaced()).await;
        let path = format!("{}/{}", pods_path(namespace), name_of(&made));
        assert_eq!(mode_of(&made).as_deref(), Some("NodeLocal"), "{made}");
        match number % 10 {
            0..6 => world.delete(&path).await,
            6 => {
                let label = json!({"metadata": {"labels": {names::LABEL_INJECT: "false"}}});
                world.patch(&path, &label).await;
            }
            _ => {}
        }
    }
    for number in 0..MISSED {
        let mut early = unplaced();
        early["metadata"] = json!({"name": format!("early-{number}")});
        world.make(&pods_path("two"), &early).await;
    }
    let label = |value: Value| json!({"metadata": {"labels": {"team": value}}});
    world
        .patch("/api/v1/namespaces/two", &label(json!("a")))
        .await;
    world
        .patch("/api/v1/namespaces/three", &label(Value::Null))
        .await;
    // The API server hears of labels by itself, a moment later.
    until("two is selected, three is not", PATIENCE, async || {
        let made = [
            world.make(&pods_path("two"), &unplaced()).await,
            world.make(&pods_path("three"), &unplaced()).await,
        ];
        let given = made.each_ref().map(mode_of);
        let is_so = given == [Some("NodeLocal".to_owned()), None];
        if !is_so {
            for pod in &made {
                let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
                world
                    .delete(&format!("{}/{}", pods_path(namespace), name_of(pod)))
                    .await;
            }
        }
        is_so.then_some(()).ok_or_else(|| format!("{given:?}"))
    })
    .await;
    world.delete("/api/v1/namespaces/brief").await;
    world.roll("one", "web");
    agent(json!({"mode": "Sidecar"})).await;
    agent(json!({"mode": "HostPort", "workloads": {"flushInterval": "1s"}})).await;
    until("without the namespace", PATIENCE, async || {
        let left = get(&world.admin, "/api/v1/namespaces/brief").await?;
        left.is_null().then_some(()).ok_or_else(|| left.to_string())
    })
    .await;
}

/// Uids of all live pods by namespace and name.
async fn running(world: &OutageBed) -> BTreeMap<String, String> {
    let pods = list(&world.admin, "/api/v1/pods").await.unwrap();
    let live = pods
        .iter()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    live.map(|pod| {
        let key = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        (format!("{}/{}", key("namespace"), key("name")), key("uid"))
    })
    .collect()
}

/// Pods that are gone or were replaced.
fn gone<'a>(
    before: &'a BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
) -> BTreeSet<&'a String> {
    let is_gone = |(name, uid): &(&String, &String)| after.get(*name) != Some(*uid);
    before
        .iter()
        .filter(is_gone)
        .map(|(name, _)| name)
        .collect()
}

/// Two releases before this one, as they would render; the second renders what the first did.
const BEFORE: [&str; 2] = ["0.0.8", "0.0.9"];
const OLD_IMAGE: &str = "otelagent/agent:0.0.8";
const SIDE: (&str, &str) = ("two", "side");

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_replaces_differing_agents_and_restarts_no_application() {
    if !testbed::skip_unless_possible("an upgrade with live pods") {
        return;
    }
    let world = OutageBed::start("upgrade").await;
    for namespace in ["one", SIDE.0] {
        world.namespace(namespace, json!({})).await;
    }
    let before = OtherRelease::start(&world, BEFORE[0]).await;
    let here = json!({"matchLabels": {"kubernetes.io/metadata.name": "one"}});
    let spec = json!({"mode": "NodeLocal", "workloads": {"namespaceSelector": here}});
    world.agent(AGENT.0, AGENT.1, spec).await;
    let spec = json!({"mode": "Sidecar", "workloads": {}});
    world.agent(SIDE.0, SIDE.1, spec).await;
    world.until_serving(AGENT, "NodeLocal").await;
    world.until_serving(SIDE, "Sidecar").await;
    world.deployment("one", "web", 2).await;
    world.deployment(SIDE.0, "app", 2).await;
    let two = |status: &Value| status["pods"]["current"] == 2;
    for agent in [AGENT, SIDE] {
        world.until_status(agent, "two pods", two).await;
    }
    let (pods, recorder) = (running(&world).await, Recorder::start(&world.admin));
    before.end().await;

    // A release that renders the same touches nothing but its own name.
    let same = OtherRelease::start(&world, BEFORE[1]).await;
    until_written_by(&world, BEFORE[1]).await;
    sleep(A_WHILE).await;
    same.end().await;
    assert_eq!(
        running(&world).await,
        pods,
        "by a release that renders the same"
    );
    for agent in [AGENT, SIDE] {
        world.until_status(agent, "nothing stale", two).await;
        world.check_status(agent).await;
    }
    assert!(upgrades(&world).await.is_empty());

    let mut operator = world.operator(&[]);
    until_written_by(&world, env!("CARGO_PKG_VERSION")).await;
    let status = world
        .until_status(SIDE, "stale pods", |status| status["pods"]["stale"] == 2)
        .await;
    the_reason_is_told(&status);
    agents_are_replaced(&world).await;
    world.until_status(AGENT, "two current pods", two).await;
    for agent in [AGENT, SIDE] {
        world.check_status(agent).await;
    }
    let after = running(&world).await;
    let applications = |name: &&String| !name.starts_with(PLATFORM);
    let gone: Vec<&String> = gone(&pods, &after)
        .into_iter()
        .filter(applications)
        .collect();
    assert!(gone.is_empty(), "applications were restarted: {gone:?}");
    let wrong = violations(&recorder.events(AGENT.0), AGENT.0, AGENT.1, true);
    assert!(wrong.is_empty(), "{wrong:#?}");
    operator.must_run();
    drop(operator);
    writes_are_logged_with_kind_namespace_and_name(&world);
    world.end();
}

fn writes_are_logged_with_kind_namespace_and_name(world: &OutageBed) {
    let mut seen = BTreeSet::new();
    for line in world.log("otelagent-operator") {
        let what = line["message"].as_str().unwrap_or_default();
        if !["applied", "deleted"].contains(&what) {
            continue;
        }
        let kind = line["kind"].as_str().unwrap_or_default();
        let is_of_namespace = ["ConfigMap", "DaemonSet", "Service"].contains(&kind);
        let is_complete = !kind.is_empty()
            && line["name"].is_string()
            && line["namespace"].is_string() == is_of_namespace;
        assert!(is_complete, "{line}");
        seen.insert((what.to_owned(), is_of_namespace));
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

fn the_reason_is_told(status: &Value) {
    let injected = condition(status, "Injected");
    assert_eq!(injected["reason"], "OlderConfiguration", "{injected}");
    assert_eq!(injected["status"], "True", "{injected}");
    let message = injected["message"].as_str().unwrap_or_default();
    let upgrade = format!("from {} to {}", BEFORE[1], env!("CARGO_PKG_VERSION"));
    for reported in [upgrade.as_str(), "Deployment two/app: 2"] {
        assert!(message.contains(reported), "{reported}: {message}");
    }
}

/// The agents have the image of this release, and an event says so.
async fn agents_are_replaced(world: &OutageBed) {
    until("agents of this release alone", PATIENCE, async || {
        let pods = world.pods(PLATFORM).await?;
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].to_string();
        let images: Vec<String> = pods.iter().map(image).collect();
        let is_new = images.len() == 3 && images.iter().all(|image| !image.contains(OLD_IMAGE));
        is_new.then_some(()).ok_or_else(|| format!("{images:?}"))
    })
    .await;
    let reported = upgrades(world).await;
    let upgrade = format!("that operator {} rendered", BEFORE[1]);
    assert!(
        reported.iter().any(|reported| reported.contains(&upgrade)),
        "{reported:?}"
    );
}

/// The messages of events about upgrades.
async fn upgrades(world: &OutageBed) -> Vec<String> {
    let events = list(&world.admin, "/apis/events.k8s.io/v1/events").await;
    let events = events.unwrap();
    let of_upgrades = events
        .iter()
        .filter(|event| event["reason"] == "OperatorUpgraded");
    of_upgrades.map(|event| event["note"].to_string()).collect()
}

/// Waits until agent workload and bindings have the name of a release.
async fn until_written_by(world: &OutageBed, version: &str) {
    let workload = names::agent_workload(AGENT.1, Mode::NodeLocal.kebab());
    let mut paths = vec![format!(
        "/apis/apps/v1/namespaces/{PLATFORM}/daemonsets/{workload}"
    )];
    for (namespace, name) in [AGENT, SIDE] {
        let name = names::cluster_object(namespace, name, None);
        let kind = "mutatingadmissionpolicybindings";
        paths.push(format!(
            "/apis/admissionregistration.k8s.io/v1/{kind}/{name}"
        ));
    }
    for path in paths {
        until(&format!("{path} of {version}"), PATIENCE, async || {
            let object = get(&world.admin, &path).await?;
            let by = &object["metadata"]["annotations"][names::ANNOTATION_OPERATOR];
            (by == version).then_some(()).ok_or_else(|| by.to_string())
        })
        .await;
    }
}

/// Another release in this process: it renders another version and another image of the agent.
struct OtherRelease(JoinHandle<()>);

impl OtherRelease {
    async fn start(world: &OutageBed, version: &str) -> Self {
        let config = config(world.bed.kubeconfig()).await;
        let settings = Settings {
            namespace: PLATFORM.into(),
            platform_namespaces: BTreeSet::from([PLATFORM.to_owned()]),
            agent_image: OLD_IMAGE.into(),
            canary_namespace: "otelagent-canary".into(),
            owner_role: Some("otelagent-owner".into()),
            instance: version.into(),
            injection: InjectionSettings::default(),
            version: version.into(),
        };
        let client = client::connect(config, &Fence::open()).unwrap();
        let controller = Controller::start(client, settings, Metrics::new()).await;
        let controller = controller.unwrap();
        Self(tokio::spawn(async move {
            let ended = controller.run(std::future::pending()).await;
            panic!("the controller ended by itself: {ended:?}");
        }))
    }

    async fn end(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}
