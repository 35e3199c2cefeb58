//! The control plane of one story, the installation on it, and the processes that act on it.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use kube::{Client, Config};
use otelagent_core::names;
use serde_json::{Value, json};
use testbed::Bed;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::sleep;

use crate::client::direct_config;
use crate::simulated::kubelet;
use crate::status_checker::{get, list, mismatches_within, request};

/// The longest time to wait for any result, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(6);
/// Namespace of the operator, and of `OtelAgent`s that act on other namespaces.
pub(super) const PLATFORM: &str = "otelagent-system";
/// What is installed, with the flag of kubectl for it.
const INSTALLED: [(&str, &str); 9] = [
    ("-k", "crds"),
    ("-f", "manifests/default/namespaces.yaml"),
    ("-f", "manifests/default/owner.yaml"),
    ("-f", "manifests/default/rbac.yaml"),
    ("-f", "manifests/platform-namespace/rbac.yaml"),
    ("-f", "manifests/webhook/owner.yaml"),
    ("-f", "manifests/webhook/rbac.yaml"),
    ("-f", "manifests/webhook/authority.yaml"),
    ("-k", "manifests/restart"),
];

/// A control plane with simulated nodes.
pub(super) struct OutageBed {
    pub(super) bed: Bed,
    pub(super) admin: Client,
}

impl OutageBed {
    pub(super) async fn start(what: &str) -> Self {
        let name = format!("outage-{what}-{}", std::process::id());
        let bed = block_in_place(|| Bed::builder().name(name).start().expect("a control plane"));
        let admin = client(bed.kubeconfig()).await;
        kubelet::start(&admin).await;
        let world = Self { bed, admin };
        for (flag, part) in INSTALLED {
            world.kubectl(&["apply", flag, part]);
        }
        let crd = "crd/otelagents.otelagent.dev";
        world.kubectl(&["wait", "--for=condition=Established", crd]);
        world
    }

    pub(super) fn end(self) {
        block_in_place(|| self.bed.stop()).unwrap();
    }

