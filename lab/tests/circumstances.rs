//! Ten circumstances of other people's clusters at once, drawn by a seed: whatever they are, every status ends true.
//!
//! Half of them are there before the `OtelAgent`s that are looked at, half come later. In between one of these changes
//! its mode. `OTELAGENT_SEED` draws another ten.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::Method;
use kube::Client;
use otelagent_core::names;
use otelagent_operator::controller::InjectionSettings;
use serde_json::{Value, json};

use crate::client::direct_config;
use crate::pods::{create, deploy, deployment, deployments, for_label, until_counted, until_right};
use crate::simulated::kubelet;
use crate::test_scale::seed;
use crate::threats::bed::{
    ADMISSION, AGENTS, Caller, PLATFORM, ThreatBed, agent_path, is_possible, settings, sidecar,
};

/// A platform namespace that lacks the operator's Role.
const WITHOUT_ROLE: &str = "observability";
/// The label of the namespaces that the `OtelAgent` of the platform selects.
const SELECTED: &str = "mixed";

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Circumstance {
    WindowsNode,
    VirtualNode,
    ImagesRewritten,
    PortWantedTwice,
    UnknownPriorityClass,
    OtelAgentRenamed,
    NothingSelected,
    OwnNamespaceSelected,
    NullInConfig,
    PodsOnHostNetwork,
    ArgoRollout,
    ForgedRestarts,
    LimitRangeTooTight,
    TooManyOtelAgents,
    NameTaken,
    PlatformRoleMissing,
}

const ALL: [Circumstance; 16] = [
    Circumstance::WindowsNode,
    Circumstance::VirtualNode,
    Circumstance::ImagesRewritten,
    Circumstance::PortWantedTwice,
    Circumstance::UnknownPriorityClass,
    Circumstance::OtelAgentRenamed,
    Circumstance::NothingSelected,
    Circumstance::OwnNamespaceSelected,
    Circumstance::NullInConfig,
    Circumstance::PodsOnHostNetwork,
    Circumstance::ArgoRollout,
    Circumstance::ForgedRestarts,
    Circumstance::LimitRangeTooTight,
    Circumstance::TooManyOtelAgents,
    Circumstance::NameTaken,
    Circumstance::PlatformRoleMissing,
];
const AT_ONCE: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn ten_circumstances_at_once_end_in_true_conditions() {
    if !is_possible("ten circumstances at once") {
        return;
    }
    let drawn = draw(&seed());
    println!("drawn by seed {}: {drawn:?}", seed());
    let world = tokio::task::spawn_blocking(start).await.unwrap();
    let admin = world.admin().await;
    let nodes = Client::try_from(direct_config(world.bed.kubeconfig()).await).unwrap();
    for namespace in ["m-shop", "m-team"] {
        let labels = json!({SELECTED: if namespace == "m-shop" { "yes" } else { "no" }});
        admin.namespace(namespace, labels).await;
    }
    admin.namespace(WITHOUT_ROLE, json!({})).await;

    let (before, after) = drawn.split_at(AT_ONCE / 2);
    for circumstance in before {
        circumstance.arrange(&admin, &nodes).await;
    }
    create(&admin, PLATFORM, "node", &for_label("NodeLocal", SELECTED)).await;
    create(&admin, "m-team", "side", &sidecar(&json!({}))).await;
    admin.until_injecting(PLATFORM, "node").await;
    admin.until_injecting("m-team", "side").await;
    deploy(&admin, "m-shop", "cart", &json!({})).await;
    deploy(&admin, "m-team", "till", &json!({})).await;
    for circumstance in after {
        circumstance.arrange(&admin, &nodes).await;
    }
    all_are_right(&world, &admin).await;

    let moved = json!({"mode": "HostPort"});
    assert!(admin.change(PLATFORM, "node", &moved).await.is_ok());
    all_are_right(&world, &admin).await;
}

/// Ten, in the order in which they come.
fn draw(seed: &str) -> Vec<Circumstance> {
    let rank = |circumstance: &Circumstance| {
        let mut hasher = DefaultHasher::new();
        (seed, circumstance).hash(&mut hasher);
        hasher.finish()
    };
    let mut all = ALL.to_vec();
    all.sort_by_key(rank);
    all.truncate(AT_ONCE);
    all
}

fn start() -> ThreatBed {
    let world = ThreatBed::start("mixed", |bed| bed);
    kubelet::start_apart(world.bed.kubeconfig(), |_| ());
    let mut settings = settings(InjectionSettings::default());
    settings.platform_namespaces.insert(WITHOUT_ROLE.to_owned());
    world.run_operator(settings);
    world
}

/// The status of every `OtelAgent` agrees with the documentation.
async fn all_are_right(world: &ThreatBed, admin: &Caller) {
    for agent in admin.list(AGENTS).await {
        let text = |key: &str| agent["metadata"][key].as_str().unwrap().to_owned();
        until_right(world, &text("namespace"), &text("name")).await;
    }
}

