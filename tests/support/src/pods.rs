//! Pods: a table of known cases, and a generator for all others.

use otelagent_core::inject::{Injection, Recipe, inject};
use otelagent_core::names;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::pod_case::pod;
use crate::pod_shapes;
use crate::pod_variants::{
    app, architectures, chosen, gates, long_names, on_disk, owned, simple, windows, workloads,
};
use crate::recipes;

/// Named cases. Those of a recipe's own names come with the recipe.
pub fn table(recipe: &Recipe) -> Vec<(&'static str, Value)> {
    let mut cases = shapes();
    cases.extend(variables());
    cases.extend(obstacles(recipe));
    cases.extend(pod_shapes::pods());
    cases
}

fn shapes() -> Vec<(&'static str, Value)> {
    let many: Vec<Value> = (0..30)
        .map(|i| json!({"name": format!("c{i}"), "image": format!("shop:{i}"), "env": [{"name": "A", "value": "b"}]}))
        .collect();
    let mesh = json!({
        "containers": [app(json!([]))],
        "initContainers": [
            {"name": "istio-init", "image": "i"},
            {"name": "linkerd-proxy", "image": "l", "restartPolicy": "Always"},
            {"name": "migrate", "image": "m"},
        ],
    });
    let later_mesh = json!({
        "containers": [app(json!(null))],
        "initContainers": [{"name": "migrate", "image": "m"}, {"name": "istio-proxy", "image": "i", "restartPolicy": "Always"}],
    });
    let annotated = json!({"name": "annotated", "annotations": {
        "resource.opentelemetry.io/service.name": "the $(shop), & co. $$",
        "resource.opentelemetry.io/service.version": "1 ü=,;%\"\\\u{1F600}",
        "resource.opentelemetry.io/k8s.pod.name": "mine",
        "resource.opentelemetry.io/team": "annotated",
        "resource.opentelemetry.io/empty": "",
        "resource.opentelemetry.io/long": "x".repeat(256),
        "resource.opentelemetry.io/just": "x".repeat(255),
        "resource.opentelemetry.io/long.encoded": "é".repeat(43),
        "resource.opentelemetry.io/just.encoded": "é".repeat(42),
        "resource.opentelemetry.io/service.instance.id": "",
        "resource.opentelemetry.io/plus": "1.4.0+build~7",
    }});
    let forged = json!({"name": "forged", "labels": {"pod-template-hash": "x"}, "ownerReferences": [
        {"apiVersion": "v1", "kind": "ReplicaSet", "name": "a,b=$(C)é-x", "uid": "u", "controller": true},
        {"apiVersion": "v1", "kind": "StatefulSet", "name": "not-in-control", "uid": "w"},
    ]});
    vec![
        ("bare", simple("bare", json!({}))),
        (
            "generated name",
            pod(
                json!({"generateName": "gen-"}),
                json!({"containers": [app(json!([]))]}),
            ),
        ),
        (
            "thirty containers",
            pod(
                json!({"name": "many"}),
                json!({"containers": many, "initContainers": many[..3].iter().map(|c| { let mut c = c.clone(); c["name"] = json!(format!("i{}", c["name"].as_str().unwrap())); c }).collect::<Vec<_>>()}),
            ),
        ),
        ("mesh", pod(json!({"name": "mesh"}), mesh)),
        (
            "mesh after others",
            pod(json!({"name": "mesh2"}), later_mesh),
        ),
        (
            "native sidecar of others",
            pod(
                json!({"name": "native"}),
                json!({
                    "containers": [app(json!([]))],
                    "initContainers": [{"name": "logs", "image": "l", "restartPolicy": "Always"}],
                }),
            ),
        ),
        (
            "volumes",
            simple(
                "volumes",
                json!({"volumes": [{"name": "data", "emptyDir": {"sizeLimit": "0.5Gi"}}]}),
            ),
        ),
        (
            "annotated",
            pod(annotated, json!({"containers": [app(json!(null))]})),
        ),
        (
            "forged owner",
            pod(forged, json!({"containers": [app(json!(null))]})),
        ),
        (
            "deployment",
            owned(
                "shop-abc",
                "ReplicaSet",
                "shop-abc",
                json!({"pod-template-hash": "abc"}),
            ),
        ),
        (
            "replica set",
            owned("shop", "ReplicaSet", "shop-abc", json!({"app": "x"})),
        ),
        (
            "replica set of nothing",
            owned(
                "shop",
                "ReplicaSet",
                "-abc",
                json!({"pod-template-hash": "abc"}),
            ),
        ),
        ("stateful set", owned("db", "StatefulSet", "db", json!({}))),
        ("daemon set", owned("ds", "DaemonSet", "ds", json!({}))),
        (
            "replication controller",
            owned("rc", "ReplicationController", "rc", json!({})),
        ),
        (
            "cron job",
            owned("backup", "Job", "backup-29834567", json!({})),
        ),
        (
            "dated job",
            owned("import", "Job", "import-20261122", json!({})),
        ),
        (
            "job of digits only",
            owned("import", "Job", "-29834567", json!({})),
        ),
        (
            "custom controller",
            owned("rollout", "CloneSet", "rollout", json!({})),
        ),
    ]
    .into_iter()
    .chain(workloads())
    .chain(long_names())
    .collect()
}