    /// The output of kubectl, run in the repository.
    pub(super) fn kubectl(&self, words: &[&str]) -> String {
        let mut command = self.bed.kubectl();
        command.args(words).current_dir(demo::repository());
        let output = block_in_place(|| command.output()).expect("kubectl runs");
        assert!(output.status.success(), "kubectl {words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A kubeconfig with the token of a `ServiceAccount` of the installation, which leads to another server if one is given.
    fn kubeconfig_of(&self, account: &str, server: Option<&str>) -> PathBuf {
        let namespace = format!("--namespace={PLATFORM}");
        let token = self.kubectl(&["create", "token", account, &namespace]);
        let text = std::fs::read_to_string(self.bed.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        if let Some(server) = server {
            config["clusters"][0]["cluster"] = json!({"server": server});
        }
        let file = self.bed.kubeconfig().with_file_name(account);
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// The operator's process, started with these options. Without an election: a leader whose API server is
    /// down for longer than its lease, to be restarted, while a standby goes on with what it knows.
    pub(super) fn operator(&self, options: &[&str]) -> Process {
        let words = [&["controller"], options].concat();
        self.process("otelagent-operator", &words, None)
    }

    /// A candidate for the lease behind something that passes its calls on to the API server. It is started again
    /// whenever it ends, as the kubelet does: a leader ends when it could not renew its lease.
    pub(super) fn candidate_behind(&self, server: &str) -> Restarted {
        let words = ["controller", "--leader-elect"];
        Restarted::start(self.command("otelagent-operator", &words, Some(server)))
    }

    /// An operator that lets an `OtelAgent` of mode `NodeLocal` serve the namespace `shop`.
    pub(super) async fn serve_shop(&self, agent: (&str, &str)) -> Process {
        let operator = self.operator(&[]);
        self.shop_is_served_by(agent).await;
        operator
    }

    /// Lets the operator that runs serve the namespace `shop` by an `OtelAgent` of mode `NodeLocal`.
    pub(super) async fn shop_is_served_by(&self, agent: (&str, &str)) {
        self.namespace("shop", json!({})).await;
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}});
        let spec = json!({"mode": "NodeLocal", "workloads": {"namespaceSelector": here}});
        self.agent(agent.0, agent.1, spec).await;
        self.until_serving(agent, "NodeLocal").await;
    }

    /// A replica of the webhook, listening at a port of the address that the API server can call.
    pub(super) fn webhook(&self, port: u16) -> Process {
        let address = format!("--address={}:{port}", self.bed.host_ip());
        self.process("otelagent-webhook", &["webhook", &address], None)
    }

    fn process(&self, account: &str, words: &[&str], server: Option<&str>) -> Process {
        Process::start(&mut self.command(account, words, server))
    }

    fn command(&self, account: &str, words: &[&str], server: Option<&str>) -> Command {
        let log = self.bed.log_dir().join(format!("{account}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log);
        let log = log.expect("a log");
        let program = demo::images::program("otelagent-operator").expect("the operator's binary");
        let mut command = Command::new(program);
        command
            .args(words)
            .args([
                "--metrics-address=127.0.0.1:0",
                "--health-address=127.0.0.1:0",
            ])
            .env("KUBECONFIG", self.kubeconfig_of(account, server))
            .env("POD_NAMESPACE", PLATFORM)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
    }

    /// The log of the processes of one `ServiceAccount`, by lines.
    pub(super) fn log(&self, account: &str) -> Vec<Value> {
        let log = self.bed.log_dir().join(format!("{account}.log"));
        let log = std::fs::read_to_string(log).expect("a log");
        let lines = log.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    pub(super) async fn namespace(&self, name: &str, labels: Value) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.make("/api/v1/namespaces", &namespace).await;
        // Without it no pod is created there.
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        until("a service account", PATIENCE, async || {
            let found = get(&self.admin, &account).await?;
            (!found.is_null())
                .then_some(())
                .ok_or_else(|| name.to_owned())
        })
        .await;
    }

    pub(super) async fn make(&self, path: &str, object: &Value) -> Value {
        send(&self.admin, Method::POST, path, object).await.unwrap()
    }

    pub(super) async fn patch(&self, path: &str, change: &Value) {
        send(&self.admin, Method::PATCH, path, change)
            .await
            .unwrap();
    }

    pub(super) async fn delete(&self, path: &str) {
        send(&self.admin, Method::DELETE, path, &at_once())
            .await
            .unwrap();
    }

    /// Deletes a collection. The server ends such a request after a minute, even if objects are left.
    pub(super) async fn delete_all(&self, path: &str) {
        until("everything is deleted", PATIENCE, async || {
            let answer = send(&self.admin, Method::DELETE, path, &at_once()).await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Makes an `OtelAgent` whose spec is completed with where it exports to and how long routes are held.
    pub(super) async fn agent(&self, namespace: &str, name: &str, mut spec: Value) {
        spec["export"] = json!({"endpoint": "http://collector.observability.svc:4317"});
        spec["hostMetadata"] = json!(false);
        spec["switchover"] = json!({"holdOld": "5s"});
        let agent = json!({
            "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": name}, "spec": spec,
        });
        let path = agent_path(namespace, name);
        let path = path.trim_end_matches(&format!("/{name}"));
        self.make(path, &agent).await;
    }

    /// Changes an `OtelAgent`'s spec, as a user does.
    pub(super) async fn want(&self, namespace: &str, name: &str, spec: Value) {
        let path = agent_path(namespace, name);
        self.patch(&path, &json!({"spec": spec})).await;
    }

    pub(super) async fn deployment(&self, namespace: &str, name: &str, replicas: usize) {
        let labels = json!({"app": name});
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "none"}]},
            }},
        });
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
        self.make(&path, &deployment).await;
    }

    pub(super) async fn scale(&self, namespace: &str, name: &str, replicas: usize) {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        self.patch(&path, &json!({"spec": {"replicas": replicas}}))
            .await;
    }

    /// Restarts as `kubectl rollout restart` does, and waits until all pods are replaced.
    pub(super) fn roll(&self, namespace: &str, name: &str) {
        let (namespace, name) = (
            format!("--namespace={namespace}"),
            format!("deployment/{name}"),
        );
        self.kubectl(&["rollout", "restart", &name, &namespace]);
        self.kubectl(&["rollout", "status", &name, &namespace, "--timeout=4m"]);
    }

    /// Waits until the status of an `OtelAgent` for its present generation `is_so`, and returns the status.
    pub(super) async fn until_status(
        &self,
        (namespace, name): (&str, &str),
        what: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = agent_path(namespace, name);
        until(what, PATIENCE, async || {
            let agent = get(&self.admin, &path).await?;
            let status = &agent["status"];
            let is_present = status["observedGeneration"] == agent["metadata"]["generation"];
            if is_present && is_so(status) {
                Ok(status.clone())
            } else {
                Err(format!("{name}: {status}"))
            }
        })
        .await
    }

    /// Waits until the status says that new pods get a mode.
    pub(super) async fn until_serving(&self, agent: (&str, &str), mode: &str) -> Value {
        let what = format!("{mode} serves");
        self.until_status(agent, &what, |status| {
            status["mode"] == mode && is(status, "Ready", "True") && is(status, "Injected", "True")
        })
        .await
    }

    /// Fails unless the status matches the cluster within the time.
    pub(super) async fn check_status(&self, (namespace, name): (&str, &str)) {
        let found = mismatches_within(&self.admin, namespace, name, PATIENCE).await;
        let found: Vec<String> = found.unwrap().iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Policies of one `OtelAgent`.
    pub(super) async fn policies(&self, (namespace, name): (&str, &str)) -> Result<usize, String> {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
        let prefix = format!("otelagent.{namespace}.{name}.");
        let all = list(&self.admin, path).await?;
        let names = all.iter().map(name_of);
        Ok(names.filter(|name| name.starts_with(&prefix)).count())
    }

    /// Bindings of the policies that warn of uninjected pods of one `OtelAgent`, as paths.
    pub(super) async fn warnings(&self, agent: (&str, &str)) -> Result<Vec<String>, String> {
        let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
        let prefix = names::cluster_object(agent.0, agent.1, None);
        let all = list(&self.admin, path).await?;
        let names = all.iter().map(name_of);
        let own = names.filter(|name| name.starts_with(&prefix));
        Ok(own.map(|name| format!("{path}/{name}")).collect())
    }

    /// Live pods of a namespace.
    pub(super) async fn pods(&self, namespace: &str) -> Result<Vec<Value>, String> {
        let mut pods = list(&self.admin, &pods_path(namespace)).await?;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }
}

