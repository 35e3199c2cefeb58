//! What SDKs read from the variables that injection adds, without a cluster: a pod's variables, as a kubelet expands
//! them, are the environment of a program that prints its resource.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use otelagent_core::inject::{Injection, inject};
use otelagent_test_support::pod_shapes::{ATTRIBUTES, pod};
use otelagent_test_support::recipes::{self, input};
use serde_json::{Value, json};

use super::server::{self, Server};

const NAMESPACE: &str = "read-by-sdks";
/// What a kubelet puts in place of the fields of the pod.
const FIELDS: [(&str, &str); 4] = [
    ("metadata.name", "shop-1"),
    ("metadata.uid", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    ("spec.nodeName", "node-1"),
    ("status.hostIP", "10.0.0.1"),
];
/// Texts that SDKs have read differently, by attribute.
const TEXTS: [(&str, &str); 8] = [
    ("service.version", "1.4.0+build.7"),
    ("team", "Öl & Gas, Süd"),
    ("tilde", "~a~"),
    ("signs", "!#$%&'()*-./:;<=>?@[]^_`{|}\\\""),
    ("reference", "$(OTELAGENT_POD_NAME) $$"),
    ("space", " a\tb "),
    ("percent", "100%25"),
    ("emoji", "\u{1F600}"),
];

type Attributes = BTreeMap<String, String>;

/// A pod of a Rollout with every text as an annotation, and one that is too long.
fn annotated(own: Option<&str>) -> Value {
    let texts = TEXTS.iter().map(|(key, text)| (*key, (*text).to_owned()));
    let texts = texts.chain([("long", "x".repeat(256)), ("longest", "x".repeat(255))]);
    let annotations: BTreeMap<String, String> = texts
        .map(|(key, text)| (format!("resource.opentelemetry.io/{key}"), text))
        .collect();
    let controller = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-6d8f9c7b5d", "uid": "u", "controller": true});
    let metadata = json!({
        "name": "shop-1",
        "labels": {"rollouts-pod-template-hash": "6d8f9c7b5d"},
        "annotations": annotations,
        "ownerReferences": [controller],
    });
    let env: Vec<Value> = own
        .map(|own| json!({"name": ATTRIBUTES, "value": own}))
        .into_iter()
        .collect();
    pod(
        metadata,
        json!({"containers": [{"name": "app", "image": "shop:1", "env": env}], "automountServiceAccountToken": false}),
    )
}

/// What every SDK that decodes should read.
fn expected(own: &[(&str, &str)]) -> Attributes {
    let [(_, name), (_, uid), (_, node), _] = FIELDS;
    let known = [
        ("service.name", "shop"),
        ("service.namespace", NAMESPACE),
        ("service.instance.id", "read-by-sdks.shop-1.app"),
        ("k8s.namespace.name", NAMESPACE),
        ("k8s.pod.name", name),
        ("k8s.pod.uid", uid),
        ("k8s.node.name", node),
        ("k8s.replicaset.name", "shop-6d8f9c7b5d"),
        ("k8s.container.name", "app"),
    ];
    let longest = "x".repeat(255);
    let all = known.iter().chain(&TEXTS).chain(own).copied();
    all.chain([("longest", longest.as_str())])
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The environment of a container as the kubelet makes it (`k8s.io/kubernetes/third_party/forked/golang/expansion`).
fn environment(pod: &Value) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for variable in pod["spec"]["containers"][0]["env"].as_array().unwrap() {
        let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
        let value = match field {
            Some(field) => FIELDS
                .iter()
                .find(|(known, _)| *known == field)
                .map(|(_, value)| (*value).to_owned())
                .expect("a field"),
            None => expanded(variable["value"].as_str().unwrap_or_default(), &environment),
        };
        environment.insert(variable["name"].as_str().unwrap().to_owned(), value);
    }
    environment
}

fn expanded(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        rest = if let Some((name, behind)) = reference {
            let value = known.get(name).cloned();
            expanded.push_str(&value.unwrap_or_else(|| format!("$({name})")));
            behind
        } else {
            expanded.push('$');
            after.strip_prefix('$').unwrap_or(after)
        };
    }
    expanded + rest
}

/// A program that prints its resource.
struct ResourcePrinter<'a> {
    folder: &'a Path,
    words: &'a [&'a str],
    read: fn(&str) -> Attributes,
}

impl ResourcePrinter<'_> {
    fn resource(&self, environment: &BTreeMap<String, String>) -> Attributes {
        let (program, words) = self.words.split_first().expect("a program");
        let otel = environment
            .iter()
            .filter(|(name, _)| name.starts_with("OTEL_"));
        let output = Command::new(program)
            .args(words)
            .current_dir(self.folder)
            .envs(otel)
            .output();
        let output = output.expect("the program runs");
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {errors}");
        (self.read)(&text)
    }
}

