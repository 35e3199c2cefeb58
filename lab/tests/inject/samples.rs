//! The samples, as a user applies them: the API server takes each, and the operator accepts it.

use std::path::PathBuf;

use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};
use testbed::Bed;

use super::installed::{self, InstalledOperator};
use super::server::{self, Server};

/// Every sample, in the order of their names.
fn samples() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(demo::repository().join("manifests/samples")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "yaml")
    });
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    files
}

fn kubectl(bed: &Bed, words: &[&str]) {
    let output = bed.kubectl().args(words).output().unwrap();
    assert!(output.status.success(), "kubectl {words:?}: {output:?}");
}

#[test]
fn every_sample_is_listed_with_its_question() {
    let list = demo::repository().join("manifests/samples/README.md");
    let list = std::fs::read_to_string(list).unwrap();
    let mut names: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    names.sort_unstable();
    let files = samples();
    let files: Vec<&str> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(files, names);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_is_accepted_by_server_and_operator() {
    if !server::is_possible("the samples") {
        return;
    }
    let bed = tokio::task::spawn_blocking(|| installed::bed("samples"));
    let bed = bed.await.unwrap();
    let server = Server::of(bed.kubeconfig(), None).await;
    let labels = json!({"telemetry": "otelagent", "team": "a"});
    server.namespace("shop", labels).await;
    let operator = InstalledOperator::start(&bed, InjectionSettings::default()).await;
    for file in samples() {
        let text = std::fs::read_to_string(&file).unwrap();
        let sample: Value = serde_saphyr::from_str(&text).unwrap();
        let file = file.to_string_lossy();
        kubectl(&bed, &["apply", "--validate=strict", "-f", &file]);
        let [namespace, name] =
            ["namespace", "name"].map(|key| sample["metadata"][key].as_str().unwrap());
        let path = format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents/{name}");
        server
            .until(&file, async || {
                let agent = server.get(&path).await.body;
                let (status, generation) = (&agent["status"], &agent["metadata"]["generation"]);
                let conditions = status["conditions"].as_array();
                let mut conditions = conditions.into_iter().flatten();
                let accepted = conditions.find(|condition| condition["type"] == "Accepted");
                let is_present = status["observedGeneration"] == *generation;
                let is_accepted = accepted.is_some_and(|found| found["status"] == "True");
                (is_present && is_accepted)
                    .then_some(())
                    .ok_or_else(|| status.to_string())
            })
            .await;
        // The next one has the same name, and perhaps other ports, which cannot change.
        kubectl(&bed, &["delete", "--wait", "-f", &file]);
    }
    installed::end(operator, bed).await;
}
