//! Pods for single rules: owners, long names, node affinity, chosen containers, limits of storage.

use otelagent_core::names;
use serde_json::{Value, json};

use crate::pod_case::pod;
use crate::recipes;

pub(crate) fn app(env: Value) -> Value {
    json!({"name": "app", "image": "shop:1.2", "env": env})
}

pub(crate) fn simple(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "app", "image": "shop"}]});
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    pod(json!({"name": name}), spec)
}

pub(crate) fn owned(name: &str, kind: &str, owner: &str, labels: Value) -> Value {
    let reference = json!({"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "u", "controller": true});
    let metadata = json!({"generateName": format!("{name}-"), "labels": labels, "ownerReferences": [reference]});
    pod(
        metadata,
        json!({"containers": [{"name": "app", "image": "shop@sha256:0123456789abcdef0123456789abcdef"}]}),
    )
}

/// What made the controller, as labels, annotations and names tell.
pub(crate) fn workloads() -> Vec<(&'static str, Value)> {
    let config = |annotation: &str| {
        let mut pod = owned("shop", "ReplicationController", "shop-12", json!({}));
        pod["metadata"]["annotations"] = json!({"openshift.io/deployment-config.name": annotation});
        pod
    };
    let knative = "shop-00001-deployment-6d8f9c7b5d";
    vec![
        (
            "rollout",
            owned(
                "shop",
                "ReplicaSet",
                "shop-6d8f9c7b5d",
                json!({"rollouts-pod-template-hash": "6d8f9c7b5d"}),
            ),
        ),
        (
            "both hashes",
            owned(
                "shop",
                "ReplicaSet",
                "shop-abc",
                json!({"rollouts-pod-template-hash": "abc", "pod-template-hash": "abc"}),
            ),
        ),
        (
            "unknown workload",
            owned(
                "shop",
                "ReplicaSet",
                "shop-6d8f9c7b5d",
                json!({"app": "shop"}),
            ),
        ),
        (
            "hash alone",
            owned("shop", "ReplicaSet", "-6d8f9c7b5d", json!({})),
        ),
        (
            "empty hash",
            owned(
                "shop",
                "ReplicaSet",
                "shop-",
                json!({"pod-template-hash": ""}),
            ),
        ),
        (
            "Knative service",
            owned(
                "shop",
                "ReplicaSet",
                knative,
                json!({
                    "pod-template-hash": "6d8f9c7b5d", "serving.knative.dev/service": "shop", "serving.knative.dev/configuration": "conf",
                }),
            ),
        ),
        (
            "Knative configuration",
            owned(
                "shop",
                "ReplicaSet",
                knative,
                json!({
                    "pod-template-hash": "6d8f9c7b5d", "serving.knative.dev/service": "", "serving.knative.dev/configuration": "conf",
                }),
            ),
        ),
        (
            "deployment config",
            owned(
                "shop",
                "ReplicationController",
                "shop-12",
                json!({"deploymentconfig": "shop"}),
            ),
        ),
        ("deployment config by annotation", config("shop")),
        ("another deployment config", config("sho")),
        ("empty deployment config", config("")),
    ]
}

/// Names so long that values would not fit.
pub(crate) fn long_names() -> Vec<(&'static str, Value)> {
    let named = |pod_name: usize, container: usize| {
        let metadata = json!({"name": "p".repeat(pod_name)});
        let container = json!({"name": "c".repeat(container), "image": "shop:1"});
        pod(metadata, json!({"containers": [container]}))
    };
    let digest = format!("shop:{}@sha512:{}", "t".repeat(128), "0a".repeat(64));
    let mut by_digest = simple("digest", json!({}));
    by_digest["spec"]["containers"][0]["image"] = json!(digest);
    vec![
        ("longest names", named(253, 63)),
        ("long names", named(200, 40)),
        (
            "long owner",
            owned("shop", "ReplicaSet", &"r".repeat(256), json!({})),
        ),
        (
            "just as long owner",
            owned("shop", "CloneSet", &"r".repeat(255), json!({})),
        ),
        (
            "owner that is long if encoded",
            owned("shop", "StatefulSet", &"é".repeat(100), json!({})),
        ),
        ("image of a long version", by_digest),
    ]
}

/// A pod that is placed by node affinity, with these terms of expressions.
pub fn placed(terms: &[&[(&str, &str, &[&str])]]) -> Value {
    let expression = |(key, operator, values): &(&str, &str, &[&str])| {
        let mut expression = json!({"key": key, "operator": operator});
        if !values.is_empty() {
            expression["values"] = json!(values);
        }
        expression
    };
    let terms: Vec<Value> = terms
        .iter()
        .map(|term| json!({"matchExpressions": term.iter().map(expression).collect::<Vec<_>>()}))
        .collect();
    let required = json!({"nodeSelectorTerms": terms});
    simple(
        "placed",
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}}),
    )
}

