//! The start gate: which pods get it, where, and with which resources.

use otelagent_core::inject::{Injection, Recipe, inject};
use otelagent_core::names;
use otelagent_test_support::pod_shapes::pod;
use otelagent_test_support::recipes;
use proptest::prelude::*;
use serde_json::{Value, json};

fn gated() -> Recipe {
    recipes::recipe("start-gate")
}

/// The spec that injection makes of one with a container, and of one with more.
fn injected(more: &Value) -> Value {
    let mut spec = json!({"containers": [{"name": "app"}]});
    let more = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(more);
    match inject(&pod(json!({"name": "a"}), spec), "shop", &gated()) {
        Injection::Injected(pod) => pod["spec"].clone(),
        Injection::Skipped(reason) => panic!("{reason}"),
    }
}

/// The names of its init containers, in their order.
fn inits(spec: &Value) -> Vec<&str> {
    let inits = spec["initContainers"].as_array().into_iter().flatten();
    inits.map(|init| init["name"].as_str().unwrap()).collect()
}

fn gate(spec: &Value) -> &Value {
    let mut inits = spec["initContainers"].as_array().into_iter().flatten();
    let gate = inits.find(|init| init["name"] == names::START_GATE);
    gate.unwrap_or(&Value::Null)
}

#[test]
fn gate_asks_the_endpoint_of_the_application_before_anything_else_starts() {
    let spec = injected(&json!({"initContainers": [{"name": "migrate"}, {"name": "seed"}]}));
    assert_eq!(inits(&spec), [names::START_GATE, "migrate", "seed"]);
    let env = spec["containers"][0]["env"].as_array().unwrap();
    let endpoint = env
        .iter()
        .find(|variable| variable["name"] == "OTEL_EXPORTER_OTLP_ENDPOINT");
    let args = json!(["wait", "30s", endpoint.unwrap()["value"]]);
    assert_eq!(gate(&spec)["args"], args);
    assert_eq!(gate(&spec)["image"], "otelagent/agent:test");
    assert!(gate(&spec)["restartPolicy"].is_null());
    // What it asks for is in an earlier variable of its own, and it gets no others.
    assert_eq!(gate(&spec)["env"].as_array().unwrap().len(), 1);
    assert_eq!(gate(&spec)["env"][0]["name"], "OTELAGENT_HOST_IP");
    assert_eq!(env[0], gate(&spec)["env"][0]);
}

/// Before `istio-init` the network is still the pod's own; after it nothing leaves the pod without the proxy.
#[test]
fn gate_starts_behind_a_meshs_proxy_and_before_all_else() {
    let proxy = |name: &str| json!({"name": name, "restartPolicy": "Always"});
    for (given, place) in [
        (json!([]), 0),
        (json!([{"name": "istio-init"}, {"name": "migrate"}]), 0),
        (
            json!([{"name": "istio-validation"}, proxy("istio-proxy"), {"name": "a"}]),
            2,
        ),
        (
            json!([{"name": "a"}, {"name": "linkerd-init"}, proxy("linkerd-proxy")]),
            3,
        ),
        (json!([proxy("logs")]), 0),
    ] {
        let spec = injected(&json!({"initContainers": given}));
        assert_eq!(inits(&spec)[place], names::START_GATE, "{given}");
    }
}

#[test]
fn gate_has_the_resources_of_the_first_container_and_reserves_none_of_its_own() {
    let resources = |resources: Value| {
        let containers = json!([{"name": "app", "resources": resources}, {"name": "b", "resources": {"limits": {"cpu": "9"}}}]);
        gate(&injected(&json!({"containers": containers})))["resources"].clone()
    };
    let none = json!({"limits": {}, "requests": {}});
    assert_eq!(resources(Value::Null), none);
    let both = json!({"cpu": "100m", "memory": "64Mi"});
    let guaranteed = json!({"limits": both, "requests": both});
    assert_eq!(resources(guaranteed.clone()), guaranteed);
    let burstable = json!({"limits": {"memory": "1Gi"}, "requests": {"cpu": "1"}});
    assert_eq!(resources(burstable.clone()), burstable);
    let others = json!({"limits": {"example.com/card": "1"}, "requests": {"ephemeral-storage": "1Gi"}, "claims": [{"name": "c"}]});
    assert_eq!(resources(others), none);
}