fn variables() -> Vec<(&'static str, Value)> {
    let set = json!([
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://mine:4317"},
        {"name": "OTEL_SERVICE_NAME", "value": "mine"},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "service.name=mine,k8s.pod.name=mine , team = a"},
        {"name": "OTEL_BSP_SCHEDULE_DELAY", "value": "1"},
        {"name": "OTEL_BLRP_SCHEDULE_DELAY", "value": "1"},
        {"name": "OTELAGENT_NODE_NAME", "value": "mine"},
        {"name": "OTELAGENT_POD_NAME", "value": "mine"},
        {"name": "OTELAGENT_POD_UID", "value": "mine"},
        {"name": "OTELAGENT_HOST_IP", "value": "::1"},
    ]);
    let with = |name, env| {
        (
            name,
            pod(
                json!({"name": "vars"}),
                json!({"containers": [app(env)], "initContainers": [{"name": "i", "image": "i"}]}),
            ),
        )
    };
    let attributes = |value: &str| json!([{"name": "A", "value": "$(B)"}, {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": value}]);
    vec![
        with("everything set", set),
        with(
            "one signal's endpoint set",
            json!([{"name": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "value": "http://m:1"}]),
        ),
        with(
            "attributes by reference",
            json!([{"name": "OTEL_RESOURCE_ATTRIBUTES", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}]),
        ),
        with(
            "attributes twice",
            json!([
                {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "a=b"},
                {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "service.name=c"},
            ]),
        ),
        with("attributes empty", attributes("")),
        with(
            "attributes that name the service",
            attributes("service.name=own"),
        ),
        with("attributes that end in a comma", attributes("a=b,")),
        with("attributes that end in blanks", attributes("a=b \n,\t, ")),
        with("blank attributes", attributes(" ")),
        with("an empty line of attributes", attributes("\n")),
        with(
            "attributes of commas",
            attributes(", ,\u{b}\u{85}\u{a0}\u{2003}\u{2028},\r\n"),
        ),
        with("attributes that only look blank", attributes("\u{200b}")),
        with(
            "attributes with odd spaces",
            attributes(" service.name\u{a0}= x ,\u{3000}k8s.node.name=y,,=z"),
        ),
        with(
            "attributes without a value",
            json!([{"name": "OTEL_RESOURCE_ATTRIBUTES"}]),
        ),
        with(
            "from elsewhere",
            json!([{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        ),
    ]
}

/// What `kubectl debug --copy-to` makes of a pod that was given a sidecar.
pub fn sidecar_copy() -> Value {
    let original = simple("copied", json!({}));
    let Injection::Injected(mut copy) = inject(&original, "sel", &recipes::small_sidecar()) else {
        panic!("injectable")
    };
    copy["metadata"] = original["metadata"].clone();
    copy
}

fn obstacles(recipe: &Recipe) -> Vec<(&'static str, Value)> {
    let labelled = |labels: Value| {
        pod(
            json!({"name": "l", "labels": labels}),
            json!({"containers": [app(json!([]))]}),
        )
    };
    let Injection::Injected(injected) = inject(&simple("again", json!({})), "sel", recipe) else {
        panic!("injectable")
    };
    let mut other_image = injected.clone();
    if recipe.sidecar.is_some() {
        other_image["spec"]["initContainers"][0]["image"] = json!("foreign");
    }
    let mut unlabelled = injected.clone();
    unlabelled["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("labels");
    let container =
        |name: &str| json!({"containers": [app(json!([])), {"name": name, "image": "x"}]});
    let added: usize = recipe
        .annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let joined = recipe.joined_annotations.iter();
    let joined: usize = joined.map(|(key, name)| key.len() + name.len() + 1).sum();
    let fitting = 256 * 1024 - added - joined - "x".len();
    let annotated = |bytes: usize| {
        let value = format!("{}{}", "é".repeat(bytes / 2), "a".repeat(bytes % 2));
        pod(
            json!({"name": "a", "annotations": {"x": value}}),
            json!({"containers": [app(json!([]))]}),
        )
    };
    vec![
        ("second pass", injected),
        ("a copy with a foreign agent", other_image),
        ("a copy without labels", unlabelled),
        ("a copy with a sidecar", sidecar_copy()),
        ("opted out", labelled(json!({names::LABEL_INJECT: "false"}))),
        (
            "opted in by name",
            labelled(json!({names::LABEL_INJECT: "true"})),
        ),
        (
            "another's",
            labelled(json!({names::LABEL_AGENT: "other.one"})),
        ),
        (
            "an older injection",
            labelled(json!({names::LABEL_AGENT: recipe.agent, names::LABEL_CONFIG: "0123456789"})),
        ),
        ("labels only", labelled(json!(recipe.labels()))),
        (
            "forged mode",
            labelled(json!({names::LABEL_MODE: "Sidecar", names::LABEL_CONFIG: "x"})),
        ),
        (
            "forged configuration",
            pod(
                json!({"name": "f", "annotations": {names::ANNOTATION_CONFIG: "mine"}}),
                json!({"containers": [app(json!([]))]}),
            ),
        ),
        (
            "mirror",
            pod(
                json!({"name": "m", "annotations": {"kubernetes.io/config.mirror": "x"}}),
                json!({"containers": [app(json!([]))], "nodeName": "n"}),
            ),
        ),
        ("windows", simple("w", json!({"os": {"name": "windows"}}))),
        (
            "windows by node",
            simple(
                "w",
                json!({"nodeSelector": {"kubernetes.io/os": "windows"}}),
            ),
        ),
        (
            "linux by name",
            simple(
                "w",
                json!({"os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"}}),
            ),
        ),
        ("host network", simple("h", json!({"hostNetwork": true}))),
        (
            "host network with cluster DNS",
            simple(
                "h",
                json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            ),
        ),
        (
            "the node's DNS",
            simple("d", json!({"dnsPolicy": "Default"})),
        ),
        (
            "its own DNS",
            simple(
                "d",
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.1"]}}),
            ),
        ),
        (
            "resources of the pod",
            simple("r", json!({"resources": {"limits": {"memory": "8Mi"}}})),
        ),
        (
            "container name taken",
            pod(json!({"name": "n"}), container(names::CONTAINER)),
        ),
        (
            "init container name taken",
            simple(
                "n",
                json!({"initContainers": [{"name": names::CONTAINER, "image": "x"}]}),
            ),
        ),
        (
            "volume taken",
            simple(
                "v",
                json!({"volumes": [{"name": names::CONFIG_VOLUME, "emptyDir": {}}]}),
            ),
        ),
        (
            "port taken",
            simple(
                "p",
                json!({"initContainers": [{"name": "own", "image": "x", "restartPolicy": "Always", "ports": [{"containerPort": 4318}]}]}),
            ),
        ),
        (
            "port taken by another protocol",
            simple(
                "p",
                json!({"initContainers": [{"name": "own", "image": "x", "ports": [{"containerPort": 4318, "protocol": "UDP"}]}]}),
            ),
        ),
        ("annotations that just fit", annotated(fitting)),
        ("annotations too large by one byte", annotated(fitting + 1)),
    ]
    .into_iter()
    .chain(windows())
    .chain(architectures())
    .chain(chosen())
    .chain(on_disk())
    .chain(gates())
    .collect()
}

/// Text of all kinds, without NUL, which Go's JSON takes and etcd's protobuf too, but no kubelet.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{0,8}",
        "[ -~]{0,20}",
        "\\PC{0,12}",
        "(\\$\\(|\\$|\\)|,|=|%|\"|\\\\|\n|é|\u{1F600}){0,10}"
    ]
}

fn variable() -> impl Strategy<Value = Value> {
    let known = prop::sample::select(vec![
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTELAGENT_POD_NAME",
        "OTELAGENT_HOST_IP",
    ]);
    let name = prop_oneof![known.prop_map(str::to_owned), "[A-Z][A-Z_]{0,6}"];
    let attribute = (
        "(service\\.name|team|k8s\\.pod\\.name| x |[a-z]{1,4})",
        any_text(),
    )
        .prop_map(|(k, v)| format!("{k}={v}"));
    let value = prop_oneof![
        any_text(),
        vec(attribute, 0..4).prop_map(|list| list.join(","))
    ];
    let from = prop::sample::select(vec![
        json!({"fieldRef": {"fieldPath": "metadata.name"}}),
        json!({"configMapKeyRef": {"name": "c", "key": "k"}}),
        json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}),
    ]);
    (name, option::of(value), option::weighted(0.2, from)).prop_map(|(name, value, from)| {
        match (value, from) {
            (_, Some(from)) => json!({"name": name, "valueFrom": from}),
            (Some(value), None) => json!({"name": name, "value": value}),
            (None, None) => json!({"name": name}),
        }
    })
}

/// Sources of variables, whose content no test sees.
fn sources() -> impl Strategy<Value = Value> {
    let prefix = prop::sample::select(vec![
        "",
        "APP_",
        "O",
        "OTEL_",
        "OTEL_RES",
        "OTEL_SERVICE_NAME_",
    ]);
    let kind = prop::sample::select(vec!["configMapRef", "secretRef"]);
    let source =
        (prefix, kind).prop_map(|(prefix, kind)| json!({"prefix": prefix, kind: {"name": "s"}}));
    vec(source, 1..3).prop_map(|sources| json!(sources))
}

fn container() -> impl Strategy<Value = Value> {
    let image = prop_oneof![
        "[a-z]{1,5}(:[0-9]{4})?(/[a-z]{1,4})?(:[a-z0-9._-]{1,6})?(@sha256:[0-9a-f]{30,34})?",
        any_text().prop_map(|text| format!("x{}x", text.trim())),
    ];
    let ports = prop::sample::select(vec![4316_u16, 4317, 4318, 14_317, 13_133]);
    let port = (ports, prop::sample::select(vec!["TCP", "UDP"]))
        .prop_map(|(port, protocol)| json!({"containerPort": port, "protocol": protocol}));
    (
        image,
        option::of(vec(variable(), 0..6)),
        option::weighted(0.1, port),
        option::weighted(0.2, sources()),
    )
        .prop_map(|(image, env, port, sources)| {
            let mut container = Map::from_iter([("image".to_owned(), json!(image))]);
            container.extend(env.map(|env| ("env".to_owned(), json!(env))));
            container.extend(port.map(|port| ("ports".to_owned(), json!([port]))));
            container.extend(sources.map(|sources| ("envFrom".to_owned(), sources)));
            Value::Object(container)
        })
}

fn named(containers: Vec<Value>, names: &[&str]) -> Vec<Value> {
    let name = |i: usize| {
        names
            .get(i)
            .map_or_else(|| format!("c{i}"), |name| (*name).to_owned())
    };
    let mut containers = containers;
    for (i, container) in containers.iter_mut().enumerate() {
        container["name"] = json!(name(i));
    }
    containers
}

fn metadata() -> impl Strategy<Value = Value> {
    let label = (
        "(app|tier|(rollouts-)?pod-template-hash|team|deploymentconfig|serving\\.knative\\.dev/service)",
        "[a-z0-9]{1,6}",
    );
    let annotation = (
        "(resource\\.opentelemetry\\.io/)?(service\\.(name|version|namespace)|team|[a-z]{1,5})",
        any_text(),
    );
    let kind = prop::sample::select(vec![
        "ReplicaSet",
        "StatefulSet",
        "DaemonSet",
        "Job",
        "CloneSet",
        "ReplicationController",
    ]);
    let owner = (
        kind,
        "[a-z]{1,5}(-[a-z0-9]{1,3}|-[0-9]{8}|-2[0-9]{7}|-[bcdf24]{7,11})?",
        any::<bool>(),
        any::<bool>(),
    );
    (
        option::of(btree_map(label.0, label.1, 0..4)),
        option::of(btree_map(annotation.0, annotation.1, 0..5)),
        option::of(owner),
        any::<bool>(),
    )
        .prop_map(|(labels, annotations, owner, named)| {
            let mut metadata = if named { json!({"name": "pod"}) } else { json!({"generateName": "pod-"}) };
            let mut labels = labels;
            if let Some((kind, name, controller, hashed)) = owner {
                metadata["ownerReferences"] = json!([
                    {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": controller},
                ]);
                if let (true, Some((_, hash))) = (hashed, name.rsplit_once('-')) {
                    labels.get_or_insert_default().insert("pod-template-hash".into(), hash.into());
                }
            }
            if let Some(labels) = labels {
                metadata["labels"] = json!(labels);
            }
            if let Some(annotations) = annotations {
                metadata["annotations"] = json!(annotations);
            }
            metadata
        })
}

/// A pod that the API server takes, more often than not one that can be injected.
pub fn any_pod() -> impl Strategy<Value = Value> {
    let inits = prop::sample::select(vec![
        vec![],
        vec!["istio-init", "setup"],
        vec!["setup", "linkerd-init", "istio-proxy"],
        vec!["setup"],
        vec![names::CONTAINER],
    ]);
    let host = prop::sample::select(vec![
        json!({}),
        json!({}),
        json!({}),
        json!({"dnsPolicy": "Default"}),
        json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}),
        json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["cluster.local"]}}),
    ]);
    (
        metadata(),
        vec(container(), 1..5),
        inits,
        vec(container(), 3),
        host,
        option::weighted(0.05, any::<bool>()),
    )
        .prop_map(|(metadata, containers, names, inits, host, volume)| {
            let mut spec = host;
            spec["containers"] = json!(named(containers, &["app", "worker"]));
            if !names.is_empty() {
                spec["initContainers"] = json!(named(inits[..names.len()].to_vec(), &names));
            }
            if let Some(clash) = volume {
                let name = if clash { names::CONFIG_VOLUME } else { "data" };
                spec["volumes"] = json!([{"name": name, "emptyDir": {}}]);
            }
            pod(metadata, spec)
        })
}

/// The same generated pods every time.
pub fn generated(count: usize) -> Vec<Value> {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = any_pod();
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).expect("a pod").current())
        .collect()
}
