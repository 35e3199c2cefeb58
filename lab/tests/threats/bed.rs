//! A control plane with everything installed, an operator that sees all of it, and clients of it for any user.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::Method;
use http::header::{HeaderName, HeaderValue};
use kube::client::Body;
use kube::{Client, Config};
use otelagent_core::names;
use otelagent_operator::controller::{Controller, InjectionSettings, Settings};
use otelagent_operator::runtime::{Fence, Metrics, client};
use serde_json::{Value, json};
use testbed::Bed;

use crate::client::direct_config;
use crate::status_checker::request;

/// The platform namespace.
pub(crate) const PLATFORM: &str = "otelagent-system";
/// The namespace in which policies are verified.
pub(crate) const CANARY: &str = "otelagent-canary";
/// The `ServiceAccount` the operator acts as.
pub(crate) const OPERATOR: &str = "system:serviceaccount:otelagent-system:otelagent-operator";
/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(5);

pub(crate) const AGENTS: &str = "/apis/otelagent.dev/v1alpha1/otelagents";
pub(crate) const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

/// A control plane and what is installed on it.
pub(crate) struct ThreatBed {
    pub(crate) bed: Bed,
}

/// The bed that tests share by default, with its operator. It ends with this process, which it watches.
pub(crate) async fn world() -> &'static ThreatBed {
    static WORLD: OnceLock<ThreatBed> = OnceLock::new();
    let made = tokio::task::spawn_blocking(|| {
        WORLD.get_or_init(|| {
            let world = ThreatBed::start("threats", |bed| bed);
            let settings = settings(InjectionSettings::default());
            world.run_operator(settings);
            world
        })
    });
    made.await.unwrap()
}

/// How the operator is started.
pub(crate) fn settings(injection: InjectionSettings) -> Settings {
    Settings {
        namespace: PLATFORM.into(),
        platform_namespaces: BTreeSet::from([PLATFORM.to_owned()]),
        agent_image: "otelagent/agent:test".into(),
        canary_namespace: CANARY.into(),
        owner_role: Some("otelagent-owner".into()),
        instance: "threats".into(),
        injection,
        version: "0.0.0".into(),
    }
}

impl ThreatBed {
    /// Brings one up and installs what `manifests/default` holds.
    pub(crate) fn start(
        name: &str,
        shape: impl FnOnce(testbed::Builder) -> testbed::Builder,
    ) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let bed = shape(Bed::builder().name(name)).start();
        let world = Self {
            bed: bed.expect("a control plane"),
        };
        world.kubectl(&["apply", "-k", "manifests/default"]);
        let crd = "crd/otelagents.otelagent.dev";
        world.kubectl(&["wait", "--for=condition=Established", crd]);
        world.until_quiet();
        world
    }

    /// Waits until controllers have made their objects: the Deployment its pods, aggregated roles their rules.
    fn until_quiet(&self) {
        let begun = Instant::now();
        let words = ["get", "pods", "--namespace", PLATFORM, "--output=name"];
        let rules = ["get", "clusterrole", "admin", "--output=jsonpath={.rules}"];
        while self.kubectl(&words).lines().count() < 2 || self.kubectl(&rules).len() < 1000 {
            assert!(begun.elapsed() < PATIENCE, "the control plane does nothing");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The output of kubectl, run in the repository.
    pub(crate) fn kubectl(&self, words: &[&str]) -> String {
        let mut command = self.bed.kubectl();
        command.args(words).current_dir(demo::repository());
        let output = command.output().expect("kubectl runs");
        assert!(output.status.success(), "kubectl {words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The controller on a thread of its own, until the process ends: every test has a runtime of its own.
    pub(crate) fn run_operator(&self, settings: Settings) {
        let kubeconfig = self.bed.kubeconfig().to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let config = config(&kubeconfig, Some(OPERATOR)).await;
                let client = client::connect(config, &Fence::open()).unwrap();
                let controller = Controller::start(client, settings, Metrics::new());
                let ended = controller.await.unwrap().run(std::future::pending()).await;
                panic!("the controller ended by itself: {ended:?}");
            });
        });
    }

    /// Starts another operator, like one that waited for the lease: it must see everything once.
    pub(crate) async fn an_operator_starts(&self) {
        let config = config(self.bed.kubeconfig(), Some(OPERATOR)).await;
        let client = client::connect(config, &Fence::closed()).unwrap();
        let settings = settings(InjectionSettings::default());
        let controller = Controller::start(client, settings, Metrics::new());
        let controller = controller.await.unwrap();
        let synced = tokio::time::timeout(PATIENCE, controller.until_synced());
        // Its watches are driven by tasks that end with it.
        assert!(synced.await.is_ok(), "an operator that starts sees nothing");
    }

    /// As administrator.
    pub(crate) async fn admin(&self) -> Caller {
        self.caller(None).await
    }

    /// As another user.
    pub(crate) async fn caller(&self, user: Option<&str>) -> Caller {
        let config = config(self.bed.kubeconfig(), user).await;
        Caller(Client::try_from(config).unwrap())
    }

    /// A namespace, and a user who may do everything in it: `admin`, all of `OtelAgent`s, their status included.
    pub(crate) async fn tenant(&self, namespace: &str) -> Caller {
        let admin = self.admin().await;
        admin.namespace(namespace, json!({})).await;
        let roles = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
        let everything =
            json!({"apiGroups": ["otelagent.dev"], "resources": ["*"], "verbs": ["*"]});
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "otelagents"}, "rules": [everything]});
        admin
            .must(Method::POST, &format!("{roles}/roles"), &role)
            .await;
        for (kind, name) in [("Role", "otelagents"), ("ClusterRole", "admin")] {
            let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}]});
            admin
                .must(Method::POST, &format!("{roles}/rolebindings"), &binding)
                .await;
        }
        let user = format!("system:serviceaccount:{namespace}:tenant");
        self.caller(Some(&user)).await
    }
}