pub(super) fn pods_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

pub(super) fn agent_path(namespace: &str, name: &str) -> String {
    format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents/{name}")
}

pub(super) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether a condition has a status.
pub(super) fn is(status: &Value, kind: &str, value: &str) -> bool {
    condition(status, kind)["status"] == value
}

pub(super) fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["conditions"].as_array().into_iter().flatten();
    let mut found = all.filter(|condition| condition["type"] == kind);
    found.next().unwrap_or(&Value::Null)
}

fn at_once() -> Value {
    json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})
}

/// A pod without a scheduler: it is created and counted, and costs nothing more.
pub(super) fn unplaced() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "app-"},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "app", "image": "none"}]},
    })
}

/// A client that tries each call once.
pub(super) async fn client(kubeconfig: &Path) -> Client {
    Client::try_from(config(kubeconfig).await).unwrap()
}

pub(super) async fn config(kubeconfig: &Path) -> Config {
    let mut config = direct_config(kubeconfig).await;
    config.default_retry = false;
    config
}

pub(super) async fn send(
    client: &Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<Value, kube::Error> {
    let request = request(method, path, body).unwrap();
    client.request(request).await
}

/// Tries until it succeeds; if it never does, the failure shows what was seen last.
pub(super) async fn until<T>(
    what: &str,
    patience: Duration,
    attempt: impl AsyncFn() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(found) => return found,
            Err(seen) => assert!(begun.elapsed() < patience, "never {what}: {seen}"),
        }
        sleep(Duration::from_millis(250)).await;
    }
}

/// A process of the operator's binary; killed when it is dropped.
pub(super) struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the operator's binary"))
    }

    /// Pauses it, as on a node that hangs.
    pub(super) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(super) fn resume(&self) {
        self.signal("-CONT");
    }

    /// Kills it.
    pub(super) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(sent.success(), "kill {name}");
    }

    /// Waits until it ends by itself, and reports it to the caller, which may start it again.
    pub(super) async fn until_it_ends(&mut self) {
        let begun = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it did not end");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails if it has ended.
    pub(super) fn must_run(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "it ended by itself: {ended:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that is started again whenever it ends, until this is dropped.
pub(super) struct Restarted(JoinHandle<()>);

impl Restarted {
    fn start(mut command: Command) -> Self {
        Self(tokio::spawn(async move {
            loop {
                let mut process = Process::start(&mut command);
                while process.0.try_wait().unwrap().is_none() {
                    sleep(Duration::from_millis(100)).await;
                }
                println!("the operator has ended, and is started again");
                sleep(Duration::from_secs(1)).await;
            }
        }))
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        // The process is killed with the task that owns it.
        self.0.abort();
    }
}
