//! What a pod's own annotations, limits and values choose.

use otelagent_core::inject::{Injection, Reason, Recipe, inject};
use otelagent_core::names;
use otelagent_test_support::pod_shapes::{ATTRIBUTES, pod};
use otelagent_test_support::pod_variants::placed;
use otelagent_test_support::recipes;
use serde_json::{Value, json};

fn injected(pod: &Value, recipe: &Recipe) -> Value {
    match inject(pod, "shop", recipe) {
        Injection::Injected(injected) => injected,
        Injection::Skipped(reason) => panic!("{reason}"),
    }
}

fn with_annotations(annotations: &Value) -> Value {
    pod(
        json!({"name": "a", "annotations": annotations}),
        json!({
            "containers": [{"name": "app"}, {"name": "dind"}],
            "initContainers": [{"name": "setup"}],
        }),
    )
}

#[test]
fn only_chosen_containers_get_variables() {
    for (choice, expected) in [
        ("app", [true, false, false]),
        (" setup,\ndind ,", [false, true, true]),
        ("nobody", [false; 3]),
        (" , ", [true; 3]),
        (&format!("app,{}", "x".repeat(4093)), [true; 3]),
    ] {
        for recipe in recipes::each() {
            let chosen = with_annotations(&json!({names::ANNOTATION_CONTAINERS: choice}));
            let spec = injected(&chosen, recipe)["spec"].clone();
            let named = |name: &str| {
                let lists =
                    ["containers", "initContainers"].map(|list| spec[list].as_array().unwrap());
                let container = lists.into_iter().flatten().find(|one| one["name"] == name);
                container.unwrap().get("env").is_some()
            };
            assert_eq!(["app", "dind", "setup"].map(named), expected, "{choice:?}");
        }
    }
}

#[test]
fn blank_attributes_get_no_empty_entry() {
    let attributes = |own: &str| {
        let env = json!([{"name": ATTRIBUTES, "value": own}]);
        let pod = pod(
            json!({"name": "a"}),
            json!({"containers": [{"name": "app", "env": env}]}),
        );
        let env =
            injected(&pod, &recipes::recipe("node-local"))["spec"]["containers"][0]["env"].clone();
        let own = env
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == ATTRIBUTES);
        own.unwrap()["value"].as_str().unwrap().to_owned()
    };
    let alone = attributes("");
    assert!(alone.starts_with("k8s.namespace.name=shop,"), "{alone}");
    for blank in [" ", "\n", ",", " , ,\t\u{a0}\u{2028}"] {
        assert_eq!(attributes(blank), alone, "{blank:?}");
        assert_eq!(
            attributes(&format!("a=b{blank}")),
            format!("a=b,{alone}"),
            "{blank:?}"
        );
    }
}

#[test]
fn pod_that_can_only_run_on_windows_is_left_alone() {
    let (os, beta) = ("kubernetes.io/os", "beta.kubernetes.io/os");
    let zone = ("zone", "In", &["a"][..]);
    let windows = |terms: &[&[(&str, &str, &[&str])]]| {
        recipes::each()
            .iter()
            .map(|recipe| inject(&placed(terms), "shop", recipe))
            .all(|outcome| outcome == Injection::Skipped(Reason::Windows))
    };
    for terms in [
        &[&[zone, (os, "In", &["windows"][..])][..]][..],
        &[&[(beta, "In", &["windows"][..])][..]],
        &[
            &[(os, "NotIn", &["linux"][..])][..],
            &[(beta, "NotIn", &["linux", "x"][..])],
        ],
    ] {
        assert!(windows(terms), "{terms:?}");
    }
    for terms in [
        &[&[zone][..]][..],
        &[&[(os, "In", &["windows", "linux"][..])][..]],
        &[&[(os, "In", &["windows"][..])][..], &[zone]],
        &[&[(os, "NotIn", &["windows"][..])][..]],
        &[&[("os", "In", &["windows"][..])][..]],
    ] {
        assert!(!windows(terms), "{terms:?}");
    }
}

/// What becomes of a pod with these required terms of a node affinity.
fn outcome(terms: &[&[(&str, &str, &[&str])]], recipe: &Recipe) -> Injection {
    inject(&placed(terms), "shop", recipe)
}

/// Where a sidecar's image cannot be pulled, the application would never start.
#[test]
fn pod_for_an_architecture_without_an_image_gets_no_sidecar() {
    let arch = "kubernetes.io/arch";
    let (left_alone, sidecar) = (Injection::Skipped(Reason::Architecture), recipes::sidecar());
    for terms in [
        &[&[(arch, "In", &["s390x", "arm"][..])][..]][..],
        &[&[("beta.kubernetes.io/arch", "In", &["ppc64le"][..])][..]],
        &[&[(arch, "NotIn", &["amd64", "arm64"][..])][..]],
    ] {
        assert_eq!(outcome(terms, &sidecar), left_alone, "{terms:?}");
        let on_nodes = outcome(terms, &recipes::recipe("node-local"));
        assert!(matches!(on_nodes, Injection::Injected(_)), "{terms:?}");
    }
    for terms in [
        &[&[(arch, "In", &["s390x", "arm64"][..])][..]][..],
        &[&[(arch, "NotIn", &["amd64"][..])][..]],
        &[&[(arch, "In", &["mips"][..])][..]],
    ] {
        assert_ne!(outcome(terms, &sidecar), left_alone, "{terms:?}");
    }
    // Of which architectures an image of the user's is nobody knows.
    let mut foreign = sidecar.clone();
    foreign.sidecar.as_mut().unwrap()["securityContext"]["runAsUser"] = 65532.into();
    assert_ne!(
        outcome(&[&[(arch, "In", &["s390x"])]], &foreign),
        left_alone
    );
}

/// The kubelet evicts a pod by the sum of its containers' limits.
#[test]
fn sidecar_has_a_limit_of_storage_only_beside_another() {
    let recipe = recipes::sidecar();
    let resources = |limits: Value| {
        let container = json!({"name": "app", "resources": {"limits": limits}});
        let pod = pod(json!({"name": "a"}), json!({"containers": [container]}));
        injected(&pod, &recipe)["spec"]["initContainers"][0]["resources"].clone()
    };
    let beside = resources(json!({"ephemeral-storage": "50Mi"}));
    assert_eq!(beside["limits"]["ephemeral-storage"], "128Mi");
    assert_eq!(beside["requests"]["ephemeral-storage"], "0");
    let alone = resources(json!({"memory": "50Mi"}));
    assert_eq!(alone["limits"]["ephemeral-storage"], Value::Null);
}

#[test]
fn queue_is_named_beside_the_pods_own_evictable_volumes() {
    let evictable = |own: Value| {
        let injected = injected(&with_annotations(&own), &recipes::sidecar());
        injected["metadata"]["annotations"][recipes::EVICTABLE].clone()
    };
    assert_eq!(evictable(json!({})), "otelagent-queue");
    for (own, expected) in [
        (" ", "otelagent-queue"),
        ("cache", "cache,otelagent-queue"),
        ("a, otelagent-queue", "a, otelagent-queue"),
    ] {
        assert_eq!(evictable(json!({recipes::EVICTABLE: own})), expected);
    }
}
