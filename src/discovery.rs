//! What the API server is and offers: its version, its admission kinds, the family of its nodes' addresses,
//! and which parts of the operator are installed.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client, ResourceExt};
use otelagent_core::build::{IpFamily, ServerVersion};
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use serde_json::{Value, json};

use crate::controller::{ControllerError, Result};

/// How often the API server is asked whether it has changed.
pub(crate) const ASK_EVERY: Duration = Duration::from_mins(1);
/// How often in a row it must say so: while a control plane is upgraded its API servers differ.
const CONFIRMATIONS: u32 = 3;

/// What the API server is and offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its version.
    pub(crate) version: ServerVersion,
    /// The admission kinds it serves.
    pub(crate) kinds: Vec<&'static str>,
}

/// Asks the API server for its version and its admission kinds.
pub(crate) async fn server(client: &Client) -> Result<Server> {
    let info = client.apiserver_version().await;
    let info = info.map_err(ControllerError::api("read the API server's version"))?;
    let version = ServerVersion::parse(&info.major, &info.minor)
        .ok_or_else(|| ControllerError::Version(format!("{}.{}", info.major, info.minor)))?;
    let group = "admissionregistration.k8s.io/v1";
    let served = client.list_api_group_resources(group).await;
    let action = "list the API server's admission resources";
    let served = served.map_err(ControllerError::api(action))?.resources;
    let is_served = |kind: &&str| served.iter().any(|known| known.kind == *kind);
    Ok(Server {
        version,
        kinds: ADMISSION_KINDS.into_iter().filter(is_served).collect(),
    })
}

/// Returns once the API server has become another one, which only a new start of the operator takes into
/// account: engines, watches and refusals depend on it. An API server that does not answer has not changed.
pub(crate) async fn until_changed(
    client: &Client,
    known: &Server,
    ask_every: Duration,
) -> ControllerError {
    let (mut last, mut times) = (known.clone(), 0);
    loop {
        tokio::time::sleep(ask_every).await;
        let Ok(now) = server(client).await else {
            continue;
        };
        times = if now == last { times + 1 } else { 1 };
        last = now;
        if last != *known && times >= CONFIRMATIONS {
            return ControllerError::ServerChanged {
                before: known.version,
                after: last.version,
            };
        }
    }
}

/// The family of the nodes' first addresses, which is the same on all of them. IPv4 where there is no node.
pub(crate) async fn family_of_nodes(client: &Client) -> Result<IpFamily> {
    let one = ListParams::default().limit(1);
    let nodes = Api::<Node>::all(client.clone()).list(&one).await;
    let nodes = nodes.map_err(ControllerError::api("read a node"))?;
    let status = nodes.items.first().and_then(|node| node.status.as_ref());
    let addresses = status.and_then(|status| status.addresses.as_ref());
    let mut internal = addresses.into_iter().flatten();
    let first = internal.find(|address| address.type_ == "InternalIP");
    let is_v6 = first.is_some_and(|first| first.address.contains(':'));
    Ok(if is_v6 { IpFamily::V6 } else { IpFamily::V4 })
}

/// Owner reference to a `ClusterRole` that stands for a part of the installation, so that cluster-scoped
/// objects go with it even if the operator went first. `None` where it does not exist or may not be read,
/// which is the same: the role grants the reading.
pub(crate) async fn installation(client: &Client, name: &str) -> Result<Option<Value>> {
    let api: Api<PartialObjectMeta<ClusterRole>> = Api::all(client.clone());
    let found = match api.get_opt(name).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => None,
        found => found.map_err(ControllerError::api(format!("read the ClusterRole {name}")))?,
    };
    let uid = found.and_then(|role| role.uid());
    Ok(uid.map(|uid| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "name": name,
            "uid": uid,
        })
    }))
}
