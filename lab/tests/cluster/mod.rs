//! The product on a real cluster: a real API server, two real nodes, images, unmodified SDK programs. `make test`
//! builds the images quickly; `make test-full` builds those that are shipped.
//!
//! One cluster serves all tests of this module except those of other addresses. One test runs at a time, since only one
//! can hold a host port. Each test leaves the cluster as it found it.
//!
//! With `make test-kubeconfig` the cluster is the one that `KUBECONFIG` names: two nodes or more, with the images of
//! `make test-images`. It must be disposable, because the tests delete every `OtelAgent`. A test that needs more of the
//! bed asks [`World::bed`] for it.

mod api;
mod book;
mod configuration;
mod cut_overs;
mod delivering;
mod durable;
mod modes;
mod network_policies;
mod networks;
mod nodes;
mod pod_shapes;
mod programs;
mod refusals;
mod registry;
mod resilience;
mod rest;
mod restart;
mod routing;
mod sdks;
mod start_gate;
mod switching;
mod uninstall;
mod webhook;

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use demo::Kubectl;
use demo::wait::{Seen, until};
use demo::{images, steps};
use serde_json::{Value, json};
use testbed::{Bed, Builder, Cluster};

/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(5);

/// The cluster, and the right to use it alone.
struct World {
    cluster: &'static Cluster,
    kubectl: Kubectl,
    _alone: MutexGuard<'static, ()>,
}

/// The images of the product and of the test programs.
static IMAGES: LazyLock<Vec<PathBuf>> = LazyLock::new(|| images::ensure_all().expect("images"));

/// A cluster that starts at its first use. It ends with this process, which the bed watches.
struct SharedCluster {
    cluster: LazyLock<Cluster>,
    alone: Mutex<()>,
}

impl SharedCluster {
    const fn new(make: fn() -> Cluster) -> Self {
        Self {
            cluster: LazyLock::new(make),
            alone: Mutex::new(()),
        }
    }
}

static CLUSTER: SharedCluster = SharedCluster::new(|| {
    let name = format!("cluster-{}", std::process::id());
    let start = || Cluster::from_env_or_bed(Bed::builder().name(name).nodes(2).audit(true));
    if Cluster::is_named() {
        // Its nodes have the images already.
        return start().expect("a cluster");
    }
    with_images(start)
});

/// A bed that differs from the usual one.
fn cluster_with(what: &str, choose: impl FnOnce(Builder) -> Builder) -> Cluster {
    with_images(|| {
        let name = format!("cluster-{what}-{}", std::process::id());
        let builder = choose(Bed::builder().name(name).nodes(2));
        builder.start().map(|bed| Cluster::Bed(Box::new(bed)))
    })
}

/// A cluster that starts once the images are built, and has them.
fn with_images(start: impl FnOnce() -> testbed::Result<Cluster>) -> Cluster {
    let built: &[PathBuf] = &IMAGES;
    let cluster = start().expect("a cluster");
    images::load_all(&cluster, built).expect("images on the nodes");
    cluster
}

/// The cluster with the operator installed and the upstream running. `None` if this machine cannot run one; the test
/// is then listed as skipped.
fn world(what: &str) -> Option<World> {
    world_on(what, &CLUSTER)
}

/// The same on one of the clusters.
fn world_on(what: &str, shared: &'static SharedCluster) -> Option<World> {
    if !testbed::skip_unless_possible(what) {
        return None;
    }
    let alone = shared.alone.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster: &Cluster = &shared.cluster;
    let kubectl = Kubectl::new(&cluster.kubectl().expect("kubectl"));
    let world = World {
        cluster,
        kubectl,
        _alone: alone,
    };
    steps::install(&world.kubectl).expect("the operator installed");
    steps::apply_upstream(&world.kubectl).expect("the upstream running");
    world.end_all_agents();
    Some(world)
}

impl World {
    /// The bed, for what needs one. `None` on an external cluster; the test is then listed as skipped.
    fn bed(&self, what: &str, doing: &'static str) -> Option<&Bed> {
        match self.cluster.bed(doing) {
            Ok(bed) => Some(bed),
            Err(error) => {
                let why = error.to_string();
                assert!(testbed::skip(what, &why), "{what}: {why}");
                None
            }
        }
    }

    /// Makes an `OtelAgent` of the platform namespace that selects one namespace's pods; `spec` is YAML
    /// flow content such as `mode: Sidecar`.
    fn agent(&self, name: &str, selects: &str, spec: &str) {
        self.kubectl
            .apply(&manifest("otelagent-system", name, selects, spec))
            .expect("an OtelAgent the server takes");
    }

