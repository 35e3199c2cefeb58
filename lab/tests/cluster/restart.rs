//! `restart: Rolling` restarts each workload with stale pods once, and names those that it leaves alone.

use std::collections::BTreeSet;

use demo::apps::{self, App};
use demo::{images, repository};
use otelagent_core::names;
use serde_json::{Value, json};

use super::{World, condition, rest, world};

const NAMESPACE: &str = "restart";
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

#[test]
fn stale_workloads_restart_once_and_those_left_out_are_named() {
    let Some(world) = world("workloads that are rolled") else {
        return;
    };
    let role = repository().join("manifests/restart");
    world.agent("roll", NAMESPACE, "mode: NodeLocal");
    world.until_serving("roll", "NodeLocal");
    make_workloads(&world);
    world.until_status("roll", "nine current pods", |status| {
        status["pods"]["current"] == 9
    });

    let workloads = json!({"restart": "Rolling", "flushInterval": "1s"});
    world.patch("roll", &json!({"spec": {"workloads": workloads}}));
    let agent = world.until_status("roll", "that it may not", |status| {
        condition(status, "Restarting")["reason"] == "NotAllowed"
    });
    assert_eq!(agent["status"]["pods"]["stale"], 9);

    world.kubectl.apply_kustomization(&role).unwrap();
    let agent = world.until_status("roll", "only what must be left alone", |status| {
        status["pods"]["stale"] == 4 && condition(status, "Restarting")["reason"] == "Waiting"
    });
    assert_eq!(
        agent["status"]["restarts"],
        json!({"running": 0, "waiting": 2, "stuck": 0, "notRestartable": 2})
    );
    let message = condition(&agent["status"], "Restarting")["message"]
        .as_str()
        .unwrap_or_default();
    for named in [
        "Deployment restart/a-refused: the server refuses to restart it",
        "Deployment restart/guarded: PodDisruptionBudget guarded allows no disruption now",
        "Deployment restart/paused: its rollout is paused",
        "Pod restart/bare",
    ] {
        assert!(message.contains(named), "{message}");
    }
    for (kind, name) in ROLLED {
        assert_eq!(restarts(&world, kind, name), 1, "{kind} {name}");
    }
    for name in ["a-refused", "guarded", "paused"] {
        assert_eq!(restarts(&world, "deployment", name), 0, "{name}");
    }

    let namespace = format!("--namespace={NAMESPACE}");
    world
        .kubectl
        .run(&["delete", "poddisruptionbudget", "guarded", &namespace])
        .unwrap();
    world.kubectl.run(&["delete", REFUSAL, NAME]).unwrap();
    world.until_status("roll", "the two that waited rolled too", |status| {
        status["pods"]["stale"] == 2
            && condition(status, "Restarting")["reason"] == "NotRestartable"
    });
    let waited = [("deployment", "guarded"), ("deployment", "a-refused")];
    for (kind, name) in ROLLED.into_iter().chain(waited) {
        assert_eq!(restarts(&world, kind, name), 1, "{kind} {name}, still");
    }
    a_restart_under_way_is_forgotten_once_workloads_are_left_alone(&world);
    if world.bed("rights used to restart", rest::AUDIT).is_some() {
        all_rights_are_used(&world);
    }
    let role = role.display().to_string();
    world.kubectl.run(&["delete", "-k", &role]).unwrap();
    world.kubectl.run(&["delete", BINDING, NAME]).unwrap();
    world.end_namespace(NAMESPACE);
}

const ROLLED: [(&str, &str); 3] = [
    ("deployment", "go-sdk"),
    ("statefulset", "db"),
    ("daemonset", "each"),
];

fn a_restart_under_way_is_forgotten_once_workloads_are_left_alone(world: &World) {
    let mark = names::agent_label("otelagent-system", "roll");
    let marked = json!({"metadata": {"labels": {"otelagent.dev/restarting": mark}}}).to_string();
    // As the operator writes it: it believes no other mark.
    let manager = format!("--field-manager={}", names::RESTART_MANAGER);
    let [namespace, patch] = [
        format!("--namespace={NAMESPACE}"),
        format!("--patch={marked}"),
    ];
    let words = [
        "patch",
        "deployment/go-sdk",
        "--type=merge",
        &namespace,
        &patch,
        &manager,
    ];
    world.kubectl.run(&words).unwrap();
    let never = json!({"spec": {"workloads": {"restart": "Never"}}});
    world.patch("roll", &never);
    let deployment = ["deployment", "go-sdk", "--namespace", NAMESPACE];
    world.until("no mark", &deployment, |found| {
        found["metadata"]["labels"]["otelagent.dev/restarting"].is_null()
    });
    world.until_status("roll", "no restarts reported", |status| {
        status["restarts"].is_null() && condition(status, "Restarting").is_null()
    });
}

