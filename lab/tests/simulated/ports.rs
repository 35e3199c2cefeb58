//! Two `OtelAgent`s that need the same ports of the nodes.

use serde_json::{Value, json};

use super::run::{Outcome, Run, condition, send};
use super::topology::{ALL, Topology};
use crate::status_checker::{get, list};

const HOST_PORT: Topology = ALL[1];
const HOST_NETWORK: Topology = ALL[2];
const NODE_LOCAL: Topology = ALL[3];

#[tokio::test(flavor = "multi_thread")]
async fn taken_port_refuses_the_younger_otelagent_until_it_is_free() {
    Run::through("two OtelAgents on one port", async |run| tell(run).await).await;
}

async fn tell(run: &Run) -> Outcome<()> {
    run.create(HOST_PORT).await?;
    run.until_serving(HOST_PORT).await?;
    let older = get(&run.admin, &run.path()).await?;
    let (agents, _) = run
        .path()
        .rsplit_once('/')
        .map(|(list, name)| (list.to_owned(), name.to_owned()))
        .unwrap();
    let mut spec = json!({"export": older["spec"]["export"], "ports": older["spec"]["ports"]});
    spec["mode"] = "HostNetwork".into();
    let younger = json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": "younger"}, "spec": spec,
    });
    send(&run.admin, http::Method::POST, &agents, &younger).await?;
    let younger = format!("{agents}/younger");
    let port = older["spec"]["ports"]["grpc"].to_string();
    let own = format!("{}/{}", run.namespace, run.name);
    until_refused(run, &younger, &[&own, &port, "mode HostPort"]).await?;
    let sets = format!("/apis/apps/v1/namespaces/{}/daemonsets", run.namespace);
    assert_eq!(list(&run.admin, &sets).await?.len(), 1);

    // The port is free once the agents of the old mode are gone.
    run.want(NODE_LOCAL).await?;
    until(run, &younger, |agent| {
        condition(agent, "Accepted")["status"] == "True"
            && condition(agent, "Ready")["reason"] == "Serving"
    })
    .await?;
    let sets: Vec<String> = list(&run.admin, &sets).await?.iter().map(named).collect();
    let expected = [
        format!("{}-node-local", run.name),
        "younger-host-network".into(),
    ];
    assert_eq!(sets, expected);

    // Running agents are not cut off by an older object that turns to their ports, and it keeps what it has.
    run.want(HOST_NETWORK).await?;
    until_refused(run, &run.path(), &["/younger", &port]).await?;
    let refused = get(&run.admin, &run.path()).await?;
    assert_eq!(refused["status"]["mode"], "NodeLocal");
    assert_eq!(condition(&refused, "Ready")["status"], "True");
    send(&run.admin, http::Method::DELETE, &younger, &Value::Null).await?;
    run.until_serving(HOST_NETWORK).await
}

fn named(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str();
    name.unwrap_or_default().to_owned()
}

async fn until_refused(run: &Run, path: &str, said: &[&str]) -> Outcome<()> {
    until(run, path, |agent| {
        let accepted = condition(agent, "Accepted");
        let message = accepted["message"].as_str().unwrap_or_default();
        accepted["status"] == "False"
            && accepted["reason"] == "PortInUse"
            && said.iter().all(|part| message.contains(part))
    })
    .await
}

async fn until(run: &Run, path: &str, test: impl Fn(&Value) -> bool) -> Outcome<()> {
    run.until(path, async || {
        let agent = get(&run.admin, path).await?;
        Ok(test(&agent)
            .then_some(())
            .ok_or_else(|| agent["status"].to_string()))
    })
    .await
}
