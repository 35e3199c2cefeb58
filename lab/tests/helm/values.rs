//! Values: wrong ones are refused by name, and optional parts are rendered.

use serde_json::{Value, json};

use super::program::{Helm, chart, each};

/// Options, and what the refusal names.
const REFUSED: [(&[&str], &str); 20] = [
    (&["--set=replicas=3"], "replicas"),
    (&["--set=replicaCount=two"], "replicaCount"),
    (&["--set=image.name=operator"], "name"),
    (&["--set=image.pullPolicy=Sometimes"], "pullPolicy"),
    (&["--set=imagePullSecrets={registry}"], "imagePullSecrets"),
    (&["--set=platformNamespaces={Team_A}"], "platformNamespaces"),
    (&["--set=injectionEngine=cel"], "injectionEngine"),
    (&["--set=webhook=true"], "webhook"),
    (&["--set=restart.enabled=yes"], "restart"),
    (&["--set=commonLabels.cost=7"], "cost"),
    (
        &["--set=podDisruptionBudget.maxUnavailable=half"],
        "maxUnavailable",
    ),
    (
        &["--set=serviceAccount.create=false"],
        "serviceAccount.name is needed",
    ),
    (&["--set=serviceAccount.name=Not A Name"], "name"),
    (
        &["--set=image.repository=otelagent/operator:v1"],
        "repository",
    ),
    (&["--set=agent.image.digest=latest"], "digest"),
    (&["--set=tolerations.key=pool"], "tolerations"),
    (&["--set=metrics.serviceMonitor.interval=30"], "interval"),
    (
        &["--set=webhook.certificateSecret=a b"],
        "certificateSecret",
    ),
    (
        &["--set=canaryNamespace.name=otelagent-system"],
        "nothing may run in the canary namespace",
    ),
    (
        &["--set=platformNamespaces={otelagent-canary}"],
        "nothing may run in the canary namespace",
    ),
];

#[test]
fn wrong_values_are_refused_by_their_names() {
    for helm in each("values of the chart") {
        for (options, named) in REFUSED {
            let rendered = helm.template("otelagent", "otelagent-system", options);
            let why = rendered.expect_err(&options.join(" "));
            assert!(why.contains(named), "{options:?}: {why}");
        }
    }
}

/// In YAML a key without a value is null, and Helm then forgets the default.
#[test]
fn values_left_empty_mean_nothing_or_are_refused_by_their_names() {
    let text = std::fs::read_to_string(format!("{}/values.yaml", chart())).unwrap();
    let values: Value = serde_saphyr::from_str(&text).unwrap();
    let mut paths = Vec::new();
    keys(&values, "", &mut paths);
    assert!(paths.len() > 60, "{paths:?}");
    for helm in each("empty values of the chart") {
        for path in &paths {
            let empty = format!("--set={path}=null");
            let options = [&EVERYTHING[..], &[&empty]].concat();
            let Err(why) = helm.template("edge", "telemetry", &options) else {
                continue;
            };
            let key = path.rsplit('.').next().unwrap_or_default();
            let missing = format!("missing property '{key}'");
            let is_named = why.contains(&missing) || why.contains(&format!("{key} is required"));
            assert!(is_named, "{path}: {why}");
        }
    }
}

/// Every key, also of objects, as Helm's options name it.
fn keys(values: &Value, at: &str, found: &mut Vec<String>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = format!("{at}{key}");
        keys(value, &format!("{path}."), found);
        found.push(path);
    }
}

#[test]
fn lint_finds_nothing_with_all_parts_enabled() {
    for helm in each("lint of the chart") {
        let chart = chart();
        let words = ["lint", "--strict", &chart, "--kube-version", "1.37.0"];
        let plain = helm.run(None, &words);
        assert!(plain.is_ok(), "{}", plain.unwrap_err());
        let linted = helm.run(None, &[&words[..], &EVERYTHING].concat());
        assert!(linted.is_ok(), "{}", linted.unwrap_err());
    }
}

/// Every optional part.
const EVERYTHING: [&str; 8] = [
    "--set=webhook.enabled=true",
    "--set=webhook.certificateSecret=serving",
    "--set=restart.enabled=true",
    "--set=networkPolicy.enabled=true",
    "--set=metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.release=prometheus",
    "--set=metrics.podMonitor.enabled=true,metrics.podMonitor.sidecars=true",
    "--set=prometheusRule.enabled=true",
    "--set=grafanaDashboard.enabled=true",
];

fn rendered(helm: &Helm, options: &[&str]) -> Vec<Value> {
    let rendered = helm.template("edge", "telemetry", options);
    rendered.unwrap_or_else(|why| panic!("{options:?}: {why}"))
}

fn of<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

