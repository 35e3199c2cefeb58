//! What the API server offers: its version, its admission kinds, the family of its nodes' addresses, and
//! which parts of the operator are installed.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client, ResourceExt};
use otelagent_core::build::{IpFamily, ServerVersion};
use otelagent_core::inject::kinds::ADMISSION_KINDS;
use otelagent_core::node_addresses::family;
use serde_json::{Value, json};

use crate::controller::{ControllerError, Result};

/// How often the operator checks whether the API server has changed.
const ASK_EVERY: Duration = Duration::from_mins(1);
/// How many checks in a row must find the change: the API servers differ while a control plane is upgraded, and an
/// older one lacks the engine that a newer one offers.
const CONFIRMATIONS: u32 = 15;
/// How many nodes are asked for their addresses: the first ones may have none.
const NODES_ASKED: u32 = 50;
/// How often the operator tries to read nodes that it may not read.
const ASK_NODES_EVERY: Duration = Duration::from_secs(10);

/// What the API server offers.
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

/// Returns once the API server has changed. Engines, watches and refusals depend on it, so the operator
/// must restart. An API server that does not answer has not changed.
async fn until_changed(client: &Client, known: &Server, ask_every: Duration) -> ControllerError {
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

/// The family of the nodes' first addresses, assumed to be the same on all nodes. IPv4 without any node; `None` if the
/// operator may not read them.
pub(crate) async fn family_of_nodes(client: &Client) -> Result<Option<IpFamily>> {
    let some = ListParams::default().limit(NODES_ASKED);
    let nodes = match Api::<Node>::all(client.clone()).list(&some).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() => return Ok(None),
        nodes => nodes.map_err(ControllerError::api("read nodes"))?,
    };
    Ok(Some(family(&nodes.items).unwrap_or(IpFamily::V4)))
}

/// Returns once something has changed on which everything since the start depends: the API server, or that the nodes
/// could not be read.
pub(crate) async fn until_restart_is_due(
    client: Client,
    known: Server,
    family: Option<IpFamily>,
) -> ControllerError {
    let readable = async {
        match family {
            Some(_) => std::future::pending().await,
            None => until_nodes_readable(&client).await,
        }
    };
    tokio::select! {
        changed = until_changed(&client, &known, ASK_EVERY) => changed,
        readable = readable => readable,
    }
}

/// Returns once the operator may read the nodes, whose addresses it must know from its start.
async fn until_nodes_readable(client: &Client) -> ControllerError {
    loop {
        tokio::time::sleep(ASK_NODES_EVERY).await;
        if let Ok(Some(_)) = family_of_nodes(client).await {
            return ControllerError::NodesReadable;
        }
    }
}

/// Reference to a `ClusterRole` that owns what a part of the installation writes for the whole cluster.
/// Kubernetes then deletes these objects with that part, even without the operator. `None` if the role does not
/// exist or may not be read, which is the same: the part grants the right to read it.
pub(crate) async fn owner_role(client: &Client, name: &str) -> Result<Option<Value>> {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use tower::service_fn;

    use super::*;

    /// A client of API servers that take turns: the minor version that answers each look, the last one for good.
    /// Zero is a server that does not answer.
    fn client(minors: Vec<u32>) -> (Client, Arc<AtomicUsize>) {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let service = service_fn(move |request: Request<Body>| {
            let is_version = request.uri().path() == "/version";
            // The second request of a look goes to the same server.
            let at = if is_version {
                counted.fetch_add(1, Ordering::SeqCst)
            } else {
                counted.load(Ordering::SeqCst).saturating_sub(1)
            };
            let minor = minors
                .get(at)
                .or(minors.last())
                .copied()
                .unwrap_or_default();
            let body = if is_version {
                let text = "";
                json!({
                    "major": "1", "minor": minor.to_string(), "gitVersion": text, "gitCommit": text,
                    "gitTreeState": text, "buildDate": text, "goVersion": text, "compiler": text, "platform": text,
                })
            } else {
                json!({"kind": "APIResourceList", "groupVersion": "admissionregistration.k8s.io/v1", "resources": []})
            };
            let code = if minor == 0 { 503 } else { 200 };
            let response = Response::builder().status(code);
            let response = response.body(Body::from(body.to_string().into_bytes()));
            async move { response }
        });
        (Client::new(service, "default"), looks)
    }

    /// How often the API server was asked until it counted as changed; `None` where it never did.
    async fn looks_until_changed(minors: Vec<u32>) -> Option<usize> {
        let (client, looks) = client(minors);
        let known = Server {
            version: ServerVersion {
                major: 1,
                minor: 35,
            },
            kinds: Vec::new(),
        };
        let changed = until_changed(&client, &known, ASK_EVERY);
        let error = tokio::time::timeout(Duration::from_hours(2), changed).await;
        let error = error.ok()?;
        assert_eq!(error.reason(), "ServerChanged");
        Some(looks.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn upgraded_server_counts_as_changed_once_it_has_answered_often_enough() {
        let all = CONFIRMATIONS as usize;
        assert_eq!(looks_until_changed(vec![35, 36]).await, Some(all + 1));
        // An older server in between, as behind a load balancer during an upgrade, begins anew.
        assert_eq!(
            looks_until_changed(vec![36, 36, 35, 36]).await,
            Some(all + 3)
        );
        // No answer changes nothing.
        assert_eq!(looks_until_changed(vec![36, 0, 36]).await, Some(all + 1));
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_or_alternating_servers_never_count_as_changed() {
        assert_eq!(looks_until_changed(vec![35]).await, None);
        let alternating = [35, 36].repeat(200);
        assert_eq!(looks_until_changed(alternating).await, None);
    }
}
