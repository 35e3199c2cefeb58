//! What a sequence of edits needs: a control plane, two simulated nodes, the controller in this process.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;
use std::time::Duration;

use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use otelagent_core::names::FIELD_MANAGER;
use otelagent_operator::controller::{Controller, Settings};
use otelagent_operator::runtime::{Fence, Metrics, client};
use serde_json::{Value, json};
use testbed::Bed;
use tokio::task::JoinHandle;

use crate::client::direct_config;

/// The platform namespace.
pub(super) const PLATFORM: &str = "otelagent-system";
/// Where the applications are.
pub(super) const SHOP: &str = "shop";

/// Where a sequence of edits runs, with the controller. Ends with this process: the bed watches it.
static SHARED: LazyLock<Bed> = LazyLock::new(|| bed("random-edits", 2));
/// A bed without a controller, so that only the API server answers.
static STILL: LazyLock<Bed> = LazyLock::new(|| bed("verdicts", 0));

fn bed(name: &str, nodes: u16) -> Bed {
    Bed::builder()
        .name(format!("{name}-{}", std::process::id()))
        .simulated_nodes(nodes)
        .start()
        .expect("a control plane")
}

/// The API server, as administrator.
#[derive(Clone)]
pub(super) struct EditServer {
    pub(super) client: Client,
}

/// Group and version, kind and plural of what the tests read.
fn resource(kind: &str) -> ApiResource {
    let (group, version, plural) = match kind {
        "OtelAgent" => ("otelagent.dev", "v1alpha1", "otelagents"),
        "ConfigMap" => ("", "v1", "configmaps"),
        "DaemonSet" => ("apps", "v1", "daemonsets"),
        "Service" => ("", "v1", "services"),
        "Pod" => ("", "v1", "pods"),
        "Namespace" => ("", "v1", "namespaces"),
        "CustomResourceDefinition" => ("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
        "MutatingAdmissionPolicy" => (
            "admissionregistration.k8s.io",
            "v1",
            "mutatingadmissionpolicies",
        ),
        "MutatingAdmissionPolicyBinding" => (
            "admissionregistration.k8s.io",
            "v1",
            "mutatingadmissionpolicybindings",
        ),
        "ValidatingAdmissionPolicy" => (
            "admissionregistration.k8s.io",
            "v1",
            "validatingadmissionpolicies",
        ),
        "ValidatingAdmissionPolicyBinding" => (
            "admissionregistration.k8s.io",
            "v1",
            "validatingadmissionpolicybindings",
        ),
        other => panic!("{other} is not looked at"),
    };
    let api_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version,
        kind: kind.into(),
        plural: plural.into(),
    }
}

impl EditServer {
    /// Of the sequence.
    pub(super) async fn shared() -> Self {
        Self::of(&SHARED).await
    }

    /// Without a controller.
    pub(super) async fn still() -> Self {
        Self::of(&STILL).await
    }

    /// With the CRD and the namespaces.
    async fn of(bed: &'static LazyLock<Bed>) -> Self {
        let path = tokio::task::spawn_blocking(|| bed.kubeconfig().to_owned())
            .await
            .unwrap();
        let server = Self {
            client: client::connect(direct_config(&path).await, &Fence::open()).unwrap(),
        };
        let crd: Value =
            serde_saphyr::from_str(include_str!("../../../crds/otelagents.yaml")).unwrap();
        server.apply(&crd).await.unwrap();
        for name in [PLATFORM, SHOP, "otelagent-canary"] {
            server
                .apply(
                    &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
                )
                .await
                .unwrap();
        }
        for _ in 0..600 {
            if server.list("OtelAgent", None).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        server
    }

    pub(super) fn api(&self, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => {
                Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
            }
            None => Api::all_with(self.client.clone(), &resource(kind)),
        }
    }

    pub(super) async fn list(
        &self,
        kind: &str,
        namespace: Option<&str>,
    ) -> kube::Result<Vec<Value>> {
        let found = self
            .api(kind, namespace)
            .list(&ListParams::default())
            .await?;
        Ok(found
            .items
            .into_iter()
            .map(|object| serde_json::to_value(object).unwrap())
            .collect())
    }

    async fn apply(&self, object: &Value) -> kube::Result<DynamicObject> {
        let name = object["metadata"]["name"].as_str().unwrap();
        let api = self.api(
            object["kind"].as_str().unwrap(),
            object["metadata"]["namespace"].as_str(),
        );
        api.patch(
            name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(object),
        )
        .await
    }

    pub(super) async fn create(&self, object: &Value) -> kube::Result<Value> {
        let api = self.api(
            object["kind"].as_str().unwrap(),
            object["metadata"]["namespace"].as_str(),
        );
        let object = serde_json::from_value(object.clone()).unwrap();
        api.create(&PostParams::default(), &object)
            .await
            .map(|object| serde_json::to_value(object).unwrap())
    }