impl Circumstance {
    async fn arrange(self, admin: &Caller, nodes: &Client) {
        match self {
            Self::WindowsNode => node(nodes, 51, "windows", json!([])).await,
            Self::VirtualNode => {
                let taint = json!({"key": "virtual-kubelet.io/provider", "effect": "NoSchedule"});
                node(nodes, 52, "linux", json!([taint])).await;
            }
            Self::ImagesRewritten => rewrite_images(admin).await,
            Self::PortWantedTwice => {
                create(admin, PLATFORM, "rival", &for_label("HostPort", "rival")).await;
            }
            Self::UnknownPriorityClass => {
                let mut spec = for_label("NodeLocal", "classless");
                spec["agent"] = json!({"priorityClassName": "nope"});
                create(admin, PLATFORM, "classless", &spec).await;
            }
            Self::OtelAgentRenamed => rename(admin).await,
            Self::NothingSelected => {
                let spec = for_label("NodeLocal", "unlabelled");
                create(admin, PLATFORM, "nothing", &spec).await;
            }
            Self::OwnNamespaceSelected => {
                create(admin, PLATFORM, "own", &sidecar(&json!({}))).await;
            }
            Self::NullInConfig => {
                let mut spec = for_label("NodeLocal", "nulls");
                spec["config"] = json!({"receivers": {"otlp": {"protocols": {"grpc": null}}}});
                create(admin, PLATFORM, "nulls", &spec).await;
            }
            Self::PodsOnHostNetwork => {
                deploy(admin, "m-team", "cni", &json!({"hostNetwork": true})).await;
            }
            Self::ArgoRollout => rollout(admin).await,
            Self::ForgedRestarts => forge_restarts(admin).await,
            Self::LimitRangeTooTight => tighten(admin).await,
            Self::TooManyOtelAgents => {
                admin.namespace("m-crowd", json!({})).await;
                for number in 0..22 {
                    let name = format!("agent{number:02}");
                    create(admin, "m-crowd", &name, &sidecar(&json!({}))).await;
                }
            }
            Self::NameTaken => {
                let ports = json!([{"port": 80}]);
                let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"},
                    "spec": {"ports": ports, "selector": {"app": "other"}}});
                let path = format!("/api/v1/namespaces/{PLATFORM}/services");
                admin.must(Method::POST, &path, &service).await;
                create(admin, PLATFORM, "taken", &for_label("NodeLocal", "taken")).await;
            }
            Self::PlatformRoleMissing => {
                let spec = for_label("NodeLocal", "rightless");
                create(admin, WITHOUT_ROLE, "rightless", &spec).await;
            }
        }
    }
}

async fn node(client: &Client, number: usize, os: &str, taints: Value) {
    let node = json!({
        "metadata": {"name": format!("other-{number}"), "labels": {"kubernetes.io/os": os}},
        "spec": {"taints": taints},
    });
    kubelet::register(client, node, number).await;
}

/// As a registry mirror has it.
async fn rewrite_images(admin: &Caller) {
    let first = "[JSONPatch{op: 'replace', path: '/spec/containers/0/image', \
                 value: 'mirror/' + string(object.spec.containers[0].image)}]";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let spec = json!({
        "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [rule]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": first}}],
    });
    for (kind, spec) in [
        ("MutatingAdmissionPolicy", spec),
        (
            "MutatingAdmissionPolicyBinding",
            json!({"policyName": "mirror"}),
        ),
    ] {
        let plural = format!("{}s", kind.to_lowercase()).replace("policys", "policies");
        let object = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": "mirror"}, "spec": spec});
        let path = format!("{ADMISSION}/{plural}");
        admin.must(Method::POST, &path, &object).await;
    }
}

/// Pods of an `OtelAgent` that is gone; another one selects them.
async fn rename(admin: &Caller) {
    admin.namespace("m-old", json!({"renamed": "yes"})).await;
    create(admin, PLATFORM, "old", &for_label("NodeLocal", "renamed")).await;
    admin.until_injecting(PLATFORM, "old").await;
    deploy(admin, "m-old", "cart", &json!({})).await;
    until_counted(admin, (PLATFORM, "old"), &[("injected", 2)]).await;
    let path = agent_path(PLATFORM, "old");
    admin.must(Method::DELETE, &path, &Value::Null).await;
    create(admin, PLATFORM, "new", &for_label("NodeLocal", "renamed")).await;
}

/// What a Rollout makes, of which only the pods' labels tell.
async fn rollout(admin: &Caller) {
    let labels = json!({"app": "front", "rollouts-pod-template-hash": "6d8f9c7b5d"});
    let mut set = deployment("front-6d8f9c7b5d", 2, &json!({}));
    set["kind"] = "ReplicaSet".into();
    set["spec"]["selector"]["matchLabels"] = labels.clone();
    set["spec"]["template"]["metadata"]["labels"] = labels;
    let path = deployments("m-shop").replace("deployments", "replicasets");
    admin.must(Method::POST, &path, &set).await;
}

/// A workload that claims to be restarted, of a namespace that nobody selects.
async fn forge_restarts(admin: &Caller) {
    admin.namespace("m-forged", json!({})).await;
    let mut forged = deployment("forged", 0, &json!({}));
    let owner = names::agent_label(PLATFORM, "node");
    forged["metadata"]["labels"] = json!({names::LABEL_RESTARTING: owner});
    admin
        .must(Method::POST, &deployments("m-forged"), &forged)
        .await;
}

/// A namespace that takes no sidecar.
async fn tighten(admin: &Caller) {
    admin.namespace("m-tight", json!({})).await;
    let most = json!({"type": "Container", "max": {"memory": "1Mi"}, "default": {"memory": "1Mi"}});
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "tight"},
        "spec": {"limits": [most]}});
    let path = "/api/v1/namespaces/m-tight/limitranges";
    admin.must(Method::POST, path, &range).await;
    create(admin, "m-tight", "side", &sidecar(&json!({}))).await;
}
