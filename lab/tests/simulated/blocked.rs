//! Agents that cannot be created: the reason is in the status, and what serves goes on serving.

use serde_json::{Value, json};

use super::run::{Outcome, Run, condition};
use super::topology::{ALL, Topology};
use crate::status_checker::get;

const HOST_PORT: Topology = ALL[1];
const NODE_LOCAL: Topology = ALL[3];
/// What the API server says of it.
const UNKNOWN_CLASS: &str = "no PriorityClass with name nope was found";

#[tokio::test(flavor = "multi_thread")]
async fn status_names_why_agents_cannot_be_created_while_older_ones_serve() {
    Run::through("agents that cannot be created", async |run| tell(run).await).await;
}

async fn tell(run: &Run) -> Outcome<()> {
    run.create(NODE_LOCAL).await?;
    run.until_serving(NODE_LOCAL).await?;
    let class = |name: Value| json!({"spec": {"agent": {"priorityClassName": name}}});
    run.patch(&run.path(), &class(json!("nope"))).await?;
    until(run, "Ready", ("True", "NotRolledOut")).await?;
    // Another mode does not come to serve for the same reason.
    run.want(HOST_PORT).await?;
    until(run, "Switching", ("True", "AgentsNotReady")).await?;
    let agent = get(&run.admin, &run.path()).await?;
    assert_eq!(agent["status"]["mode"], "NodeLocal");
    assert_eq!(condition(&agent, "Ready")["status"], "True");

    run.patch(&run.path(), &class(Value::Null)).await?;
    run.until_serving(HOST_PORT).await
}

/// Waits until a condition says so, with the reason for which pods are refused.
async fn until(run: &Run, kind: &str, (status, reason): (&str, &str)) -> Outcome<()> {
    run.until(&format!("{kind} {status} {reason}"), async || {
        let agent = get(&run.admin, &run.path()).await?;
        let found = condition(&agent, kind);
        let message = found["message"].as_str().unwrap_or_default();
        let holds = found["status"] == status
            && found["reason"] == reason
            && message.contains(UNKNOWN_CLASS);
        Ok(holds
            .then_some(())
            .ok_or_else(|| agent["status"].to_string()))
    })
    .await
}
