//! A platform namespace that is none any more keeps what it injects into its own pods, and nothing else.

use serde_json::{Value, json};

use super::operator::settings;
use super::run::{Outcome, Run};
use super::topology::ALL;
use crate::status_checker::get;

/// Serves, then comes back under an operator for which its namespace is no platform namespace. What is said in
/// `Injected`, and whether there is a binding, once `is_over`.
async fn revoke(
    run: &mut Run,
    workloads: Value,
    is_over: impl Fn(&str, bool) -> bool,
) -> Outcome<()> {
    let node_local = ALL[3];
    run.create(node_local).await?;
    run.patch(&run.path(), &json!({"spec": {"workloads": workloads}}))
        .await?;
    run.until_serving(node_local).await?;
    let mut settings = settings(&run.namespace);
    settings.platform_namespaces.clear();
    run.restart_with(settings).await;
    let binding = format!(
        "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/otelagent.{}.{}",
        run.namespace, run.name
    );
    run.until("revoked", async || {
        let agent = get(&run.admin, &run.path()).await?;
        let conditions = agent["status"]["conditions"].as_array();
        let of = |kind: &str| {
            let mut all = conditions.into_iter().flatten();
            let found = all.find(|condition| condition["type"] == kind);
            found
                .and_then(|found| found["reason"].as_str())
                .unwrap_or_default()
        };
        let is_bound = !get(&run.admin, &binding).await?.is_null();
        let is_refused = of("Accepted") == "NotAPlatformNamespace";
        let is_so = is_refused && is_over(of("Injected"), is_bound);
        Ok(is_so
            .then_some(())
            .ok_or_else(|| format!("{is_bound}: {}", agent["status"])))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_platform_namespace_injects_no_pods_of_others() {
    let elsewhere =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}});
    let is_over = |reason: &str, is_bound: bool| reason == "NotAPlatformNamespace" && !is_bound;
    Run::through("a revoked platform namespace", async |run| {
        revoke(run, elsewhere, is_over).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_platform_namespace_goes_on_injecting_its_own_pods() {
    let own = json!({"podSelector": {"matchLabels": {"app": "shop"}}});
    let goes_on = |reason: &str, is_bound: bool| reason == "Active" && is_bound;
    Run::through(
        "a revoked platform namespace with pods of its own",
        async |run| revoke(run, own, goes_on).await,
    )
    .await;
}