/// A client configuration for a user; `ServiceAccount`s with the groups they have.
pub(crate) async fn config(kubeconfig: &Path, user: Option<&str>) -> Config {
    let mut config = direct_config(kubeconfig).await;
    let Some(user) = user else { return config };
    let mut header = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).unwrap();
        config.headers.push((HeaderName::from_static(name), value));
    };
    header("impersonate-user", user);
    header("impersonate-group", "system:authenticated");
    let mut parts = user.split(':').skip(2);
    if let Some(namespace) = parts.next() {
        header("impersonate-group", "system:serviceaccounts");
        let group = format!("system:serviceaccounts:{namespace}");
        header("impersonate-group", &group);
    }
    config
}

/// A user who talks to the API server in plain JSON.
pub(crate) struct Caller(Client);

/// What the server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.status < 300
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.body["metadata"]["labels"][key].as_str()
    }
}

impl Caller {
    pub(crate) async fn send(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request = request(method, path, body).unwrap().map(Body::from);
        let response = self.0.send(request).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.expect("a body");
        Answer {
            status,
            body: parse(&bytes),
        }
    }

    /// The same, where it must succeed.
    pub(crate) async fn must(&self, method: Method, path: &str, body: &Value) -> Value {
        let answer = self.send(method.clone(), path, body).await;
        let message = &answer.body["message"];
        assert!(
            answer.is_ok(),
            "{method} {path}: {} {message}",
            answer.status
        );
        answer.body
    }

    /// Sends text that `serde_json` would not write; the status of the answer.
    pub(crate) async fn send_text(&self, method: Method, path: &str, text: String) -> u16 {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(text.into_bytes()));
        let answer = self.0.send(request.unwrap()).await.expect("an answer");
        answer.status().as_u16()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &Value::Null).await
    }

    /// The items of a list.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let list = self.must(Method::GET, path, &Value::Null).await;
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Makes a namespace, whose pods may be created as soon as it has its `ServiceAccount`.
    pub(crate) async fn namespace(&self, name: &str, labels: Value) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.must(Method::POST, "/api/v1/namespaces", &namespace)
            .await;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        until("the namespace's account", async || {
            let found = self.get(&account).await;
            found
                .is_ok()
                .then_some(())
                .ok_or_else(|| format!("{found:?}"))
        })
        .await;
    }

    /// Creates an `OtelAgent`.
    pub(crate) async fn agent(&self, namespace: &str, name: &str, spec: &Value) -> Answer {
        let agent = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
            "metadata": {"name": name}, "spec": spec});
        self.send(Method::POST, &agents_of(namespace), &agent).await
    }

    /// Changes its spec.
    pub(crate) async fn change(&self, namespace: &str, name: &str, spec: &Value) -> Answer {
        let path = agent_path(namespace, name);
        self.send(Method::PATCH, &path, &json!({"spec": spec}))
            .await
    }

    /// Waits until its status says something.
    pub(crate) async fn until_status(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = agent_path(namespace, name);
        until(&format!("{namespace}/{name}: {what}"), async || {
            let agent = self.get(&path).await.body;
            let status = agent["status"].clone();
            if is_current(&agent) && is_so(&status) {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await
    }

    /// Waits until it injects.
    pub(crate) async fn until_injecting(&self, namespace: &str, name: &str) {
        let is_so = |status: &Value| condition(status, "Injected")["status"] == "True";
        self.until_status(namespace, name, "injecting", is_so).await;
    }

    /// The `OtelAgent` that a new pod would belong to.
    pub(crate) async fn injected_by(&self, namespace: &str) -> Option<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
        let answer = self.send(Method::POST, &path, &pod(json!({}))).await;
        assert!(answer.is_ok(), "{answer:?}");
        answer.label(names::LABEL_AGENT).map(str::to_owned)
    }
}

/// Objects of a tenant may be nested deeper than `serde_json` reads.
fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// Whether the status speaks of the present spec.
fn is_current(agent: &Value) -> bool {
    agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
}

pub(crate) fn agents_of(namespace: &str) -> String {
    format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents")
}

pub(crate) fn agent_path(namespace: &str, name: &str) -> String {
    format!("{}/{name}", agents_of(namespace))
}

/// One condition of a status.
pub(crate) fn condition(status: &Value, kind: &str) -> Value {
    let all = status["conditions"].as_array().into_iter().flatten();
    let mut found = all.filter(|condition| condition["type"] == kind);
    found.next().cloned().unwrap_or_default()
}

/// The spec of a sidecar for pods of its own namespace, with more.
pub(crate) fn sidecar(more: &Value) -> Value {
    let mut spec =
        json!({"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"}, "workloads": {}});
    if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
        spec.extend(more.clone());
    }
    spec
}

/// A pod that every level of Pod Security accepts.
pub(crate) fn pod(labels: Value) -> Value {
    let security = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-", "labels": labels},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "app", "image": "app:1", "securityContext": security}],
        },
    })
}

/// Repeats until it succeeds.
pub(crate) async fn until<T>(what: &str, attempt: impl AsyncFn() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, attempt).await
}

/// The same for what takes longer.
pub(crate) async fn until_within<T>(
    patience: Duration,
    what: &str,
    attempt: impl AsyncFn() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(why) => assert!(begun.elapsed() < patience, "{what}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Whether such tests can run here; says so if not.
pub(crate) fn is_possible(test: &str) -> bool {
    testbed::skip_unless_possible(test)
}
