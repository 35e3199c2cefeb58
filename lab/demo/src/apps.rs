//! Running applications: Deployments of SDK programs that number what they send and know nothing of the
//! topology.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::Result;
use crate::images;
use crate::kubectl::Kubectl;
use crate::wait::{Seen, until};

/// The namespace of the demo's applications.
pub const NAMESPACE: &str = "shop";

const APP: &str = include_str!("../manifests/app.yaml");
const APPS_NAMESPACE: &str = include_str!("../manifests/apps-namespace.yaml");
/// Which application a pod belongs to.
const NAME_LABEL: &str = "app.kubernetes.io/name";

/// One application.
#[derive(Clone, Debug)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its image: one of those with an SDK program.
    pub image: String,
    /// How many pods, spread over the nodes.
    pub replicas: u32,
    /// Arguments beside `--run`, which is the pod's name.
    pub args: Vec<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
}

impl App {
    /// The program in Rust, speaking OTLP/gRPC.
    pub fn rust_sdk() -> Self {
        Self::new("rust-sdk", images::RUST_SDK, "grpc")
    }

    /// The program in Go, speaking OTLP/HTTP.
    pub fn go_sdk() -> Self {
        Self::new("go-sdk", images::GO_SDK, "http/protobuf")
    }

    fn new(name: &str, image: &str, protocol: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: NAMESPACE.to_owned(),
            image: image.to_owned(),
            replicas: 2,
            args: vec![format!("--protocol={protocol}"), "--rate=20".to_owned()],
            env: Vec::new(),
        }
    }

    /// Its Deployment, as YAML.
    pub fn manifest(&self) -> String {
        let mut args = vec!["--run=$(POD_NAME)".to_owned()];
        args.extend(self.args.iter().cloned());
        let mut env = vec![
            json!({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
        ];
        env.extend(
            self.env
                .iter()
                .map(|(name, value)| json!({"name": name, "value": value})),
        );
        // JSON is YAML, so lists go in as they are.
        APP.replace("${NAMESPACE}", &self.namespace)
            .replace("${NAME}", &self.name)
            .replace("${IMAGE}", &self.image)
            .replace("${REPLICAS}", &self.replicas.to_string())
            .replace("${ARGS}", &json!(args).to_string())
            .replace("${ENV}", &Value::Array(env).to_string())
    }
}

/// Makes the applications and their namespaces, and waits until they run.
pub fn apply(kubectl: &Kubectl, apps: &[App]) -> Result<()> {
    for app in apps {
        kubectl.apply(&APPS_NAMESPACE.replace("${NAMESPACE}", &app.namespace))?;
        kubectl.apply(&app.manifest())?;
    }
    let mut namespaces: Vec<&str> = apps.iter().map(|app| app.namespace.as_str()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    namespaces
        .into_iter()
        .try_for_each(|namespace| wait_rolled(kubectl, namespace))
}

/// Replaces every pod of a namespace's Deployments, and waits until the old ones are gone.
pub fn roll(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    kubectl.run(&["rollout", "restart", "deployment", "--namespace", namespace])?;
    wait_rolled(kubectl, namespace)
}

/// How long pods may take to be replaced.
const ROLL_PATIENCE: Duration = Duration::from_mins(3);

/// Waits until every Deployment of a namespace runs what it should, and nothing else.
pub fn wait_rolled(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    until(
        &format!("the applications in {namespace}"),
        ROLL_PATIENCE,
        || {
            let deployments: List<Value> =
                kubectl.get(&["deployments", "--namespace", namespace])?;
            if let Some(unfinished) = deployments
                .items
                .iter()
                .find(|deployment| !is_rolled_out(deployment))
            {
                return Ok(Seen::NotYet(format!(
                    "{}: {}",
                    unfinished["metadata"]["name"], unfinished["status"]
                )));
            }
            let pods = pods(kubectl, namespace)?;
            let unsettled = pods.iter().find(|pod| pod.deleting || !pod.ready);
            Ok(unsettled.map_or(Seen::Done(()), |pod| Seen::NotYet(format!("{pod:?}"))))
        },
    )
}

fn is_rolled_out(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    let wanted = &spec["replicas"];
    let counts = ["replicas", "updatedReplicas", "availableReplicas"];
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && (*wanted == json!(0) || counts.iter().all(|count| status[count] == *wanted))
}

/// A pod of an application that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPod {
    /// Its name, which is also the name of its run.
    pub name: String,
    /// The application's name.
    pub app: String,
    /// The node it runs on; empty before it is placed.
    pub node: String,
    /// Whether it was asked to end.
    pub deleting: bool,
    /// Whether it is ready.
    pub ready: bool,
    /// Its labels, where injection leaves its marks.
    pub labels: Value,
}

/// The pods of a namespace that have not ended.
pub fn pods(kubectl: &Kubectl, namespace: &str) -> Result<Vec<AppPod>> {
    let unfinished = "--field-selector=status.phase!=Succeeded,status.phase!=Failed";
    let list: List<Value> = kubectl.get(&["pods", "--namespace", namespace, unfinished])?;
    Ok(list.items.iter().map(pod).collect())
}

fn pod(pod: &Value) -> AppPod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = &pod["metadata"];
    let conditions = pod["status"]["conditions"].as_array();
    AppPod {
        name: text(&meta["name"]),
        app: text(&meta["labels"][NAME_LABEL]),
        node: text(&pod["spec"]["nodeName"]),
        deleting: meta.get("deletionTimestamp").is_some(),
        ready: conditions.is_some_and(|all| {
            all.iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True")
        }),
        labels: meta["labels"].clone(),
    }
}

