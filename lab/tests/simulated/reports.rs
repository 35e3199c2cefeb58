//! The status names the failure after every end of a reconcile: refused and failed calls, the deadline, a panic, and a
//! missing installation.

use http::Method;
use otelagent_core::build::Choice;
use serde_json::json;

use super::cluster::cluster;
use super::faults::{How, Spoil};
use super::run::{Outcome, Run, condition};
use super::topology::{ALL, Topology};
use crate::status_checker::get;

const SIDECAR: Topology = ALL[0];
const HOST_PORT: Topology = ALL[1];
const NODE_LOCAL: Topology = ALL[3];

/// What every request of a kind becomes, and the reason in `Ready` that must come of it.
struct Exit {
    method: Method,
    address: &'static str,
    how: How,
    reason: &'static str,
    /// The change of the spec that leads there: another configuration, or another mode.
    is_switch: bool,
}

const PATCH: Method = Method::PATCH;
const POLICIES: &str = "/mutatingadmissionpolicies/";
const BINDINGS: &str = "/mutatingadmissionpolicybindings/";
const WARNINGS: &str = "/validatingadmissionpolicies/";
/// What a step presupposes is asked before pods are sent elsewhere.
const ACTIVE: &str = "mutatingadmissionpolicybindings?&fieldSelector";

fn exits() -> Vec<Exit> {
    let of = |is_switch, (method, address, how, reason)| Exit {
        method,
        address,
        how,
        reason,
        is_switch,
    };
    let changes = [
        (PATCH, "/daemonsets/", How::Answer(403), "Forbidden"),
        (PATCH, "/daemonsets/", How::Answer(409), "Conflict"),
        (PATCH, "/daemonsets/", How::Answer(422), "Invalid"),
        (PATCH, "/daemonsets/", How::Answer(500), "ApiRefused"),
        (PATCH, "/daemonsets/", How::Panic, "Panicked"),
        (PATCH, "/daemonsets/", How::Silence, "Timeout"),
        (PATCH, POLICIES, How::Answer(403), "Forbidden"),
        (PATCH, POLICIES, How::Answer(422), "Invalid"),
        (PATCH, BINDINGS, How::Answer(500), "ApiRefused"),
        (PATCH, WARNINGS, How::Answer(403), "Forbidden"),
        (Method::GET, "/otelagents/", How::Answer(500), "ApiRefused"),
        (Method::DELETE, POLICIES, How::Answer(403), "Forbidden"),
    ];
    let switches = [
        (Method::GET, ACTIVE, How::Answer(403), "Forbidden"),
        (Method::GET, ACTIVE, How::Answer(503), "ApiRefused"),
        (Method::GET, ACTIVE, How::Panic, "Panicked"),
        (Method::GET, "/daemonsets/", How::Answer(500), "ApiRefused"),
        (
            Method::DELETE,
            "/daemonsets/",
            How::Answer(403),
            "Forbidden",
        ),
    ];
    let changes = changes.map(|row| of(false, row)).into_iter();
    changes.chain(switches.map(|row| of(true, row))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_names_the_failure_at_every_exit() {
    Run::through("status at every exit", async |run| tell(run).await).await;
}

async fn tell(run: &Run) -> Outcome<()> {
    run.create(NODE_LOCAL).await?;
    run.until_serving(NODE_LOCAL).await?;
    for (number, exit) in exits().into_iter().enumerate() {
        run.faults.spoil(Some(Spoil {
            method: exit.method.clone(),
            address: exit.address,
            how: exit.how,
        }));
        if exit.is_switch {
            run.want(HOST_PORT).await?;
        } else {
            change(run, 2 * number).await?;
        }
        let what = format!("{} {} {:?}", exit.method, exit.address, exit.how);
        until_ready_says(run, &what, exit.reason).await?;
        run.faults.spoil(None);
        if exit.is_switch {
            run.want(NODE_LOCAL).await?;
        }
        change(run, 2 * number + 1).await?;
        run.until_serving(NODE_LOCAL).await?;
    }
    Ok(())
}

/// Other agents, and another selection of pods, which is another policy.
async fn change(run: &Run, number: usize) -> Outcome<()> {
    let interval = format!("{}ms", 300 + number);
    let selector = json!({"matchLabels": {"app": format!("shop-{number}")}});
    let spec = json!({
        "agent": {"podLabels": {"round": interval}},
        "workloads": {"podSelector": selector},
    });
    run.patch(&run.path(), &json!({"spec": spec})).await
}

async fn until_ready_says(run: &Run, what: &str, reason: &str) -> Outcome<()> {
    run.until(&format!("{reason} after {what}"), async || {
        let agent = get(&run.admin, &run.path()).await?;
        let ready = condition(&agent, "Ready");
        let says = ready["status"] == "False" && ready["reason"] == reason;
        Ok(says
            .then_some(())
            .ok_or_else(|| agent["status"].to_string()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_that_the_webhook_is_not_installed() {
    if !testbed::skip_unless_possible("status without the webhook") {
        return;
    }
    let webhook = |settings: &mut otelagent_operator::controller::Settings| {
        settings.injection.engine = Choice::Webhook;
    };
    let run = Run::start_with(cluster().await, webhook).await;
    let outcome = async {
        run.create(SIDECAR).await?;
        until_ready_says(&run, "a start without the webhook", "WebhookNotInstalled").await?;
        let agent = get(&run.admin, &run.path()).await?;
        let injected = condition(&agent, "Injected");
        assert_eq!(injected["reason"], "WebhookNotInstalled", "{injected}");
        let message = injected["message"].as_str().unwrap_or_default();
        assert!(message.contains("manifests/webhook"), "{message}");
        assert_eq!(condition(&agent, "Accepted")["status"], "True");
        Outcome::Ok(())
    };
    let outcome = outcome.await;
    run.end().await;
    outcome.unwrap();
}