pub(crate) fn windows() -> Vec<(&'static str, Value)> {
    let (os, beta) = ("kubernetes.io/os", "beta.kubernetes.io/os");
    let (windows, linux): (&[&str], &[&str]) = (&["windows"], &["linux"]);
    let zone = ("topology.kubernetes.io/zone", "In", &["a"][..]);
    let preferred = json!([{"weight": 1, "preference": {"matchExpressions": [{"key": os, "operator": "In", "values": windows}]}}]);
    vec![
        (
            "windows by affinity",
            placed(&[&[zone, (os, "In", windows)]]),
        ),
        (
            "windows by the old label",
            placed(&[&[(beta, "In", windows)]]),
        ),
        (
            "not linux by affinity",
            placed(&[&[(os, "NotIn", linux)], &[(beta, "NotIn", &["linux", "x"])]]),
        ),
        (
            "windows or linux",
            placed(&[&[(os, "In", &["windows", "linux"])]]),
        ),
        (
            "windows in one of two terms",
            placed(&[&[(os, "In", windows)], &[zone]]),
        ),
        ("not windows", placed(&[&[(os, "NotIn", windows)]])),
        ("any system", placed(&[&[(os, "Exists", &[])]])),
        (
            "windows preferred",
            simple(
                "w",
                json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}),
            ),
        ),
        (
            "windows by the old node label",
            simple("w", json!({"nodeSelector": {beta: "windows"}})),
        ),
    ]
}

/// Pods that may run on some architectures only.
pub(crate) fn architectures() -> Vec<(&'static str, Value)> {
    let (arch, beta) = ("kubernetes.io/arch", "beta.kubernetes.io/arch");
    let zone = ("topology.kubernetes.io/zone", "In", &["a"][..]);
    let both: &[&str] = &["amd64", "arm64"];
    vec![
        (
            "for s390x by selector",
            simple("z", json!({"nodeSelector": {arch: "s390x"}})),
        ),
        (
            "for arm by the old node label",
            simple("z", json!({"nodeSelector": {beta: "arm"}})),
        ),
        (
            "for arm64 by selector",
            simple("z", json!({"nodeSelector": {arch: "arm64"}})),
        ),
        (
            "for ppc64le by affinity",
            placed(&[&[zone, (arch, "In", &["ppc64le", "riscv64"])]]),
        ),
        (
            "for neither by affinity",
            placed(&[&[(arch, "NotIn", both)]]),
        ),
        (
            "for s390x or arm64",
            placed(&[&[(arch, "In", &["s390x", "arm64"])]]),
        ),
        (
            "for s390x in one of two terms",
            placed(&[&[(arch, "In", &["s390x"])], &[zone]]),
        ),
        ("not for amd64", placed(&[&[(arch, "NotIn", &["amd64"])]])),
        (
            "for virtual nodes",
            simple(
                "z",
                json!({"nodeSelector": {"type": "virtual-kubelet", "kubernetes.io/role": "agent"}}),
            ),
        ),
        (
            "for virtual nodes by affinity",
            placed(&[&[zone, ("type", "In", &["virtual-kubelet"])]]),
        ),
        (
            "not for virtual nodes",
            placed(&[&[("type", "NotIn", &["virtual-kubelet"])]]),
        ),
        (
            "for windows or s390x",
            placed(&[
                &[("kubernetes.io/os", "In", &["windows"])],
                &[(arch, "In", &["s390x"])],
            ]),
        ),
    ]
}