fn from_json(text: &str) -> Attributes {
    serde_json::from_str(text).expect("the resource")
}

fn from_lines(text: &str) -> Attributes {
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The folder of all programs.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../apps")
}

/// A copy of a program's folder, for what its tools write.
fn copied(program: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program);
    let source = programs().join(program);
    let copied = Command::new("cp")
        .args(["--recursive", "--no-target-directory"])
        .args([&source, &folder])
        .status();
    assert!(copied.unwrap().success());
    folder
}

fn prepared(folder: &Path, tool: &str, words: &[&str]) {
    let output = Command::new(tool).args(words).current_dir(folder).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{tool} {words:?}: {output:?}");
}

fn is_possible(test: &str, tool: &str) -> bool {
    let is_there = Command::new(tool).arg("--help").output().is_ok();
    is_there || !testbed::skip(test, &format!("{tool} is not installed"))
}

/// The pod as both engines make it.
async fn injected(pod: &Value) -> Vec<Value> {
    let recipe = recipes::recipe("node-local");
    let Injection::Injected(by_function) = inject(pod, NAMESPACE, &recipe) else {
        panic!("injectable")
    };
    let mut pods = vec![by_function];
    if server::is_possible("what the policy injects, read by SDKs") {
        let server = Server::start().await;
        server.namespace(NAMESPACE, json!({})).await;
        server.activate(&input(NAMESPACE, NAMESPACE, &recipe)).await;
        let answer = server.dry_run(NAMESPACE, pod).await;
        assert!(answer.is_ok(), "{answer:?}");
        pods.push(answer.body);
    }
    pods
}

async fn reads_what_was_written(program: &ResourcePrinter<'_>) {
    for (own, more) in [
        (None, &[][..]),
        (Some(" \n"), &[]),
        (Some("a=b,\n"), &[("a", "b")]),
    ] {
        for pod in injected(&annotated(own)).await {
            let found = program.resource(&environment(&pod));
            assert_eq!(found, expected(more), "{:?}, {own:?}", program.words);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_js_sdk_reads_what_was_written() {
    if !is_possible("the resource of the SDK for Node.js", "npm") {
        return;
    }
    let folder = copied("node-resource");
    let words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    prepared(&folder, "npm", &words);
    for version in ["resources", "resources-2.0"] {
        reads_what_was_written(&ResourcePrinter {
            folder: &folder,
            words: &["node", "resource.js", version],
            read: from_json,
        })
        .await;
    }
    // It does not decode, and discards everything for one character or value that it does not like.
    let old = ResourcePrinter {
        folder: &folder,
        words: &["node", "resource.js", "resources-1.8"],
        read: from_json,
    };
    let pod = annotated(None);
    for pod in injected(&pod).await {
        let found = old.resource(&environment(&pod));
        let keys = |attributes: Attributes| attributes.into_keys().collect::<Vec<_>>();
        assert_eq!(keys(found), keys(expected(&[])));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn java_sdk_reads_what_was_written() {
    if !is_possible("the resource of the SDK for Java", "mvn") {
        return;
    }
    let folder = copied("java-resource");
    // The last version that reads a plus sign as a space, and a later one.
    for version in ["1.58.0", "1.68.0"] {
        let version = format!("-Dopentelemetry.version={version}");
        let classpath = "-Dmdep.outputFile=target/classpath";
        let words = [
            "--batch-mode",
            "--quiet",
            &version,
            classpath,
            "compile",
            CLASSPATH,
        ];
        prepared(&folder, "mvn", &words);
        let classes = std::fs::read_to_string(folder.join("target/classpath")).unwrap();
        let classes = format!("target/classes:{}", classes.trim());
        reads_what_was_written(&ResourcePrinter {
            folder: &folder,
            words: &["java", "--class-path", &classes, "PrintResource"],
            read: from_lines,
        })
        .await;
    }
}

/// The goal that writes where the dependencies are.
const CLASSPATH: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath";

#[tokio::test(flavor = "multi_thread")]
async fn go_sdk_reads_what_was_written() {
    if !is_possible("the resource of the SDK for Go", "go") {
        return;
    }
    let folder = programs().join("go-sdk");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-resource");
    let program = program.to_str().unwrap();
    prepared(&folder, "go", &["build", "-o", program, "./resource"]);
    reads_what_was_written(&ResourcePrinter {
        folder: &folder,
        words: &[program],
        read: from_json,
    })
    .await;
}
