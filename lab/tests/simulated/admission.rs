//! Other people's admission changes the operator's own objects whenever they are written, as Kyverno does whose rules for
//! pods hold for the templates of their controllers, too.

use serde_json::{Value, json};

use super::run::{Outcome, REPLICAS, Run, send};
use super::topology::{ALL, Topology};
use crate::status_checker::{get, list};

const HOST_PORT: Topology = ALL[1];
const NODE_LOCAL: Topology = ALL[3];
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
/// Where images come from.
const MIRROR: &str = "mirror.example/";

#[tokio::test(flavor = "multi_thread")]
async fn admission_that_changes_agent_workloads_is_no_second_writer() {
    Run::through("admission of agent workloads", async |run| {
        let name = format!("mirror-{}", run.namespace);
        let (policy, binding) = mirror(&name, &run.namespace);
        send(&run.admin, http::Method::POST, POLICIES, &policy).await?;
        send(&run.admin, http::Method::POST, BINDINGS, &binding).await?;
        let outcome = tell(run).await;
        for path in [BINDINGS, POLICIES] {
            let path = format!("{path}/{name}");
            let _ = send(&run.admin, http::Method::DELETE, &path, &Value::Null).await;
        }
        outcome
    })
    .await;
}

/// A policy that lets images come from a mirror, pulls them always, and has the agents tolerate one more taint.
fn mirror(name: &str, namespace: &str) -> (Value, Value) {
    let images = format!(
        "[JSONPatch{{op: 'replace', path: '/spec/template/spec/containers/0/image', \
         value: object.spec.template.spec.containers[0].image.startsWith('{MIRROR}') ? \
         object.spec.template.spec.containers[0].image : '{MIRROR}' + object.spec.template.spec.containers[0].image}}, \
         JSONPatch{{op: 'add', path: '/spec/template/spec/containers/0/imagePullPolicy', value: 'Always'}}, \
         JSONPatch{{op: 'add', path: '/spec/template/spec/tolerations', \
         value: [Object.spec.template.spec.tolerations{{key: 'own', operator: 'Exists'}}, \
         Object.spec.template.spec.tolerations{{key: 'others', operator: 'Exists'}}]}}]"
    );
    let meta = |kind: &str, spec: Value| json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["daemonsets"]});
    let labels = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let policy = meta(
        "MutatingAdmissionPolicy",
        json!({
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded",
            "matchConstraints": {"namespaceSelector": labels, "resourceRules": [rule]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": images}}],
        }),
    );
    let binding = meta(
        "MutatingAdmissionPolicyBinding",
        json!({"policyName": name}),
    );
    (policy, binding)
}

/// Waits until the server changes a DaemonSet that is made by dry run.
async fn until_in_force(run: &Run) -> Outcome<()> {
    let path = format!(
        "/apis/apps/v1/namespaces/{}/daemonsets?dryRun=All",
        run.namespace
    );
    let labels = json!({"app": "probe"});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "probe"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}});
    run.until("the policy in force", async || {
        let made = send(&run.admin, http::Method::POST, &path, &set).await?;
        let image = &made["spec"]["template"]["spec"]["containers"][0]["image"];
        let is_changed = image
            .as_str()
            .is_some_and(|image| image.starts_with(MIRROR));
        Ok(is_changed.then_some(()).ok_or(image.to_string()))
    })
    .await
}

async fn tell(run: &Run) -> Outcome<()> {
    until_in_force(run).await?;
    run.create(NODE_LOCAL).await?;
    let tolerations = json!([{"key": "own", "operator": "Exists"}]);
    run.patch(
        &run.path(),
        &json!({"spec": {"agent": {"tolerations": tolerations}}}),
    )
    .await?;
    run.until_serving(NODE_LOCAL).await?;
    run.applications().await?;
    run.until_settled(NODE_LOCAL).await?;
    let sets = format!("/apis/apps/v1/namespaces/{}/daemonsets", run.namespace);
    let image =
        &list(&run.admin, &sets).await?[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert!(image.as_str().unwrap().starts_with(MIRROR), "{image}");

    run.want(HOST_PORT).await?;
    run.until_serving(HOST_PORT).await?;
    run.roll().await?;
    run.until_settled(HOST_PORT).await?;
    // A change by somebody who does write is undone.
    let set = format!("{sets}/{}-host-port", run.name);
    let change = json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}});
    run.patch(&set, &change).await?;
    run.until("undone", async || {
        let found = get(&run.admin, &set).await?;
        let period = &found["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        Ok((*period != 7).then_some(()).ok_or(period.to_string()))
    })
    .await?;
    run.until_settled(HOST_PORT).await?;
    let before = run.faults.writes().len();
    // Each change of a pod is another look at the agent workload.
    for replicas in [5, 1, 4, 2, 6, REPLICAS] {
        run.scale(replicas).await?;
        run.until_counted(replicas).await?;
    }
    run.until_settled(HOST_PORT).await?;
    let written = run.faults.writes().split_off(before);
    let written = written.iter().map(|write| write.key.to_lowercase());
    let written: Vec<String> = written.filter(|key| key.contains("daemonset")).collect();
    assert!(written.is_empty(), "written again: {written:?}");
    Ok(())
}