/// A pod that would never start, or that its node needs first, must not wait.
#[test]
fn pod_gets_no_gate_where_that_could_keep_it_from_starting() {
    let limited =
        |memory: &str| json!([{"name": "app", "resources": {"limits": {"memory": memory}}}]);
    for more in [
        json!({"priorityClassName": "system-node-critical"}),
        json!({"priorityClassName": "system-cluster-critical"}),
        json!({"nodeSelector": {"kubernetes.io/arch": "s390x"}}),
        json!({"nodeSelector": {"type": "virtual-kubelet"}}),
        json!({"containers": limited("16777215")}),
        json!({"resources": {"limits": {"memory": "8Mi"}}}),
        json!({"containers": [{"name": names::START_GATE}]}),
    ] {
        let spec = injected(&more);
        assert_eq!(gate(&spec), &Value::Null, "{more}");
        assert!(spec["volumes"].is_null(), "{more}");
    }
    for more in [
        json!({"priorityClassName": "important"}),
        json!({"nodeSelector": {"kubernetes.io/arch": "arm64"}}),
        json!({"containers": limited("16Mi")}),
        json!({"resources": {"limits": {"memory": "1Gi"}}}),
        json!({"hostNetwork": true}),
        json!({"restartPolicy": "Never"}),
    ] {
        assert!(gate(&injected(&more)).is_object(), "{more}");
    }
}

#[test]
fn gate_is_restricted_and_has_no_token() {
    let spec = injected(&json!({"securityContext": {"runAsUser": 0}}));
    let security = &gate(&spec)["securityContext"];
    assert_eq!(security["runAsUser"], names::USER);
    assert_eq!(security["runAsNonRoot"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    let mount = &gate(&spec)["volumeMounts"][0];
    assert_eq!(
        mount["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(spec["volumes"][0]["name"], mount["name"]);
    assert!(spec["volumes"][0]["downwardAPI"].is_object());
    // The user of any other pod is that of the image, or what the platform chooses.
    let security = &gate(&injected(&json!({})))["securityContext"].clone();
    assert!(security["runAsUser"].is_null());
}

/// Else every pod would be stale whenever the gate is changed, and restarted for nothing.
#[test]
fn pods_stay_current_when_a_gate_comes_goes_or_waits_longer() {
    let gated = gated();
    let mut without = gated.clone();
    without.start_gate = None;
    let mut longer = gated.clone();
    longer.start_gate.as_mut().unwrap().container["args"][1] = "60s".into();
    assert_eq!(gated.labels(), without.labels());
    assert_eq!(gated.labels(), longer.labels());
    // A copy of a pod from before is injected like any other.
    let bare = pod(
        json!({"name": "a"}),
        json!({"containers": [{"name": "app"}]}),
    );
    let Injection::Injected(before) = inject(&bare, "shop", &without) else {
        panic!("injectable");
    };
    assert_eq!(
        inject(&before, "shop", &gated),
        inject(&bare, "shop", &gated)
    );
    let mut other = gated.clone();
    other.env[0].value.push('x');
    assert_ne!(gated.hash(), other.hash());
}

proptest! {
    /// What a pod reserves, and its quality of service, are decided by all of its containers.
    #[test]
    fn gate_never_has_more_than_its_pod(cpu in prop::option::of(1_u32..9999), memory in prop::option::of(1_u32..99), is_limit: bool) {
        let kind = if is_limit { "limits" } else { "requests" };
        let mut given = json!({kind: {}});
        if let Some(cpu) = cpu {
            given[kind]["cpu"] = format!("{cpu}m").into();
        }
        if let Some(memory) = memory {
            given[kind]["memory"] = format!("{memory}Mi").into();
        }
        let spec = injected(&json!({"containers": [{"name": "app", "resources": given}]}));
        let is_gated = gate(&spec).is_object();
        prop_assert_eq!(is_gated, !(is_limit && memory.is_some_and(|memory| memory < 16)));
        if is_gated {
            prop_assert_eq!(&gate(&spec)["resources"][kind], &given[kind]);
        }
    }
}