const REFUSAL: &str = "validatingadmissionpolicy";
const BINDING: &str = "validatingadmissionpolicybinding";
const NAME: &str = "restart-refused";

/// A user's own policy, which forbids every change of one Deployment's template.
fn refuse_changes(world: &World, deployment: &str) {
    let apply = |object: Value| world.kubectl.apply(&object.to_string()).unwrap();
    let expression = format!(
        "object.metadata.name != '{deployment}' || object.spec.template == oldObject.spec.template"
    );
    apply(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": NAME},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"],
            }]},
            "validations": [{"expression": expression, "message": "not today"}],
        },
    }));
    apply(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": NAME},
        "spec": {"policyName": NAME, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": NAMESPACE},
        }}},
    }));
}

/// Nine pods: of a Deployment (2), a `StatefulSet`, a `DaemonSet` (2), Deployments that are guarded, paused and
/// refused, and a bare one.
fn make_workloads(world: &World) {
    let app = App {
        namespace: NAMESPACE.into(),
        ..App::go_sdk()
    };
    apps::apply(&world.kubectl, &[app]).unwrap();
    let apply = |object: Value| world.kubectl.apply(&object.to_string()).unwrap();
    apply(workload("StatefulSet", "db"));
    apply(workload("DaemonSet", "each"));
    apply(workload("Deployment", "guarded"));
    apply(json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "guarded", "namespace": NAMESPACE},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
    }));
    apply(workload("Deployment", "a-refused"));
    refuse_changes(world, "a-refused");
    apply(workload("Deployment", "paused"));
    apply(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": NAMESPACE},
        "spec": pod(),
    }));
    let paused = ["deployment", "paused", "--namespace", NAMESPACE];
    world.until("the paused one running", &paused, |deployment| {
        deployment["status"]["availableReplicas"] == 1
    });
    let pause = json!({"spec": {"paused": true}});
    world
        .kubectl
        .patch(NAMESPACE, "deployment/paused", &pause)
        .unwrap();
}

fn workload(kind: &str, name: &str) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod()},
        },
    })
}

fn pod() -> Value {
    json!({
        "automountServiceAccountToken": false,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "app", "image": images::GO_SDK, "imagePullPolicy": "IfNotPresent",
            "args": ["--run=$(POD_NAME)", "--protocol=http/protobuf", "--rate=1"],
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    })
}

/// How often a workload was restarted: changes of its template after the first.
fn restarts(world: &World, kind: &str, name: &str) -> usize {
    let found: Value = world
        .kubectl
        .get(&[kind, name, "--namespace", NAMESPACE])
        .unwrap();
    assert!(found["metadata"]["labels"]["otelagent.dev/restarting"].is_null());
    let was = found["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT].is_string();
    let history = if kind == "deployment" {
        "replicasets"
    } else {
        "controllerrevisions"
    };
    let all: Value = world
        .kubectl
        .get(&[history, "--namespace", NAMESPACE])
        .unwrap();
    let revisions = all["items"].as_array().unwrap().iter().filter(|item| {
        let owner = &item["metadata"]["ownerReferences"][0];
        owner["name"] == name && owner["kind"] == found["kind"]
    });
    let changes = revisions.count() - 1;
    assert_eq!(was, changes > 0, "{kind} {name}");
    changes
}

/// Of the role that lets workloads be restarted.
fn all_rights_are_used(world: &World) {
    let requests = rest::requests(world);
    let used: BTreeSet<String> = requests.iter().flat_map(rest::used_rights).collect();
    let granted = rest::granted(world);
    let idle: Vec<&String> = granted
        .iter()
        .filter(|right| right.contains(" apps/") || right.contains(" policy/"))
        .filter(|right| !used.contains(*right))
        .collect();
    let workloads = ["watch", "create", "delete"].map(|verb| format!("{verb} apps/daemonsets"));
    assert!(
        idle.iter().all(|right| workloads.contains(right)),
        "granted and never used: {idle:?}"
    );
}