/// Pods that choose the containers that get variables.
pub(crate) fn chosen() -> Vec<(&'static str, Value)> {
    let containers = json!({
        "containers": [app(json!([])), {"name": "dind", "image": "docker"}],
        "initContainers": [{"name": "setup", "image": "s"}],
    });
    let choosing = |text: &str| {
        let annotations = json!({names::ANNOTATION_CONTAINERS: text});
        pod(
            json!({"name": "chosen", "annotations": annotations}),
            containers.clone(),
        )
    };
    vec![
        ("one container chosen", choosing("app")),
        ("two containers chosen", choosing(" setup ,\napp,")),
        ("no known container chosen", choosing("ap, app2")),
        ("blank choice", choosing(" , ")),
        (
            "choice that is too long",
            choosing(&format!("app,{}", "x".repeat(4093))),
        ),
        (
            "longest choice",
            choosing(&format!("app,{}", "x".repeat(4092))),
        ),
    ]
}

/// Pods whose disk the kubelet or the cluster autoscaler looks at.
pub(crate) fn on_disk() -> Vec<(&'static str, Value)> {
    let limited = |list: &str| {
        let container = json!({"name": "limited", "image": "x", "resources": {"limits": {"ephemeral-storage": "50Mi"}}});
        let mut pod = simple("limited", json!({}));
        let others = pod["spec"][list].as_array().cloned().unwrap_or_default();
        pod["spec"][list] = others.into_iter().chain([container]).collect();
        pod
    };
    let evictable = |text: &str| {
        let mut pod = simple("evictable", json!({}));
        pod["metadata"]["annotations"] = json!({recipes::EVICTABLE: text});
        pod
    };
    vec![
        ("container with a limit of storage", limited("containers")),
        (
            "init container with a limit of storage",
            limited("initContainers"),
        ),
        ("evictable volume", evictable("cache")),
        ("evictable volumes", evictable("cache, otelagent-queue")),
        ("no evictable volume", evictable(" ")),
    ]
}

/// Pods that get the start gate in different ways, or not at all.
pub(crate) fn gates() -> Vec<(&'static str, Value)> {
    let amounts = json!({"cpu": "100m", "memory": "64Mi"});
    let sized = |resources: Value| {
        let mut sized = app(json!([]));
        sized["resources"] = resources;
        pod(json!({"name": "sized"}), json!({"containers": [sized]}))
    };
    let forged = json!({"name": names::START_GATE, "image": "mine:1"});
    vec![
        (
            "guaranteed",
            sized(json!({"limits": amounts, "requests": amounts})),
        ),
        (
            "one request of two",
            sized(json!({"requests": {"cpu": "0.1"}})),
        ),
        (
            "just enough memory for the gate",
            sized(json!({"limits": {"memory": "16384Ki"}})),
        ),
        (
            "too little memory for the gate",
            sized(json!({"limits": {"memory": "8Mi"}})),
        ),
        (
            "other resources",
            sized(json!({"limits": {"example.com/card": "1", "ephemeral-storage": "1Gi"}})),
        ),
        (
            "critical",
            simple("c", json!({"priorityClassName": "system-node-critical"})),
        ),
        (
            "a gate of its own",
            simple("f", json!({"initContainers": [forged]})),
        ),
        (
            "a volume with the gate's name",
            simple(
                "v",
                json!({"volumes": [{"name": names::START_GATE, "emptyDir": {}}]}),
            ),
        ),
        (
            "root, with an init container",
            simple(
                "r",
                json!({"securityContext": {"runAsUser": 0}, "initContainers": [{"name": "migrate", "image": "m"}]}),
            ),
        ),
    ]
}
