//! `kubectl otelagent explain pod [NAMESPACE/]NAME` and `explain --file FILE`

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::cluster::{Cluster, survey};
use crate::context::{Context, Verdict};
use crate::error::{CliError, Right};
use crate::explain::{Subject, assemble, view};
use crate::manifest::objects;
use otelagent_core::explain::pod_of;

/// What `explain` is given.
#[derive(Debug, Args)]
pub struct ExplainCommand {
    /// Whose pods: those of files (-f), or `pod` and its name.
    #[arg(required_unless_present = "file", value_names = ["KIND", "NAME"], num_args = 1..=2)]
    object: Vec<String>,
    /// A manifest of pods or of workloads with a pod template; - reads standard input.
    #[arg(short, long, value_name = "FILE", conflicts_with = "object")]
    file: Option<PathBuf>,
}

impl ExplainCommand {
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let cluster = context.cluster().await?;
        let (subjects, missing) = if let Some(file) = &self.file {
            (of_file(file, &cluster.namespace)?, None)
        } else {
            let (namespace, name) = named(&self.object, &cluster.namespace)?;
            let (subject, missing) = of_pod(&cluster, &namespace, &name).await?;
            (vec![subject], missing)
        };
        let namespace = subjects
            .first()
            .map_or("", |subject| subject.namespace.as_str());
        let mut snapshot = survey(&cluster, namespace).await?;
        snapshot.missing.extend(missing);
        let explanation = assemble(&snapshot, &subjects);
        let is_whole = context.terminal.style.whole;
        context
            .terminal
            .print("Explanation", &explanation, |answer| view(answer, is_whole))?;
        Ok(Verdict::of(explanation.is_as_wished()))
    }
}

/// Namespace and name of a pod: `pod NAME`, `pod NAMESPACE/NAME`, `pod/NAME`.
fn named(words: &[String], namespace: &str) -> Result<(String, String), CliError> {
    let wrong = || {
        let given = words.join(" ");
        CliError::Usage(format!(
            "explain {given}: write pod NAME, pod NAMESPACE/NAME, or --file FILE"
        ))
    };
    let (kind, name) = match words {
        [one] => one.split_once('/').ok_or_else(wrong)?,
        [kind, name] => (kind.as_str(), name.as_str()),
        _ => return Err(wrong()),
    };
    if !["pod", "pods", "po"].contains(&kind) || name.is_empty() {
        return Err(wrong());
    }
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    Ok((namespace.to_owned(), name.to_owned()))
}

fn of_file(file: &std::path::Path, namespace: &str) -> Result<Vec<Subject>, CliError> {
    let mut subjects = Vec::new();
    for object in objects(file)? {
        let Some(pod) = pod_of(&object) else { continue };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let own = text(&object["metadata"]["namespace"]);
        subjects.push(Subject {
            name: format!(
                "{} {}",
                text(&object["kind"]),
                text(&object["metadata"]["name"])
            ),
            namespace: if own.is_empty() {
                namespace.to_owned()
            } else {
                own
            },
            pod,
            is_running: false,
            template: None,
        });
    }
    if subjects.is_empty() {
        let file = file.display();
        return Err(CliError::Usage(format!(
            "{file} has no pod and no workload with a pod template"
        )));
    }
    Ok(subjects)
}

/// A pod that runs, and the right that was missing to know what made it.
async fn of_pod(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<(Subject, Option<Right>), CliError> {
    let pod = cluster.object("v1", "Pod", namespace, name).await?;
    let pod =
        pod.ok_or_else(|| CliError::NotFound(format!("no pod {name} in namespace {namespace}")))?;
    let owners = pod["metadata"]["ownerReferences"].as_array();
    let mut owners = owners.into_iter().flatten();
    let controller = owners.find(|owner| owner["controller"] == true);
    let template = match controller {
        Some(controller) => template(cluster, namespace, controller).await,
        None => Ok(None),
    };
    let (template, missing) = match template {
        Err(CliError::Forbidden(right)) => (None, Some(right)),
        found => (found?, None),
    };
    let subject = Subject {
        name: format!("Pod {name}"),
        namespace: namespace.to_owned(),
        pod,
        is_running: true,
        template,
    };
    Ok((subject, missing))
}

/// The pod template of a controller, as far as the user may read it. Of kinds that are not Kubernetes' own nothing is
/// known.
async fn template(
    cluster: &Cluster,
    namespace: &str,
    controller: &Value,
) -> Result<Option<Value>, CliError> {
    let text = |key: &str| controller[key].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let is_known = match version {
        "apps/v1" => ["ReplicaSet", "StatefulSet", "DaemonSet"].contains(&kind),
        "batch/v1" => kind == "Job",
        "v1" => kind == "ReplicationController",
        _ => false,
    };
    if !is_known {
        return Ok(None);
    }
    let found = cluster
        .object(version, kind, namespace, text("name"))
        .await?;
    Ok(found.map(|found| found["spec"]["template"].clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_may_be_named_as_kubectl_names_it() {
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            named(&words, "default").ok()
        };
        let in_shop = Some(("shop".to_owned(), "cart".to_owned()));
        assert_eq!(of(&["pod", "shop/cart"]), in_shop);
        assert_eq!(
            of(&["pod", "cart"]),
            Some(("default".into(), "cart".into()))
        );
        assert_eq!(of(&["pod/cart"]), Some(("default".into(), "cart".into())));
        assert_eq!(of(&["deployment", "cart"]), None);
        assert_eq!(of(&["cart"]), None);
    }
}
