//! A release from its installation to its end.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::bed::{HelmBed, Release, copy_chart, until};
use super::program::{chart, each, version};

const RELEASE: Release = Release {
    name: "otelagent",
    namespace: "otelagent-system",
};
const CRD: &str = "crd/otelagents.otelagent.dev";
const OPERATOR: &str = "deployment/otelagent-operator";
const CA: &str = "secret/otelagent-webhook-authority";
/// With the webhook, whose Secret the operator fills.
const WEBHOOK: &str = "--set=webhook.enabled=true";

/// A chart as an earlier release would have it: another version, one object that is gone since, and a CRD that lacks a
/// column.
fn previous(directory: &Path) -> String {
    let to = directory.join("previous");
    copy_chart(&chart(), &to);
    let edit = |file: &str, old: &str, new: &str| {
        let path = to.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{file}");
        fs::write(&path, text.replace(old, new)).unwrap();
    };
    edit("Chart.yaml", &format!(": {}\n", version()), ": 0.0.9\n");
    edit("files/otelagents.yaml", "name: Serving\n", "name: Serves\n");
    let leftover = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: leftover\n  namespace: {{ .Release.Namespace }}\n";
    fs::write(to.join("templates/leftover.yaml"), leftover).unwrap();
    to.display().to_string()
}

fn image(world: &HelmBed) -> String {
    let deployment = world
        .find(RELEASE.namespace, OPERATOR)
        .expect("the operator");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    container["image"].as_str().unwrap().to_owned()
}

fn columns(world: &HelmBed) -> String {
    let crd = world.find("default", CRD).expect("the CRD");
    crd["spec"]["versions"][0]["additionalPrinterColumns"].to_string()
}

/// What controllers write by themselves is left out; nothing of other objects.
fn compared(live: Vec<(String, Value)>) -> Vec<(String, Value)> {
    let each = live.into_iter().map(|(name, mut object)| {
        assert!(!object.is_null(), "{name} is missing");
        if object["status"].is_object() {
            object["status"].take();
            object["metadata"]["resourceVersion"].take();
            object["metadata"]["managedFields"].take();
            if let Some(annotations) = object.pointer_mut("/metadata/annotations") {
                annotations["deployment.kubernetes.io/revision"].take();
            }
        }
        (name, object)
    });
    each.collect()
}

/// The operator's work: it fills the CA's Secret.
fn fill_ca(world: &HelmBed) {
    let data = r#"{"data":{"authority.json":"e30="}}"#;
    let words = ["patch", CA, "--namespace", RELEASE.namespace];
    world.must(&[&words[..], &["--patch", data]].concat());
}

fn has_ca(world: &HelmBed) -> bool {
    let secret = world.find(RELEASE.namespace, CA).expect("the Secret");
    secret["data"]["authority.json"] == "e30="
}

#[test]
fn release_is_installed_upgraded_rolled_back_and_uninstalled() {
    for helm in each("the life of a release") {
        let world = HelmBed::start("helm-life", helm);
        let previous = previous(world.helm.directory());
        world.install(RELEASE, &previous, &[WEBHOOK]);
        assert_eq!(image(&world), "otelagent/operator:0.0.9");
        assert!(columns(&world).contains("Serves"));
        world.must(&["wait", "--for=condition=Established", CRD]);
        fill_ca(&world);
        world.apply(&agent(RELEASE.namespace));

        upgrade(&world);
        again(&world);

        world.helm(RELEASE, &["rollback", RELEASE.name, "1"]);
        assert_eq!(image(&world), "otelagent/operator:0.0.9");
        assert!(columns(&world).contains("Serves") && has_ca(&world));
        assert!(
            world
                .find(RELEASE.namespace, "configmap/leftover")
                .is_some()
        );
        world.helm(RELEASE, &["rollback", RELEASE.name, "2"]);
        assert_eq!(image(&world), current());

        uninstall(&world);
        world.end();
    }
}

fn agent(namespace: &str) -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": "node", "namespace": namespace},
        "spec": {"mode": "NodeLocal", "export": {"endpoint": "http://c.o.svc:4317"}},
    })
}

fn current() -> String {
    format!("otelagent/operator:{}", version())
}

fn upgrade(world: &HelmBed) {
    let said = world.install(RELEASE, &chart(), &[WEBHOOK]);
    assert!(said.contains("kind: OtelAgent"), "{said}");
    assert_eq!(image(world), current());
    assert!(columns(world).contains("Serving"));
    assert!(has_ca(world), "an upgrade empties the Secret");
    assert!(
        world
            .find(RELEASE.namespace, "configmap/leftover")
            .is_none()
    );
    let kept = world.find(RELEASE.namespace, "otelagent/node");
    assert!(kept.is_some());
}

/// The same chart and values once more.
fn again(world: &HelmBed) {
    let manifest = world.manifest(RELEASE);
    assert!(manifest.len() > 30, "{} objects", manifest.len());
    let before = compared(world.live(&manifest));
    world.install(RELEASE, &chart(), &[WEBHOOK]);
    let after = compared(world.live(&manifest));
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        assert_eq!(before, after, "{name}");
    }
    assert!(has_ca(world));
}

fn uninstall(world: &HelmBed) {
    let manifest = world.manifest(RELEASE);
    world.helm(RELEASE, &["uninstall", RELEASE.name]);
    until("everything but the CRD is gone", || {
        let left = world.live(&manifest).into_iter();
        let left = left.filter(|(_, object)| !object.is_null());
        let left: Vec<String> = left.map(|(name, _)| name).collect();
        let crd =
            "CustomResourceDefinition.v1.apiextensions.k8s.io/otelagents.otelagent.dev in default";
        (left == [crd]).then_some(()).ok_or(format!("{left:?}"))
    });
    assert!(world.find(RELEASE.namespace, "otelagent/node").is_some());

    // A release of the same name takes the CRD over, and this one does not keep it.
    world.install(RELEASE, &chart(), &["--set=crds.keep=false"]);
    assert!(world.find(RELEASE.namespace, "otelagent/node").is_some());
    world.helm(RELEASE, &["uninstall", RELEASE.name]);
    until("the CRD is gone", || {
        let left = world.find("default", CRD);
        left.is_none().then_some(()).ok_or("it stays".to_owned())
    });
}
