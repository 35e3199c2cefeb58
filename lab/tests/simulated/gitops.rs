//! What tools for `GitOps` see: kstatus by its own library, Argo CD by the script in `gitops/argo-cd`, run by the
//! interpreter that Argo CD uses; and that the operator writes nothing of what users own.

use std::io::Write as _;
use std::process::{Command, Stdio};

use http::Method;
use serde_json::{Value, json};
use testbed::parts::{self, Part};

use super::faults::{How, Spoil};
use super::run::{Outcome, Run, condition};
use super::topology::{ALL, Topology};
use crate::status_checker::get;
use crate::test_scale::is_full;
use otelagent_core::names;

const HOST_PORT: Topology = ALL[1];
const NODE_LOCAL: Topology = ALL[3];
/// A class that does not exist, so that no agent can be created.
const MISSING: &str = "nope";

/// With `make test-full`: the two interpreters take a minute to build.
#[tokio::test(flavor = "multi_thread")]
async fn kstatus_and_argo_cd_tell_the_state_of_every_phase() {
    if !is_full() {
        return;
    }
    Run::through("kstatus", async |run| tell(run).await).await;
}

async fn tell(run: &mut Run) -> Outcome<()> {
    let built = tokio::task::spawn_blocking(|| parts::ensure(Part::Kstatus));
    built.await.unwrap().expect("kstatus");
    unseen(run).await?;
    first_agents(run).await?;
    refused(run).await?;
    switching(run).await?;
    failing(run).await?;
    writes_only_the_status(&get(&run.admin, &run.path()).await?);
    Ok(())
}

#[test]
fn config_map_for_argo_cd_has_the_script() {
    if !testbed::skip_unless_possible("the ConfigMap for Argo CD") {
        return;
    }
    let folder = demo::repository().join("gitops/argo-cd");
    let kubectl = parts::ensure(Part::Kubectl).expect("kubectl");
    let rendered = Command::new(kubectl)
        .arg("kustomize")
        .arg(&folder)
        .output()
        .unwrap();
    assert!(rendered.status.success(), "{rendered:?}");
    let map: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&rendered.stdout)).unwrap();
    assert_eq!(map["metadata"]["name"], "argocd-cm");
    let script = std::fs::read_to_string(folder.join("health.lua")).unwrap();
    let key = "resource.customizations.health.otelagent.dev_OtelAgent";
    assert_eq!(map["data"][key], script);
}

/// An object of which no operator has taken notice, and a new spec of one that was served.
async fn unseen(run: &mut Run) -> Outcome<()> {
    run.without_controller().await;
    run.create(NODE_LOCAL).await?;
    let agent = get(&run.admin, &run.path()).await?;
    assert_eq!(agent["status"], json!({"observedGeneration": -1}));
    both_say(&agent, ("InProgress", "Progressing"), "");
    run.patch(&run.path(), &class(&json!(MISSING))).await?;
    run.restart(|_| {}).await;
    Ok(())
}

async fn first_agents(run: &mut Run) -> Outcome<()> {
    let agent = until(run, "Ready", ("False", "FirstAgentsNotReady"), MISSING).await?;
    both_say(&agent, ("InProgress", "Progressing"), MISSING);
    run.patch(&run.path(), &class(&Value::Null)).await?;
    run.until_serving(NODE_LOCAL).await?;
    let agent = get(&run.admin, &run.path()).await?;
    both_say(&agent, ("Current", "Healthy"), "");
    run.applications().await?;
    run.until_settled(NODE_LOCAL).await?;

    // A user's change, before the operator takes notice of it.
    run.without_controller().await;
    run.patch(&run.path(), &interval("310ms")).await?;
    let agent = get(&run.admin, &run.path()).await?;
    both_say(&agent, ("InProgress", "Progressing"), "");
    run.restart(|_| {}).await;
    run.until_serving(NODE_LOCAL).await
}

/// Only a change of the spec helps, though what ran before goes on.
async fn refused(run: &Run) -> Outcome<()> {
    let config = |value: Value| json!({"spec": {"config": value}});
    let unsupported = json!({"processors": {"tail_sampling": {}}});
    run.patch(&run.path(), &config(unsupported)).await?;
    let agent = until(run, "Accepted", ("False", "ConfigurationRefused"), "").await?;
    assert_eq!(condition(&agent, "Ready")["status"], "True");
    both_say(&agent, ("Failed", "Degraded"), "tail_sampling");
    run.patch(&run.path(), &config(Value::Null)).await?;
    run.until_serving(NODE_LOCAL).await?;
    let agent = get(&run.admin, &run.path()).await?;
    both_say(&agent, ("Current", "Healthy"), "");
    Ok(())
}

