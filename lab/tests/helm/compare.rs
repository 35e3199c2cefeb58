//! The chart renders the objects that `manifests` hold, field by field.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use testbed::parts::{self, Part};

use super::program::{each, objects};
use crate::overlay::in_repository;

/// What Helm adds to everything.
const ADDED: [&str; 5] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "helm.sh/resource-policy",
];
/// It exists before a chart is installed in it.
const NAMESPACE: &str = "Namespace otelagent-system";

/// By kind, namespace and name, without what Helm adds.
type Objects = BTreeMap<String, Value>;

fn by_name(objects: Vec<Value>) -> Objects {
    let named = objects.into_iter().map(|mut object| {
        normalise(&mut object);
        (name(&object), object)
    });
    let mut all = Objects::new();
    for (name, object) in named {
        let before = all.insert(name.clone(), object);
        assert!(before.is_none(), "{name} twice");
    }
    all
}

fn name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let words = [&object["kind"], &metadata["namespace"], &metadata["name"]];
    let words = words.into_iter().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

/// Removes what Helm adds, and how a number is written.
fn normalise(value: &mut Value) {
    // The chart labels these, too; manifests do not say of which component they are.
    if ["CustomResourceDefinition", "Namespace"].contains(&value["kind"].as_str().unwrap_or(""))
        && let Some(labels) = value.pointer_mut("/metadata/labels")
    {
        let labels = labels.as_object_mut().unwrap();
        labels.remove("app.kubernetes.io/component");
        labels.remove("app.kubernetes.io/name");
    }
    normalise_inside(value);
}

fn normalise_inside(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !ADDED.contains(&key.as_str()));
            map.values_mut().for_each(normalise_inside);
            // A map of labels or annotations that held nothing else.
            map.retain(|key, inner| {
                !["labels", "annotations"].contains(&key.as_str()) || *inner != json!({})
            });
        }
        Value::Array(items) => items.iter_mut().for_each(normalise_inside),
        Value::Number(number) => *value = json!(number.as_f64()),
        _ => {}
    }
}

/// What kustomize makes of an overlay over parts of `manifests`.
fn kustomized(directory: &Path, parts: &[&str], more: &Value) -> Objects {
    let kubectl = parts::ensure(Part::Kubectl).expect("kubectl");
    let resources = parts.iter().map(|part| {
        let is_local = directory.join(part).exists();
        let path = || in_repository(directory, &format!("manifests/{part}"));
        if is_local { (*part).into() } else { path() }
    });
    let mut kustomization = more.clone();
    kustomization["resources"] = json!(resources.collect::<Vec<String>>());
    let file = directory.join("kustomization.yaml");
    std::fs::write(file, kustomization.to_string()).unwrap();
    let output = Command::new(kubectl)
        .arg("kustomize")
        .arg(directory)
        .output()
        .expect("kubectl runs");
    assert!(output.status.success(), "{output:?}");
    by_name(objects(&String::from_utf8_lossy(&output.stdout)))
}

/// Where two values differ, as paths.
fn differences(at: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(one), Value::Object(other)) => {
            for key in one
                .keys()
                .chain(other.keys().filter(|key| !one.contains_key(*key)))
            {
                differences(&format!("{at}/{key}"), &left[key], &right[key], found);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                differences(&format!("{at}/{index}"), one, other, found);
            }
        }
        _ if left != right => found.push(format!("{at}: manifests {left}, chart {right}")),
        _ => {}
    }
}

fn assert_same(manifests: &Objects, chart: &Objects) {
    let names = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(manifests), names(chart));
    let mut found = Vec::new();
    for (name, object) in manifests {
        differences(name, object, &chart[name], &mut found);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn chart_renders_what_the_manifests_hold() {
    for helm in each("the objects of the chart") {
        let chart = |options: &[&str]| {
            let rendered = helm.template("otelagent", "otelagent-system", options);
            by_name(rendered.unwrap_or_else(|why| panic!("{options:?}: {why}")))
        };
        let manifests = |parts: &[&str]| {
            let mut objects = kustomized(helm.directory(), parts, &json!({}));
            assert!(objects.remove(NAMESPACE).is_some());
            objects
        };
        let default = manifests(&["default"]);
        assert!(default.len() > 15, "{} objects", default.len());
        assert_same(&default, &chart(&[]));
        let restart = chart(&["--set=restart.enabled=true"]);
        assert_same(&manifests(&["default", "restart"]), &restart);
        let all = [
            "--set=webhook.enabled=true",
            "--set=restart.enabled=true",
            "--set=networkPolicy.enabled=true",
        ];
        assert_same(&manifests(&["default", "webhook"]), &chart(&all[..1]));
        let parts = ["default", "webhook", "restart", "network"];
        assert_same(&manifests(&parts), &chart(&all));
        let mut without = default.clone();
        without.retain(|name, _| {
            !name.starts_with("ValidatingAdmissionPolicy")
                && !name.starts_with("CustomResourceDefinition")
                && name != "Namespace otelagent-canary"
        });
        let fewer = [
            "--set=guard.enabled=false",
            "--set=crds.enabled=false",
            "--set=canaryNamespace.create=false",
        ];
        assert_same(&without, &chart(&fewer));
    }
}

/// As `manifests/platform-namespace/kustomization.yaml` says.
#[test]
fn chart_grants_the_same_in_every_platform_namespace() {
    let namespaces = "otelagent-system,observability";
    for helm in each("platform namespaces of the chart") {
        let inner = helm.directory().join("platform");
        std::fs::create_dir_all(&inner).unwrap();
        let platform = json!({
            "namespace": "observability",
            "resources": [in_repository(&inner, "manifests/platform-namespace")],
        });
        let file = inner.join("kustomization.yaml");
        std::fs::write(file, platform.to_string()).unwrap();
        let argument = json!([{
            "op": "add",
            "path": "/spec/template/spec/containers/0/args/-",
            "value": format!("--platform-namespaces={namespaces}"),
        }]);
        let patches = json!({"patches": [{
            "target": {"kind": "Deployment", "name": "otelagent-operator"},
            "patch": argument.to_string(),
        }]});
        let mut manifests = kustomized(helm.directory(), &["default", "platform"], &patches);
        manifests.remove(NAMESPACE);
        let option = format!("--set=platformNamespaces={{{namespaces}}}");
        let rendered = helm.template("otelagent", "otelagent-system", &[&option]);
        assert_same(&manifests, &by_name(rendered.unwrap()));
    }
}

/// A prefix reaches every name that another object or the operator refers to, also those of the webhook.
#[test]
fn prefix_of_an_overlay_gives_the_names_of_a_release() {
    for helm in each("names under a prefix") {
        let prefix = json!({"namePrefix": "acme-"});
        let mut prefixed = kustomized(helm.directory(), &["default", "webhook"], &prefix);
        let options = [
            "--set=fullnameOverride=acme-otelagent",
            "--set=webhook.enabled=true",
        ];
        let rendered = helm.template("otelagent", "otelagent-system", &options);
        let mut chart = by_name(rendered.unwrap());
        prefixed.remove(NAMESPACE);
        // The guard of the manifests takes any name that contains the operator's.
        for objects in [&mut prefixed, &mut chart] {
            let guard = "ValidatingAdmissionPolicy acme-otelagent-guard";
            assert!(objects.remove(guard).is_some());
        }
        assert_same(&prefixed, &chart);
    }
}
