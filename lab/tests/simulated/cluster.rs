//! The bed, what is installed on it, and the clients of it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use http::header::{HeaderName, HeaderValue};
use kube::{Client, Config};
use serde_json::{Value, json};
use testbed::Bed;

use super::kubelet;
use crate::client::direct_config;
use crate::status_checker::log::Recorder;

/// The user of the controller.
const OPERATOR: &str = "system:serviceaccount:otelagent-system:otelagent-operator";
/// The groups of every `ServiceAccount`.
const GROUPS: [&str; 3] = [
    "system:serviceaccounts",
    "system:serviceaccounts:otelagent-system",
    "system:authenticated",
];

/// The cluster that all runs share.
pub(super) struct Cluster {
    /// Sees everything, writes nothing.
    pub(super) recorder: Recorder,
    bed: Bed,
}

/// It starts at its first use and ends with this process, which the bed watches.
pub(super) async fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    tokio::task::spawn_blocking(|| CLUSTER.get_or_init(|| start("faults")))
        .await
        .unwrap()
}

/// Another, for an operator that sees all there is.
pub(super) async fn whole_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    tokio::task::spawn_blocking(|| CLUSTER.get_or_init(|| start("killed")))
        .await
        .unwrap()
}

/// A third, whose operator and agents are observed.
pub(super) async fn observed_cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    tokio::task::spawn_blocking(|| CLUSTER.get_or_init(|| start("observed")))
        .await
        .unwrap()
}

fn start(what: &str) -> Cluster {
    let name = format!("{what}-{}", std::process::id());
    let bed = Bed::builder().name(name).start().expect("a control plane");
    let recorder = kubelet::start_apart(bed.kubeconfig(), Recorder::start);
    let cluster = Cluster { recorder, bed };
    for part in [
        "crds",
        "manifests/default/namespaces.yaml",
        "manifests/default/owner.yaml",
        "manifests/default/rbac.yaml",
    ] {
        let flag = if part == "crds" { "-k" } else { "-f" };
        cluster.kubectl(&["apply", flag, part]);
    }
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/otelagents.otelagent.dev",
    ]);
    cluster
}

impl Cluster {
    /// A kubeconfig with the operator's own token, for a process of its own.
    pub(super) fn operator_kubeconfig(&self) -> PathBuf {
        let token = self.kubectl(&[
            "create",
            "token",
            "otelagent-operator",
            "--namespace=otelagent-system",
        ]);
        let text = std::fs::read_to_string(self.bed.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let file = self.bed.kubeconfig().with_file_name("operator.kubeconfig");
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// The administrator's kubeconfig.
    pub(super) fn kubeconfig(&self) -> &Path {
        self.bed.kubeconfig()
    }

    fn kubectl(&self, words: &[&str]) -> String {
        let output = self
            .bed
            .kubectl()
            .args(words)
            .current_dir(demo::repository())
            .output()
            .expect("kubectl runs");
        assert!(output.status.success(), "kubectl {words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// As administrator.
    pub(super) async fn admin(&self) -> Client {
        Client::try_from(direct_config(self.bed.kubeconfig()).await).unwrap()
    }

    /// As the operator.
    pub(super) async fn as_operator(&self) -> Config {
        let mut config = direct_config(self.bed.kubeconfig()).await;
        let header = |name: &'static str, value: &'static str| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        config.headers.push(header("impersonate-user", OPERATOR));
        for group in GROUPS {
            config.headers.push(header("impersonate-group", group));
        }
        config
    }
}

/// What makes a namespace a platform namespace, as manifests/platform-namespace does.
pub(crate) fn platform(namespace: &str) -> Vec<(String, Value)> {
    let name = "otelagent-operator-vehicles";
    let verbs = ["get", "list", "watch", "create", "patch", "delete"];
    vec![
        (
            "/api/v1/namespaces".into(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        ),
        (
            format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": [
                {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": verbs},
                {"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": verbs},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["patch"]},
                {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
            ]}),
        ),
        (
            format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": "otelagent-operator", "namespace": "otelagent-system"}]}),
        ),
    ]
}
