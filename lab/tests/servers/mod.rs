//! What API servers get, on a real one of every supported release: the CRD, the installation, the samples, what the
//! documentation shows, the rendered objects and the injected pods.
//!
//! A server drops or refuses what it does not know. These tests must see both before a user does. Nothing runs on these
//! beds.

mod bed;
mod deletion;
mod documented;

use otelagent_core::build::{Environment, ServerVersion, build, covers, validate};
use otelagent_core::inject::{Injection, canary, difference, inject};
use otelagent_core::names;
use serde_json::{Value, json};
use testbed::KubernetesVersion;

use bed::ReleaseServer;
use otelagent_test_support::agents::{agent, environment};

#[test]
fn shipped_and_rendered_objects_are_accepted_by_1_33() {
    everything_is_taken(KubernetesVersion::V1_33);
}

#[test]
fn shipped_and_rendered_objects_are_accepted_by_1_35() {
    everything_is_taken(KubernetesVersion::V1_35);
}

#[test]
fn shipped_and_rendered_objects_are_accepted_by_1_36() {
    everything_is_taken(KubernetesVersion::V1_36);
}

#[test]
fn shipped_and_rendered_objects_are_accepted_by_1_37() {
    everything_is_taken(KubernetesVersion::V1_37);
}

fn everything_is_taken(release: KubernetesVersion) {
    if !testbed::skip_unless_possible(&format!("an API server of {release}")) {
        return;
    }
    let server = ReleaseServer::start(release);
    the_installation_installs(&server);
    samples_and_refusals(&server);
    documented::documented_objects_are_taken(&server);
    deletion::deleting_an_agent_in_use_warns(&server);
    let environment = environment_of(release);
    let fixtures = demo::repository().join("tests/pure/fixtures");
    for fixture in std::fs::read_dir(fixtures).unwrap() {
        let path = fixture.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let yaml = std::fs::read_to_string(&path).unwrap();
        one_fixture(&server, &environment, &name, &yaml);
    }
}

/// The CRD among it, whose rules the server estimates the cost of.
fn the_installation_installs(server: &ReleaseServer) {
    for part in ["manifests/default", "manifests/restart"] {
        server.must(&["apply", "--validate=strict", "-k", part]);
        // Nothing was dropped: the server has what was applied.
        server.must(&["diff", "-k", part]);
    }
    server.must(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "crd/otelagents.otelagent.dev",
    ]);
    let crd = server.get(&["crd", "otelagents.otelagent.dev"]);
    let conditions = crd["status"]["conditions"].to_string();
    assert!(!conditions.contains("NonStructuralSchema"), "{conditions}");
}

/// The rules of the CRD do what they say on this server as well.
fn samples_and_refusals(server: &ReleaseServer) {
    let samples = demo::repository()
        .join("manifests/samples")
        .display()
        .to_string();
    server.must(&["create", "namespace", "shop"]);
    let taken = server.must(&[
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &samples,
    ]);
    assert!(taken.contains("created (server dry run)"), "{taken}");
    let agent = |spec: Value| {
        json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
            "metadata": {"name": "refused", "namespace": "otelagent-system"}, "spec": spec})
    };
    let export = json!({"endpoint": "http://c:4317"});
    for (spec, words) in [
        (
            json!({"mode": "NodePort", "export": export}),
            "NodePort is not offered",
        ),
        (
            json!({"mode": "NodeLocal", "export": export, "ports": {"grpc": 4318}}),
            "must differ",
        ),
        (
            json!({"mode": "NodeLocal", "export": {"endpoint": "collector:4317"}}),
            "must be a URL",
        ),
        (
            json!({"mode": "Sidecar", "export": export, "batch": {"flushInterval": "1ms"}}),
            "must be a duration between",
        ),
        (
            json!({"mode": "Sidecar", "export": export, "workloads": {
                "namespaceSelector": {"matchLabels": {"telemetry": "otel agent"}}}}),
            "must be labels such as",
        ),
        (
            json!({"mode": "Sidecar", "export": export, "workloads": {"podSelector": {
                "matchExpressions": [{"key": "a b", "operator": "Exists"}]}}}),
            "must be a key such as",
        ),
        (
            json!({"mode": "Sidecar", "export": export, "workloads": {"podSelector": {
                "matchExpressions": [{"key": "app", "operator": "In", "values": ["cart "]}]}}}),
            "matchExpressions[0].values[0]",
        ),
    ] {
        let said = server.create(&agent(spec)).unwrap_err();
        assert!(said.contains(words), "{words} in: {said}");
    }
}

/// What the operator finds where this release serves.
fn environment_of(release: KubernetesVersion) -> Environment {
    let (major, minor) = release.minor().split_once('.').unwrap();
    Environment {
        server: ServerVersion::parse(major, minor).unwrap(),
        ..environment()
    }
}

/// What is refused in `Accepted` the server would refuse too, or drop; everything else it takes and keeps.
fn one_fixture(server: &ReleaseServer, on_this: &Environment, name: &str, yaml: &str) {
    let newest = validate(&agent(yaml), &environment()).expect("a valid fixture");
    let mode = newest.wanted();
    let desired = &build(&newest, on_this, [mode]).modes[&mode];
    let objects: Vec<Value> = desired
        .objects
        .iter()
        .map(otelagent_core::build::Object::to_json)
        .collect();
    match validate(&agent(yaml), on_this) {
        Ok(_) => {
            for object in &objects {
                let kept = server.create(object).unwrap_or_else(|said| {
                    panic!("{name} on {}: {said}", on_this.server);
                });
                assert!(
                    covers(&kept, object),
                    "{name}: the server keeps {kept:#} of {object:#}"
                );
            }
        }
        Err(problems) => {
            assert_eq!(problems[0].reason, "ServerTooOld", "{problems:?}");
            let fits = |object: &Value| {
                server
                    .create(object)
                    .is_ok_and(|kept| covers(&kept, object))
            };
            assert!(
                !objects.iter().all(fits),
                "{name} is refused on {}, whose server would take it",
                on_this.server
            );
        }
    }
    let recipe = &desired.recipe;
    for probe in canary::probe_pods(recipe, "hash") {
        let Injection::Injected(pod) = inject(&probe, "otelagent-canary", recipe) else {
            panic!("{name}: a probe that cannot be injected");
        };
        let mut pod = pod;
        pod["metadata"]["namespace"] = json!("otelagent-canary");
        let kept = server
            .create(&pod)
            .unwrap_or_else(|said| panic!("{name} on {}: {said}", on_this.server));
        difference::compare(&probe, &kept, recipe, "otelagent-canary")
            .unwrap_or_else(|mismatch| panic!("{name}: {mismatch}"));
        assert_eq!(
            kept["metadata"]["labels"][names::LABEL_CONFIG],
            recipe.hash()
        );
    }
}