/// In progress until the wanted mode serves. Pods on the old route are for others to restart.
async fn switching(run: &Run) -> Outcome<()> {
    run.patch(&run.path(), &class(&json!(MISSING))).await?;
    let agent = until(run, "Ready", ("True", "NotRolledOut"), MISSING).await?;
    both_say(&agent, ("InProgress", "Progressing"), MISSING);
    run.want(HOST_PORT).await?;
    let agent = until(run, "Switching", ("True", "AgentsNotReady"), MISSING).await?;
    assert_eq!(condition(&agent, "Ready")["status"], "True");
    both_say(&agent, ("InProgress", "Progressing"), MISSING);
    run.patch(&run.path(), &class(&Value::Null)).await?;
    run.until_serving(HOST_PORT).await?;
    let agent = until(run, "Switching", ("True", "OldRouteInUse"), "NodeLocal").await?;
    both_say(&agent, ("Current", "Healthy"), "HostPort");
    run.roll().await?;
    run.until_settled(HOST_PORT).await
}

/// The operator goes on trying.
async fn failing(run: &Run) -> Outcome<()> {
    run.faults.spoil(Some(Spoil {
        method: Method::PATCH,
        address: "/daemonsets/",
        how: How::Answer(403),
    }));
    run.patch(&run.path(), &interval("320ms")).await?;
    let agent = until(run, "Ready", ("False", "Forbidden"), "").await?;
    both_say(&agent, ("InProgress", "Progressing"), "");
    run.faults.spoil(None);
    run.patch(&run.path(), &interval("330ms")).await?;
    run.until_serving(HOST_PORT).await
}

/// Users own the spec, labels and annotations: tools find no difference that the operator made.
fn writes_only_the_status(agent: &Value) {
    assert!(agent["metadata"]["finalizers"].is_null());
    let entries = agent["metadata"]["managedFields"].as_array().unwrap();
    let is_ours = |entry: &&Value| entry["manager"] == names::FIELD_MANAGER;
    let ours: Vec<&Value> = entries.iter().filter(is_ours).collect();
    assert!(!ours.is_empty(), "{entries:?}");
    for entry in ours {
        assert_eq!(entry["subresource"], "status", "{entry}");
        let fields = entry["fieldsV1"].as_object().unwrap();
        let fields: Vec<&String> = fields.keys().collect();
        assert_eq!(fields, ["f:status"], "{entry}");
    }
}

fn class(name: &Value) -> Value {
    json!({"spec": {"agent": {"priorityClassName": name}}})
}

/// Other agents.
fn interval(time: &str) -> Value {
    json!({"spec": {"agent": {"podLabels": {"round": time}}}})
}

/// Waits until a condition of the present spec is so, with a word in its message; the object.
async fn until(
    run: &Run,
    kind: &str,
    (status, reason): (&str, &str),
    word: &str,
) -> Outcome<Value> {
    run.until(&format!("{kind} {status} {reason}"), async || {
        let agent = get(&run.admin, &run.path()).await?;
        let found = condition(&agent, kind);
        let is_present = agent["status"]["observedGeneration"] == agent["metadata"]["generation"];
        let message = found["message"].as_str().unwrap_or_default();
        let holds = is_present
            && found["status"] == status
            && found["reason"] == reason
            && message.contains(word);
        Ok(holds
            .then_some(())
            .ok_or_else(|| agent["status"].to_string()))
    })
    .await?;
    get(&run.admin, &run.path()).await
}

/// What the two say of an object, and that their messages contain a word.
#[track_caller]
fn both_say(agent: &Value, (kstatus, argo): (&str, &str), word: &str) {
    let script = demo::repository().join("gitops/argo-cd/health.lua");
    for (argument, expected) in [(None, kstatus), (Some(script), argo)] {
        let mut command = Command::new(parts::ensure(Part::Kstatus).expect("kstatus"));
        command.args(argument);
        let said = said(command, agent);
        let status = &agent["status"];
        assert_eq!(said["status"], expected, "{said} {status:#}");
        // kstatus has no message of its own for what is current.
        if expected != "Current" {
            let message = said["message"].as_str().unwrap();
            assert!(
                !message.is_empty() && message.contains(word),
                "{said} {status:#}"
            );
        }
    }
}

fn said(mut command: Command, object: &Value) -> Value {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut process = piped.spawn().expect("the program runs");
    let mut input = process.stdin.take().unwrap();
    input.write_all(object.to_string().as_bytes()).unwrap();
    drop(input);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