    pub(super) async fn get(&self, name: &str) -> Value {
        serde_json::to_value(
            self.api("OtelAgent", Some(PLATFORM))
                .get(name)
                .await
                .unwrap(),
        )
        .unwrap()
    }

    /// Replaces the spec of an `OtelAgent`.
    pub(super) async fn replace(&self, name: &str, spec: &Value) -> kube::Result<Value> {
        self.put(name, spec, false).await
    }

    /// The result of that, by dry run.
    pub(super) async fn dry_run(&self, name: &str, spec: &Value) -> kube::Result<Value> {
        self.put(name, spec, true).await
    }

    async fn put(&self, name: &str, spec: &Value, dry_run: bool) -> kube::Result<Value> {
        let api = self.api("OtelAgent", Some(PLATFORM));
        loop {
            let mut object = api.get(name).await?;
            object.data["spec"] = spec.clone();
            let params = PostParams {
                dry_run,
                ..PostParams::default()
            };
            match api.replace(name, &params, &object).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                other => return other.map(|object| serde_json::to_value(object).unwrap()),
            }
        }
    }

    pub(super) async fn delete(&self, kind: &str, namespace: Option<&str>, name: &str) {
        let gone = DeleteParams::background().grace_period(0);
        let _ = self.api(kind, namespace).delete(name, &gone).await;
    }

    /// What the server would store of an object that is applied.
    pub(super) async fn dry_apply(&self, object: &Value) -> Result<Value, String> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let namespace = object["metadata"]["namespace"].as_str();
        let mut params = PatchParams::apply(FIELD_MANAGER).force();
        params.dry_run = true;
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let answer = self
            .api(kind, namespace)
            .patch(name, &params, &Patch::Apply(object))
            .await;
        answer
            .map(|object| serde_json::to_value(object).unwrap())
            .map_err(|error| error.to_string())
    }

    /// What the server would make of a pod of the canary namespace.
    pub(super) async fn dry_run_pod(&self, pod: &Value) -> Result<Value, String> {
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pod = serde_json::from_value(pod.clone()).unwrap();
        let answer = self
            .api("Pod", Some("otelagent-canary"))
            .create(&params, &pod)
            .await;
        answer
            .map(|object| serde_json::to_value(object).unwrap())
            .map_err(|error| error.to_string())
    }

    /// The controller, in this process.
    pub(super) async fn with_controller(&self) -> (JoinHandle<Result<(), String>>, Metrics) {
        let metrics = Metrics::new();
        let settings = Settings {
            namespace: PLATFORM.into(),
            platform_namespaces: [PLATFORM.to_owned()].into(),
            agent_image: "otelagent/agent:test".into(),
            canary_namespace: "otelagent-canary".into(),
            owner_role: None,
            instance: "random-edits".into(),
            injection: otelagent_operator::controller::InjectionSettings::default(),
            version: "0.0.0".into(),
        };
        let controller = Controller::start(self.client.clone(), settings, metrics.clone())
            .await
            .unwrap();
        let run = controller.run(std::future::pending());
        (
            tokio::spawn(async { run.await.map_err(|error| error.to_string()) }),
            metrics,
        )
    }
}

/// Numbers that follow from a seed (splitmix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let bound = u64::try_from(bound).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % bound).unwrap()
    }
}

/// The seed of samples, as a number; a word counts as one, too.
pub(super) fn seed() -> u64 {
    let seed = crate::test_scale::seed();
    seed.parse().unwrap_or_else(|_| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        hasher.finish()
    })
}

/// An `OtelAgent` of the platform namespace.
pub(super) fn agent(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": name, "namespace": PLATFORM}, "spec": spec,
    })
}

/// A spec with something in most fields, so that an edit has something to disturb.
pub(super) fn base() -> Value {
    json!({
        "mode": "NodeLocal",
        "export": {
            "endpoint": "https://c.o.svc:4317",
            "headers": [{"name": "x-tenant", "value": "a"}, {"name": "authorization", "secretKeyRef": {"name": "creds", "key": "token"}}],
            "tls": {"caConfigMap": {"name": "ca", "key": "ca.crt"}, "clientCertificateSecret": {"name": "client"}, "serverName": "c"},
        },
        "batch": {"flushInterval": "200ms", "maxSize": "3Mi"},
        "buffer": {"memory": "64Mi", "disk": {"size": "1Gi"}},
        "resourceAttributes": {"deployment.environment.name": "test"},
        "workloads": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SHOP}},
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
            "flushInterval": "500ms",
        },
        "switchover": {"holdOld": "0s"},
        "agent": {
            "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "256Mi"}},
            "tolerations": [{"key": "a", "operator": "Equal", "value": "v", "effect": "NoExecute"}],
        },
    })
}
