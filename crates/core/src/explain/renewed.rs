//! The pod that would be made now in the place of a running one, or of a manifest.

use serde_json::{Map, Value, json};

use crate::inject::Recipe;
use crate::names;

/// A hash as the Deployment controller makes them, for a `ReplicaSet` that does not exist yet.
const HASH: &str = "bcdfghjklm";
/// A time as the `CronJob` controller puts it into the name of a Job.
const SCHEDULED: &str = "30000000";
/// The labels of injected pods, which no template has.
const MARKS: [&str; 3] = [names::LABEL_AGENT, names::LABEL_MODE, names::LABEL_CONFIG];

/// A pod of a manifest: of a pod itself, or of a workload with a template. `None` for other kinds.
pub fn pod_of(manifest: &Value) -> Option<Value> {
    let (kind, name) = (
        manifest["kind"].as_str()?,
        manifest["metadata"]["name"].as_str(),
    );
    if kind == "Pod" {
        return Some(manifest.clone());
    }
    let template = manifest
        .pointer("/spec/jobTemplate/spec/template")
        .or_else(|| manifest.pointer("/spec/template"))
        .filter(|template| template["spec"]["containers"].is_array())?;
    let name = name.unwrap_or_default();
    let (owner_kind, owner) = match kind {
        "Deployment" => ("ReplicaSet", format!("{name}-{HASH}")),
        "CronJob" => ("Job", format!("{name}-{SCHEDULED}")),
        other => (other, name.to_owned()),
    };
    let mut pod = new(template, &format!("{owner}-"));
    if kind == "Deployment" {
        pod["metadata"]["labels"]["pod-template-hash"] = HASH.into();
    }
    pod["metadata"]["namespace"] = manifest["metadata"]["namespace"].clone();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": manifest["apiVersion"], "kind": owner_kind, "name": owner, "uid": "", "controller": true,
    }]);
    Some(pod)
}

fn new(template: &Value, generate_name: &str) -> Value {
    let metadata = &template["metadata"];
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": generate_name,
            "labels": object(&metadata["labels"]),
            "annotations": object(&metadata["annotations"]),
        },
        "spec": template["spec"],
    })
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// A new pod in the place of a running one, before admission: of its controller's template where that is known, else the
/// pod without what `recipe` has added to it. What its owner wrote under a name that the recipe uses is then taken for
/// injected.
pub fn renewed(running: &Value, template: Option<&Value>, recipe: Option<&Recipe>) -> Value {
    let is_injected = running["metadata"]["labels"]
        .get(names::LABEL_AGENT)
        .is_some();
    let mut pod = match template {
        Some(template) => {
            let name = running["metadata"]["generateName"].as_str();
            new(template, name.unwrap_or_default())
        }
        None => without_injection(running, recipe.filter(|_| is_injected)),
    };
    // Controllers give labels of their own to each pod.
    let mut labels = object(&running["metadata"]["labels"]);
    labels.retain(|key, _| !MARKS.contains(&key.as_str()));
    pod["metadata"]["labels"] = labels.into();
    for key in ["namespace", "ownerReferences"] {
        pod["metadata"][key] = running["metadata"][key].clone();
    }
    pod
}

fn without_injection(running: &Value, recipe: Option<&Recipe>) -> Value {
    let mut pod = running.clone();
    if let Some(pod) = pod.as_object_mut() {
        pod.remove("status");
    }
    let Some(recipe) = recipe else { return pod };
    if let Some(annotations) = pod["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| key != names::ANNOTATION_CONFIG);
    }
    let is_own = |item: &Value| {
        let name = item["name"].as_str().unwrap_or_default();
        [names::CONTAINER, names::START_GATE, names::CONFIG_VOLUME].contains(&name)
    };
    let injected = recipe.variable_names();
    for list in ["initContainers", "containers", "volumes"] {
        let items = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        let Some(items) = items else { continue };
        items.retain(|item| !is_own(item));
        for item in items {
            let variables = item.get_mut("env").and_then(Value::as_array_mut);
            if let Some(variables) = variables {
                variables
                    .retain(|one| !injected.contains(one["name"].as_str().unwrap_or_default()));
            }
        }
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::drift;
    use crate::inject::{EnvRule, Injection, inject};
    use otelagent_api::Mode;

    fn recipe() -> Recipe {
        let endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned();
        Recipe {
            agent: "shop.a".into(),
            env: vec![EnvRule {
                name: endpoint.clone(),
                value: "http://a".into(),
                unless: vec![endpoint],
            }],
            first: vec![json!({"name": "OTELAGENT_POD_NAME", "value": "x"})],
            ..Recipe::of_mode(Mode::HostPort)
        }
    }

    fn injected(pod: &Value) -> Value {
        match inject(pod, "shop", &recipe()) {
            Injection::Injected(pod) => pod,
            Injection::Skipped(reason) => panic!("{reason}"),
        }
    }

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "cart"}},
                "spec": {"containers": [{"name": "app", "image": "a"}]},
            }},
        })
    }

    #[test]
    fn pod_of_a_workload_is_named_and_owned_as_its_controller_would() {
        let service = |manifest: &Value| {
            let pod = injected(&pod_of(manifest).unwrap());
            let env = pod["spec"]["containers"][0]["env"]
                .as_array()
                .unwrap()
                .clone();
            let name = env
                .iter()
                .find(|one| one["name"] == "OTEL_SERVICE_NAME")
                .unwrap();
            name["value"].as_str().unwrap().to_owned()
        };
        assert_eq!(service(&deployment()), "cart");
        let template = &deployment()["spec"]["template"];
        let cron = json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "backup"},
            "spec": {"jobTemplate": {"spec": {"template": template}}},
        });
        assert_eq!(service(&cron), "backup");
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {"template": template},
        });
        assert_eq!(service(&set), "db");
        assert_eq!(
            pod_of(&json!({"kind": "Service", "metadata": {"name": "x"}})),
            None
        );
    }

    #[test]
    fn pod_in_the_place_of_an_injected_one_gets_the_same_again() {
        let first = pod_of(&deployment()).unwrap();
        let mut running = injected(&first);
        running["status"] = json!({"phase": "Running"});
        let template = &deployment()["spec"]["template"];
        for template in [Some(template), None] {
            let new = renewed(&running, template, Some(&recipe()));
            assert_eq!(
                new["spec"]["containers"][0]["env"]
                    .as_array()
                    .map_or(0, Vec::len),
                0
            );
            assert!(new["metadata"]["labels"].get(names::LABEL_AGENT).is_none());
            assert_eq!(drift(&running, &new, &injected(&new)), []);
        }
    }
}