    /// One `OtelAgent`.
    fn get(&self, name: &str) -> Value {
        self.kubectl
            .get(&["otelagent", name, "--namespace", steps::PLATFORM])
            .expect("the OtelAgent")
    }

    fn patch(&self, name: &str, patch: &Value) {
        self.kubectl
            .patch(steps::PLATFORM, &format!("otelagent/{name}"), patch)
            .expect("the patch taken");
    }

    /// Waits until a JSON document of `kubectl get` is as wanted, and returns it.
    fn until(&self, what: &str, query: &[&str], test: impl Fn(&Value) -> bool) -> Value {
        until(what, PATIENCE, || {
            let seen: Value = self.kubectl.get(query)?;
            Ok(if test(&seen) {
                Seen::Done(seen)
            } else {
                Seen::NotYet(seen.to_string())
            })
        })
        .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until the status of one `OtelAgent` speaks of its present spec and is as wanted.
    fn until_status(&self, name: &str, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        self.until(
            what,
            &["otelagent", name, "--namespace", steps::PLATFORM],
            |agent| {
                agent["status"]["observedGeneration"] == agent["metadata"]["generation"]
                    && test(&agent["status"])
            },
        )
    }

    /// Waits until a pod created now would be served in a mode.
    fn until_serving(&self, name: &str, mode: &str) {
        self.until_status(name, &format!("{name} serving {mode}"), |status| {
            status["mode"] == mode && condition(status, "Ready")["reason"] == "Serving"
        });
    }

    /// Names of a kind's objects in the platform namespace.
    fn names(&self, kind: &str) -> Vec<String> {
        names(
            &self
                .kubectl
                .get(&[kind, "--namespace", steps::PLATFORM])
                .expect("a list"),
        )
    }

    /// Names of the operator's cluster-scoped objects.
    fn cluster_objects(&self) -> Vec<String> {
        let kinds = "mutatingadmissionpolicies,mutatingadmissionpolicybindings,\
                     validatingadmissionpolicies,validatingadmissionpolicybindings,\
                     mutatingwebhookconfigurations";
        let all = names(&self.kubectl.get(&[kinds]).expect("a list"));
        all.into_iter()
            .filter(|name| name.starts_with("otelagent."))
            .collect()
    }

    /// Waits until nothing of any `OtelAgent` is left.
    fn end_all_agents(&self) {
        let _ = self.kubectl.run(&[
            "delete",
            "otelagents",
            "--all",
            "--all-namespaces",
            "--ignore-not-found",
        ]);
        until("nothing left of any OtelAgent", PATIENCE, || {
            let mut left = [
                self.names("daemonsets,services,configmaps"),
                self.cluster_objects(),
            ]
            .concat();
            // The webhook's own Service is part of the installation, and every namespace has the cluster's CA.
            left.retain(|name| !["otelagent-webhook", "kube-root-ca.crt"].contains(&name.as_str()));
            Ok(Seen::check(left.is_empty(), format!("{left:?}")))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Ends the cluster if it is a bed that no other test uses.
    fn end_bed(self) {
        if let Cluster::Bed(bed) = self.cluster {
            testbed::down(bed.name()).expect("the end of the bed");
        }
    }

    /// A new pod in a namespace of applications, by dry run; the namespace accepts only restricted pods.
    fn dry_run_pod(&self, namespace: &str) -> demo::Result<Value> {
        let overrides = json!({"spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "asking",
                "image": "none",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        }});
        let text = self.kubectl.run(&[
            "run",
            "asking",
            &format!("--overrides={overrides}"),
            "--image=none",
            "--dry-run=server",
            "--output=json",
            "--namespace",
            namespace,
        ])?;
        Ok(serde_json::from_str(&text).expect("a pod"))
    }

    /// Ends a namespace of applications, without waiting for it.
    fn end_namespace(&self, name: &str) {
        self.kubectl
            .run(&["delete", "namespace", name, "--wait=false"])
            .expect("deleted");
    }
}

fn manifest(namespace: &str, name: &str, selects: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{\
         export: {{endpoint: 'http://otel-collector.observability.svc:4317'}}, switchover: {{holdOld: 5s}}, \
         workloads: {{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {selects}}}}}}}, {spec}}}}}"
    )
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items
        .iter()
        .filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned))
        .collect()
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|condition| condition["type"] == kind))
        .unwrap_or(&Value::Null)
}