/// What a program says of itself, once a second and at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Report {
    /// How many of each signal it has made.
    pub made: u64,
    /// How many spans the other side acknowledged.
    pub exported: u64,
    /// How many log records the other side acknowledged.
    #[serde(default, rename = "exportedLogs")]
    pub exported_logs: u64,
    /// How many spans its SDK gave up on.
    pub failed: u64,
}

/// The latest report in a pod's log, if there is one.
pub fn report(kubectl: &Kubectl, namespace: &str, pod: &str) -> Result<Option<Report>> {
    // Standard error is in the same log, so the last line may be something else.
    let log = kubectl.run(&[
        "logs",
        pod,
        "--namespace",
        namespace,
        "--container=app",
        "--tail=20",
    ])?;
    Ok(log
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str(line).ok()))
}

/// A list of objects.
#[derive(Debug, Deserialize)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_has_no_open_placeholders() {
        let mut app = App::rust_sdk();
        app.env.push(("A".to_owned(), "x: \"y\"".to_owned()));
        let manifest = app.manifest();
        assert!(!manifest.contains("${"), "{manifest}");
        assert!(manifest.contains(r#"args: ["--run=$(POD_NAME)","--protocol=grpc","--rate=20"]"#));
        assert!(manifest.contains(r#"{"name":"A","value":"x: \"y\""}"#));
    }

    #[test]
    fn deployment_is_rolled_out_when_only_new_pods_are_counted() {
        let deployment = |generation: u64, replicas: u64| {
            json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 2},
                "status": {
                    "observedGeneration": generation, "replicas": replicas,
                    "updatedReplicas": 2, "availableReplicas": 2,
                },
            })
        };
        assert!(is_rolled_out(&deployment(2, 2)));
        assert!(!is_rolled_out(&deployment(1, 2)));
        assert!(!is_rolled_out(&deployment(2, 3)));
    }

    #[test]
    fn pod_is_read_from_its_json() {
        let json = json!({
            "metadata": {"name": "a-1", "deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {NAME_LABEL: "a"}},
            "spec": {"nodeName": "node1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let pod = pod(&json);
        assert_eq!(
            (pod.name.as_str(), pod.app.as_str(), pod.node.as_str()),
            ("a-1", "a", "node1")
        );
        assert!(pod.deleting && pod.ready);
    }
}