#[test]
fn monitors_select_what_has_metrics() {
    for helm in each("monitors of the chart") {
        let objects = rendered(&helm, &EVERYTHING);
        let monitors = of(&objects, "ServiceMonitor");
        assert_eq!(monitors.len(), 2);
        for monitor in monitors {
            assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
            let selected = &monitor["spec"]["selector"]["matchLabels"];
            let services = of(&objects, "Service");
            let mut services = services.iter().filter(|service| {
                let labels = &service["metadata"]["labels"];
                let mut wanted = selected.as_object().unwrap().iter();
                wanted.all(|(key, value)| labels[key] == *value)
                    && service["spec"]["ports"][0]["name"] == "metrics"
            });
            let service = services.next().expect("a Service with metrics");
            assert!(services.next().is_none());
            let deployments = of(&objects, "Deployment");
            let mut deployments = deployments
                .iter()
                .map(|one| &one["spec"]["template"]["metadata"]["labels"]);
            assert!(deployments.any(|labels| *labels == service["spec"]["selector"]));
        }
        let monitors = of(&objects, "PodMonitor");
        let namespaces = &monitors[0]["spec"]["namespaceSelector"]["matchNames"];
        assert_eq!(*namespaces, json!(["telemetry"]));
        let sidecars = &monitors[1]["spec"];
        assert_eq!(sidecars["namespaceSelector"], json!({"any": true}));
        let labels = json!({"otelagent.dev/mode": "Sidecar"});
        assert_eq!(sidecars["selector"]["matchLabels"], labels);
        for kind in [
            "ServiceMonitor",
            "PodMonitor",
            "PrometheusRule",
            "ConfigMap",
        ] {
            assert!(of(&rendered(&helm, &[]), kind).is_empty(), "{kind}");
        }
    }
}

/// What others write into `files` reaches the cluster as it is, braces included.
#[test]
fn rules_and_dashboard_are_the_files_of_the_chart() {
    for helm in each("files of the chart") {
        let objects = rendered(&helm, &EVERYTHING);
        let file = |name: &str| {
            let path = format!("charts/otelagent/files/{name}");
            std::fs::read_to_string(demo::repository().join(path)).ok()
        };
        let rules = of(&objects, "PrometheusRule");
        let expected = file("rules.yaml");
        assert_eq!(rules.len(), usize::from(expected.is_some()));
        if let (Some(rule), Some(text)) = (rules.first(), expected) {
            let text: Value = serde_saphyr::from_str(&text).unwrap();
            assert_eq!(rule["spec"], text);
        }
        let dashboards = of(&objects, "ConfigMap");
        let expected = file("dashboard.json");
        assert_eq!(dashboards.len(), usize::from(expected.is_some()));
        if let (Some(dashboard), Some(text)) = (dashboards.first(), expected) {
            assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
            let kept = dashboard["data"]["edge-otelagent.json"].as_str().unwrap();
            let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(parsed(kept), parsed(&text));
        }
    }
}

const DIGEST: &str =
    "--set=image.digest=sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";

#[test]
fn labels_and_placement_of_the_user_reach_pods_and_never_selectors() {
    let options = [
        "--set=webhook.enabled=true",
        "--set=commonLabels.team=platform",
        "--set=podLabels.tier=control,podLabels.app\\.kubernetes\\.io/component=other",
        "--set=tolerations[0].operator=Exists",
        "--set=webhook.nodeSelector.pool=infra",
        "--set=priorityClassName=system-cluster-critical",
        "--set=imagePullSecrets[0].name=registry",
        "--set=image.tag=v9",
        DIGEST,
    ];
    for helm in each("labels of the chart") {
        let objects = rendered(&helm, &options);
        for object in &objects {
            let labels = &object["metadata"]["labels"];
            assert_eq!(labels["team"], "platform", "{object}");
            assert_eq!(labels["app.kubernetes.io/managed-by"], "Helm", "{object}");
        }
        let deployments = of(&objects, "Deployment");
        assert_eq!(deployments.len(), 2);
        for deployment in deployments {
            let template = &deployment["spec"]["template"];
            let labels = &template["metadata"]["labels"];
            assert_eq!(labels["team"], "platform");
            let selector = &deployment["spec"]["selector"]["matchLabels"];
            assert_eq!(selector.as_object().unwrap().len(), 3);
            for (key, value) in selector.as_object().unwrap() {
                assert_eq!(labels[key], *value, "{key}");
            }
            let spec = &template["spec"];
            assert_eq!(spec["imagePullSecrets"], json!([{"name": "registry"}]));
            let image = format!("otelagent/operator:v9@{}", &DIGEST[19..]);
            assert_eq!(spec["containers"][0]["image"], image);
            let is_operator = spec["containers"][0]["name"] == "operator";
            assert_eq!(spec["tolerations"].is_array(), is_operator);
            assert_eq!(spec["priorityClassName"].is_string(), is_operator);
            assert_eq!(spec["nodeSelector"].is_object(), !is_operator);
            assert_eq!(labels["tier"].is_string(), is_operator);
        }
    }
}

/// YAML would read such names as numbers.
#[test]
fn names_of_digits_stay_text() {
    let options = [
        "--set=webhook.enabled=true",
        "--set-string=canaryNamespace.name=7",
        "--set-string=serviceAccount.name=8",
    ];
    for helm in each("names of digits") {
        let objects = helm.template("1", "2", &options).unwrap();
        for object in &objects {
            let metadata = &object["metadata"];
            assert!(metadata["name"].is_string(), "{object}");
            let namespace = &metadata["namespace"];
            assert!(namespace.is_null() || namespace.is_string(), "{object}");
            let mut labels = metadata["labels"].as_object().unwrap().values();
            assert!(labels.all(Value::is_string), "{object}");
            for subject in object["subjects"].as_array().into_iter().flatten() {
                assert!(subject["name"].is_string() && subject["namespace"] == "2");
            }
        }
        let deployment = of(&objects, "Deployment")[0];
        let spec = &deployment["spec"]["template"]["spec"];
        assert_eq!(spec["serviceAccountName"], "8");
    }
}
