//! What `OtelAgent`s that are gone have left is removed; what cannot be removed keeps nothing of others.

use http::Method;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use otelagent_core::inject::kinds::{BINDING, WARNING_BINDING};
use otelagent_core::names;
use serde_json::{Value, json};

use super::faults::{How, Spoil};
use super::run::{Outcome, Run};
use crate::status_checker::get;

/// A cluster-scoped object as the operator makes it for an `OtelAgent` with this uid. Returns its path.
async fn leave(run: &Run, kind: &str, uid: &str, spec: &Value) -> Outcome<String> {
    let group = "admissionregistration.k8s.io";
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let name = names::cluster_object(&run.namespace, &run.name, Some("left"));
    let api: Api<DynamicObject> = Api::all_with(run.admin.clone(), &resource);
    let labels = json!({
        names::LABEL_MANAGED_BY: names::MANAGED_BY,
        names::LABEL_OWNER: names::agent_label(&run.namespace, &run.name),
        names::LABEL_OWNER_UID: uid,
    });
    let object = json!({
        "apiVersion": format!("{group}/v1"), "kind": kind,
        "metadata": {"name": name, "labels": labels}, "spec": spec,
    });
    let parameters = PatchParams::apply(names::FIELD_MANAGER).force();
    let applied = api.patch(&name, &parameters, &Patch::Apply(object)).await;
    applied.map_err(|error| error.to_string())?;
    let plural = format!("{}s", kind.to_lowercase());
    Ok(format!("/apis/{group}/v1/{plural}/{name}"))
}

async fn until_gone(run: &Run, path: &str) -> Outcome<()> {
    run.until(&format!("without {path}"), async || {
        let found = get(&run.admin, path).await?;
        Ok(found
            .is_null()
            .then_some(())
            .ok_or_else(|| found.to_string()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn leftover_that_cannot_be_removed_keeps_nothing_of_others() {
    Run::through("a leftover that cannot be removed", async |run| {
        run.faults.spoil(Some(Spoil {
            method: Method::DELETE,
            address: "/validatingadmissionpolicybindings/",
            how: How::Answer(403),
        }));
        let warning = json!({"policyName": "none", "validationActions": ["Warn"]});
        let binding = json!({"policyName": "none"});
        let kept = leave(run, WARNING_BINDING, "gone-1", &warning).await?;
        let other = leave(run, BINDING, "gone-2", &binding).await?;
        until_gone(run, &other).await?;
        let found = get(&run.admin, &kept).await?;
        assert!(!found.is_null(), "it could be removed");
        run.faults.spoil(None);
        until_gone(run, &kept).await
    })
    .await;
}
