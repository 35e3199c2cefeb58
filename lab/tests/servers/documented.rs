//! What people copy: the objects of the documentation, and the examples on the chart's page.

use std::collections::BTreeSet;
use std::path::Path;

use otelagent_test_support::manifests;
use serde_json::Value;

use super::bed::ReleaseServer;

/// Groups that every server has. Those of other projects are tried with them.
const GROUPS: [&str; 4] = [
    "v1",
    "apps/v1",
    "networking.k8s.io/v1",
    "otelagent.dev/v1alpha1",
];

/// Where they came from, and the objects.
fn documented() -> Vec<(String, Value)> {
    let mut texts = Vec::new();
    for folder in ["docs", "docs/moving"] {
        pages(&demo::repository().join(folder), &mut texts);
    }
    let chart = std::fs::read_to_string(demo::repository().join("charts/otelagent/Chart.yaml"));
    let chart: Value = serde_saphyr::from_str(&chart.unwrap()).expect("Chart.yaml");
    let examples = &chart["annotations"]["artifacthub.io/crdsExamples"];
    let examples: Vec<Value> =
        serde_saphyr::from_str(examples.as_str().expect("examples")).expect("YAML");
    let mut objects: Vec<(String, Value)> = examples
        .into_iter()
        .map(|example| ("Chart.yaml".to_owned(), example))
        .collect();
    for (page, block) in texts {
        let of_page = manifests::objects(&block).into_iter();
        objects.extend(of_page.map(|object| (page.clone(), object)));
    }
    objects.retain(|(_, object)| {
        let group = object["apiVersion"].as_str().unwrap_or_default();
        GROUPS.contains(&group)
    });
    objects
}

/// The blocks of YAML that are objects, with their pages.
fn pages(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let blocks = text.split("\n```").skip(1).step_by(2);
        for block in blocks.filter_map(|block| block.strip_prefix("yaml")) {
            let (_, block) = block.split_once('\n').unwrap_or_default();
            if block.contains("apiVersion:") {
                found.push((path.display().to_string(), block.to_owned()));
            }
        }
    }
}

/// The installation is there.
pub(super) fn documented_objects_are_taken(server: &ReleaseServer) {
    let objects = documented();
    assert!(objects.len() > 14, "{} objects", objects.len());
    let mut there: BTreeSet<String> = server.get(&["namespaces"])["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|namespace| namespace["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect();
    for (page, object) in objects {
        let namespace = object["metadata"]["namespace"].as_str();
        let namespace = namespace.unwrap_or_else(|| panic!("{page}: {object}"));
        if there.insert(namespace.to_owned()) {
            server.must(&["create", "namespace", namespace]);
        }
        if let Err(said) = server.create(&object) {
            panic!("{page}: {said}: {object}");
        }
    }
}
