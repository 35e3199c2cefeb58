//! One right of the operator is missing: the status names it, and whatever does not need it goes on.

use http::Method;
use serde_json::{Value, json};

use super::faults::{How, Spoil};
use super::run::{Outcome, Run, condition};
use super::topology::{ALL, Topology};
use crate::status_checker::get;

const SIDECAR: Topology = ALL[0];
const NODE_LOCAL: Topology = ALL[3];

const NODES: &str = "/nodes?";

/// What is refused, how the status names it, and whether everything else goes on.
const REFUSED: [(&str, &str, bool); 10] = [
    ("/limitranges?", "list limitranges", true),
    ("/resourcequotas?", "list resourcequotas", true),
    ("/resourcequotas?&watch", "watch resourcequotas", true),
    ("/events?", "", true),
    (NODES, "list nodes", false),
    ("/namespaces?", "list namespaces", false),
    ("/pods?&watch", "watch pods", false),
    ("/configmaps?", "list configmaps in namespace", false),
    ("/daemonsets?&watch", "watch daemonsets in namespace", false),
    (
        "/mutatingadmissionpolicies?",
        "list mutatingadmissionpolicies",
        false,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn missing_right_is_named_and_ends_only_what_needs_it() {
    Run::through("a missing right", async |run| tell(run).await).await;
}

async fn tell(run: &mut Run) -> Outcome<()> {
    run.create(SIDECAR).await?;
    run.until_serving(SIDECAR).await?;
    for (number, (address, named, goes_on)) in REFUSED.into_iter().enumerate() {
        run.restart(|run| {
            run.faults.spoil(Some(Spoil {
                method: Method::GET,
                address,
                how: How::Answer(403),
            }));
        })
        .await;
        let interval = format!("{}ms", 300 + number);
        run.patch(
            &run.path(),
            &json!({"spec": {"batch": {"flushInterval": interval}}}),
        )
        .await?;
        run.until(&format!("{address} refused"), async || {
            let agent = get(&run.admin, &run.path()).await?;
            Ok(tells(&agent, named, goes_on)
                .then_some(())
                .ok_or_else(|| agent["status"].to_string()))
        })
        .await?;
        run.faults.spoil(None);
        if address == NODES {
            // It ends by itself, to learn the family of their addresses.
            run.restart(|_| {}).await;
        }
        run.until("everything permitted again", async || {
            let agent = get(&run.admin, &run.path()).await?;
            Ok(tells(&agent, "", true)
                .then_some(())
                .ok_or_else(|| agent["status"].to_string()))
        })
        .await?;
    }
    run.want(NODE_LOCAL).await?;
    run.until_serving(NODE_LOCAL).await
}

/// Whether a status is that of an operator that lacks a right, named so, or none.
fn tells(agent: &Value, named: &str, goes_on: bool) -> bool {
    let says = |kind: &str, status: &str, reason: &str| {
        let found = condition(agent, kind);
        let message = found["message"].as_str().unwrap_or_default();
        found["status"] == status && found["reason"] == reason && message.contains(named)
    };
    let is_current = agent["status"]["observedGeneration"] == agent["metadata"]["generation"];
    if !goes_on {
        let reasons = ["RightsMissing", "PlatformRightsMissing"];
        return reasons.iter().any(|reason| says("Ready", "False", reason));
    }
    let reason = if named.is_empty() {
        "Active"
    } else {
        "LimitsUnknown"
    };
    is_current
        && condition(agent, "Ready")["reason"] == "Serving"
        && says("Injected", "True", reason)
}
