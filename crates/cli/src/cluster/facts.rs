//! Asks a cluster what `check` judges.

use futures::future::{join_all, join3, join4};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ListParams, PostParams};
use otelagent_core::inject::kinds::{POLICY, WEBHOOK_CONFIGURATION};
use otelagent_core::names;
use serde::Deserialize;
use serde_json::Value;

use super::Cluster;
use super::request::{Kind, admission_kind};
use super::snapshot::LIVE;
use crate::check::{Access, Facts, Holder, Needed, PortPod};
use crate::error::{CliError, Right};
use crate::snapshot::Snapshot;

/// The labels of the webhook's Deployment.
const WEBHOOK: &str = "app.kubernetes.io/name=otelagent,app.kubernetes.io/component=webhook";
/// Name of the operator's Lease.
const LEASE: &str = "otelagent-operator";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// A right as it is asked for: verb, resource, group, and whether it is in the operator's namespace only.
type Asked = (&'static str, &'static str, &'static str, bool);

/// What an installation creates.
const TO_INSTALL: [Asked; 10] = [
    (
        "create",
        "customresourcedefinitions",
        "apiextensions.k8s.io",
        false,
    ),
    ("create", "namespaces", "", false),
    ("create", "clusterroles", "rbac.authorization.k8s.io", false),
    (
        "create",
        "clusterrolebindings",
        "rbac.authorization.k8s.io",
        false,
    ),
    ("create", "validatingadmissionpolicies", ADMISSION, false),
    (
        "create",
        "validatingadmissionpolicybindings",
        ADMISSION,
        false,
    ),
    ("create", "serviceaccounts", "", true),
    ("create", "roles", "rbac.authorization.k8s.io", true),
    ("create", "rolebindings", "rbac.authorization.k8s.io", true),
    ("create", "deployments", "apps", true),
];
/// What this program reads.
const TO_LOOK: [Asked; 7] = [
    ("list", "otelagents", names::GROUP, false),
    ("list", "pods", "", false),
    ("list", "nodes", "", false),
    ("list", "namespaces", "", false),
    ("list", "mutatingadmissionpolicybindings", ADMISSION, false),
    ("list", "deployments", "apps", false),
    ("get", "pods/proxy", "", false),
];

/// The fields that are read of a node.
#[derive(Clone, Debug, Deserialize)]
struct NodeFacts {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    #[serde(default)]
    status: NodeStatusFacts,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatusFacts {
    node_info: NodeInfoFacts,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfoFacts {
    kubelet_version: String,
}

/// Asks a cluster before an installation, or with `installed` for its parts.
///
/// # Errors
/// If the API server cannot be asked.
pub async fn facts(cluster: &Cluster, installed: Option<Snapshot>) -> Result<Facts, CliError> {
    let (all, live) = (ListParams::default(), ListParams::default().fields(LIVE));
    let asked: &[Asked] = if installed.is_some() {
        &TO_LOOK
    } else {
        &TO_INSTALL
    };
    let snapshot = installed.unwrap_or_default();
    let namespace = snapshot.installation.namespace.clone();
    let rights = asked.iter().map(|right| cluster.may(*right, &namespace));
    let (nodes, ports, offers, rights) = join4(
        cluster.list_as::<Node, NodeFacts>(None, &all),
        cluster.list_as::<Pod, PortPod>(None, &live),
        cluster.serves_admission(POLICY),
        join_all(rights),
    )
    .await;
    let nodes = access(nodes.map(Some))?.map(|nodes| {
        let nodes = nodes.into_iter();
        let facts = nodes.map(|node| {
            let labels = node.metadata.labels.unwrap_or_default();
            (labels, node.status.node_info.kubelet_version)
        });
        facts.collect()
    });
    let ports = access(ports.map(Some))?;
    let facts = Facts {
        now: Timestamp::now(),
        server: cluster.version().await.ok(),
        offers_policies: offers?,
        nodes,
        ports: ports.map(|pods| pods.into_iter().filter_map(PortPod::taken).collect()),
        rights: rights.into_iter().collect::<Result<_, _>>()?,
        snapshot,
        ..Facts::default()
    };
    Ok(facts)
}

/// Asks for the parts of an installation, too.
///
/// # Errors
/// If the API server cannot be asked.
pub async fn parts(cluster: &Cluster, facts: Facts) -> Result<Facts, CliError> {
    let installation = &facts.snapshot.installation;
    let namespace = installation.namespace.as_str();
    let ours = ListParams::default().labels(&names::managed_selector());
    let webhook = ListParams::default().labels(WEBHOOK);
    let crd = format!("otelagents.{}", names::GROUP);
    let (crd, owner, lease) = join3(
        cluster.object(
            "apiextensions.k8s.io/v1",
            "CustomResourceDefinition",
            "",
            &crd,
        ),
        cluster.object(
            "rbac.authorization.k8s.io/v1",
            "ClusterRole",
            "",
            &installation.owner_role,
        ),
        cluster.lease(namespace),
    )
    .await;
    let configurations = admission_kind(WEBHOOK_CONFIGURATION);
    let configurations = cluster.list_dynamic(&configurations, None, &ours).await;
    let deployments = cluster.list::<Deployment>(Some(namespace), &webhook).await;
    let trusted = access(configurations.map(Some))?.map(|found| {
        let bundles = found.iter().filter_map(|one| {
            let client = one.data.pointer("/webhooks/0/clientConfig/caBundle")?;
            let bytes: k8s_openapi::ByteString = serde_json::from_value(client.clone()).ok()?;
            String::from_utf8(bytes.0).ok()
        });
        bundles.collect::<Vec<String>>().join("\n")
    });
    let webhook = deployments.map(|found| found.first().map(replicas));
    Ok(Facts {
        crd: access(crd)?,
        owner: access(owner)?.map(|_: Value| ()),
        holder: access(lease)?.map(holder),
        webhook: access(webhook)?,
        trusted,
        ..facts
    })
}

fn replicas(deployment: &Deployment) -> (i32, i32) {
    let ready = deployment
        .status
        .as_ref()
        .and_then(|status| status.ready_replicas);
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    (ready.unwrap_or_default(), wanted.unwrap_or(1))
}

fn holder(lease: Lease) -> Holder {
    let spec = lease.spec.unwrap_or_default();
    Holder {
        name: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|at| at.0),
        seconds: spec.lease_duration_seconds.unwrap_or_default().into(),
    }
}

/// What was found, or the right that is missing. Other errors are errors.
fn access<T>(found: Result<Option<T>, CliError>) -> Result<Access<T>, CliError> {
    match found {
        Ok(Some(found)) => Ok(Access::Found(found)),
        Ok(None) | Err(CliError::NotServed(_)) => Ok(Access::Absent),
        Err(CliError::Forbidden(right)) => Ok(Access::Denied(right)),
        Err(error) => Err(error),
    }
}

impl Cluster {
    async fn lease(&self, namespace: &str) -> Result<Option<Lease>, CliError> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        self.get(&api, &(), Some(namespace), LEASE).await
    }

    /// Whether the user has a right.
    async fn may(
        &self,
        (verb, resource, group, in_namespace): Asked,
        namespace: &str,
    ) -> Result<Needed, CliError> {
        let namespace = in_namespace.then(|| namespace.to_owned());
        let (plural, subresource) = match resource.split_once('/') {
            Some((plural, subresource)) => (plural, Some(subresource.to_owned())),
            None => (resource, None),
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    group: Some(group.into()),
                    resource: Some(plural.into()),
                    subresource,
                    namespace: namespace.clone(),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let asked = api.create(&parameters, &review);
        let kind = Kind::of::<SelfSubjectAccessReview>(&());
        let answer = self.bounded(asked, "create", &kind, None).await?;
        let asked = Kind {
            plural: resource.to_owned(),
            group: group.to_owned(),
        };
        Ok(Needed {
            right: Right {
                verb,
                resource: asked.shown(),
                namespace,
            },
            is_granted: answer.status.is_some_and(|status| status.allowed),
        })
    }
}
