//! Shipped and rendered pods, and the webhook's configurations, by the checklist (parts 6.1 and 6.3).

use std::path::Path;

use otelagent_api::{Mode, OnFailure, Selector};
use otelagent_core::build::{Object, validate};
use otelagent_core::inject::policy::{PolicyInput, Rendered};
use otelagent_core::inject::{Namespaces, Recipe, Selection};
use otelagent_core::reconcile::Render as _;
use otelagent_webhook::configuration::{Endpoint, WebhookEngine};
use serde_json::{Value, json};

use otelagent_test_support::agents::{agent, desired, environment};
use otelagent_test_support::manifests::{shipped_of, words};

/// A pod's spec, and where it is from.
struct Pod {
    from: String,
    /// Of an agent's.
    mode: Option<Mode>,
    spec: Value,
}

impl Pod {
    fn containers(&self) -> Vec<&Value> {
        let lists = ["containers", "initContainers"].into_iter();
        lists
            .flat_map(|list| self.spec[list].as_array().into_iter().flatten())
            .collect()
    }
}

/// Every file of a folder of fixtures, carried out.
fn fixtures() -> Vec<(String, otelagent_core::build::ValidAgent)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pure");
    let mut fixtures = Vec::new();
    for folder in ["fixtures", "configurations"] {
        for entry in std::fs::read_dir(directory.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let yaml = std::fs::read_to_string(&path).unwrap();
            let valid = validate(&agent(&yaml), &environment()).expect("a valid fixture");
            fixtures.push((
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                valid,
            ));
        }
    }
    fixtures.sort_by(|(a, _), (b, _)| a.cmp(b));
    fixtures
}

/// Pods of the installation.
fn installed() -> Vec<Pod> {
    let deployments = shipped_of("Deployment");
    let pods = deployments.iter().map(|deployment| Pod {
        from: deployment["metadata"]["name"].to_string(),
        mode: None,
        spec: deployment["spec"]["template"]["spec"].clone(),
    });
    pods.collect()
}

/// Pods of agents on nodes, and sidecars and start gates with their volumes as if they were pods.
fn rendered() -> Vec<Pod> {
    let mut pods = Vec::new();
    for (name, valid) in fixtures() {
        let desired = desired(&valid);
        for object in &desired.objects {
            if matches!(object, Object::DaemonSet(_)) {
                let spec = object.to_json()["spec"]["template"]["spec"].clone();
                pods.push(Pod {
                    from: name.clone(),
                    mode: Some(valid.wanted()),
                    spec,
                });
            }
        }
        let recipe = &desired.recipe;
        if let Some(sidecar) = &recipe.sidecar {
            let spec = json!({"initContainers": [sidecar], "volumes": recipe.volumes});
            pods.push(Pod {
                from: format!("{name} (sidecar)"),
                mode: Some(Mode::Sidecar),
                spec,
            });
        }
        if let Some(gate) = &recipe.start_gate {
            let mut container = gate.container.clone();
            // Its resources are those of its pod.
            let amounts = json!({"cpu": "1m", "memory": "16Mi"});
            container["resources"] = json!({"limits": amounts, "requests": amounts});
            pods.push(Pod {
                from: format!("{name} (start gate)"),
                mode: Some(Mode::Sidecar),
                spec: json!({"initContainers": [container], "volumes": [gate.volume]}),
            });
        }
    }
    assert!(pods.len() > 8, "{} pods", pods.len());
    pods
}

fn all() -> Vec<Pod> {
    installed().into_iter().chain(rendered()).collect()
}

#[test]
fn every_container_is_restricted_and_bounded() {
    for pod in all() {
        let of_pod = &pod.spec["securityContext"];
        let either = |container: &Value, key: &str| {
            let own = container["securityContext"][key].clone();
            if own.is_null() {
                of_pod[key].clone()
            } else {
                own
            }
        };
        for container in pod.containers() {
            let own = &container["securityContext"];
            assert_eq!(own["allowPrivilegeEscalation"], false, "{}", pod.from);
            assert_eq!(own["readOnlyRootFilesystem"], true, "{}", pod.from);
            assert_eq!(
                own["capabilities"],
                json!({"drop": ["ALL"]}),
                "{}",
                pod.from
            );
            assert!(own["privileged"].is_null(), "{}", pod.from);
            assert_eq!(either(container, "runAsNonRoot"), true, "{}", pod.from);
            for id in ["runAsUser", "runAsGroup"] {
                let id = either(container, id);
                // Without one it is the image's or the platform's.
                let is_high = id.as_u64().is_some_and(|id| id >= 10_000);
                assert!(id.is_null() || is_high, "{}: {id}", pod.from);
            }
            let seccomp = either(container, "seccompProfile");
            assert_eq!(seccomp["type"], "RuntimeDefault", "{}", pod.from);
            let resources = &container["resources"];
            for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                assert!(
                    resources.pointer(amount).is_some(),
                    "{}: {amount}",
                    pod.from
                );
            }
        }
    }
}

/// The kubelet starts a container with `runAsNonRoot` and without a user only if the image's is such a number.
#[test]
fn images_run_as_a_number_that_is_not_root() {
    let dockerfile = otelagent_test_support::manifests::text("Dockerfile");
    let users = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("USER "));
    let users: Vec<&str> = users.collect();
    assert_eq!(users, ["65532:65532"; 2]);
}

#[test]
fn pods_reach_their_node_only_by_their_modes_network() {
    for pod in all() {
        for field in ["hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"] {
            assert!(pod.spec[field].is_null(), "{}: {field}", pod.from);
        }
        assert!(pod.spec["securityContext"]["sysctls"].is_null());
        assert!(pod.spec["securityContext"]["fsGroup"].is_null());
        assert!(
            pod.spec["priorityClassName"].is_null() || pod.from == "placed",
            "{}",
            pod.from
        );
        let is_on_the_host = pod.spec["hostNetwork"] == true;
        let may_be = pod.mode == Some(Mode::HostNetwork);
        assert_eq!(is_on_the_host, may_be, "{}", pod.from);
        for container in pod.containers() {
            let ports = container["ports"].as_array().into_iter().flatten();
            let takes = ports.filter(|port| !port["hostPort"].is_null()).count();
            let may_take = pod.mode == Some(Mode::HostPort);
            assert!(takes == 0 || may_take, "{}", pod.from);
        }
    }
}

#[test]
fn writable_volumes_are_bounded_and_others_mounted_read_only() {
    let kinds = ["configMap", "downwardAPI", "emptyDir", "secret"];
    for pod in all() {
        let volumes = pod.spec["volumes"].as_array().cloned().unwrap_or_default();
        for volume in &volumes {
            let kind = kinds.iter().find(|kind| !volume[**kind].is_null());
            assert!(kind.is_some(), "{}: {volume}", pod.from);
            // What is in memory counts towards the container's limit of it.
            let disk = &volume["emptyDir"];
            let is_bounded = disk["sizeLimit"].is_string() || disk["medium"] == "Memory";
            assert!(disk.is_null() || is_bounded, "{}: {volume}", pod.from);
        }
        for container in pod.containers() {
            let mounts = container["volumeMounts"].as_array().into_iter().flatten();
            for mount in mounts.filter(|mount| mount["readOnly"] != true) {
                let name = mount["name"].as_str().unwrap();
                let may_be = ["otelagent-queue", "otelagent-run"].contains(&name);
                assert!(may_be, "{}: {mount}", pod.from);
            }
            let env = container["env"].as_array().into_iter().flatten();
            let is_secret = |variable: &Value| !variable["valueFrom"]["secretKeyRef"].is_null();
            assert!(!env.into_iter().any(is_secret), "{}", pod.from);
            assert!(container["envFrom"].is_null(), "{}", pod.from);
        }
    }
}

#[test]
fn probes_name_no_host_and_use_the_health_endpoint() {
    for pod in all() {
        for container in pod.containers() {
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                let asked = &container[probe];
                if asked.is_null() {
                    continue;
                }
                assert!(asked["httpGet"]["host"].is_null(), "{}", pod.from);
                // By the agent's own program where two may have the node's port at a time.
                // Or to say why it is not ready.
                let own = [
                    json!(["/otelagent-agent", "ready"]),
                    json!(["/otelagent-agent", "ready", "127.0.0.1:13133"]),
                ];
                let is_own = own.contains(&asked["exec"]["command"]);
                let port = &asked["httpGet"]["port"];
                let is_health = *port == "health" || *port == 13133;
                assert!(is_own || is_health, "{}: {asked}", pod.from);
            }
            assert!(container["lifecycle"].is_null(), "{}", pod.from);
        }
    }
}

#[test]
fn agents_have_no_account_of_their_own_and_no_token() {
    for pod in rendered() {
        assert!(pod.spec["serviceAccountName"].is_null(), "{}", pod.from);
        let volumes = pod.spec["volumes"].to_string();
        assert!(!volumes.contains("serviceAccountToken"), "{}", pod.from);
        if pod.mode != Some(Mode::Sidecar) {
            assert_eq!(
                pod.spec["automountServiceAccountToken"], false,
                "{}",
                pod.from
            );
        }
    }
}

#[test]
fn agents_have_the_users_tolerations_and_enough_grace() {
    for pod in rendered() {
        let tolerated = pod.spec["tolerations"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        assert!(
            tolerated.is_empty() || pod.from == "placed",
            "{}: {tolerated:?}",
            pod.from
        );
        if pod.mode != Some(Mode::Sidecar) {
            assert!(
                pod.spec["terminationGracePeriodSeconds"].as_u64() >= Some(30),
                "{}",
                pod.from
            );
        }
    }
}

#[test]
fn operator_and_webhook_replicas_are_spread_and_disrupted_singly() {
    let budgets = shipped_of("PodDisruptionBudget");
    for deployment in shipped_of("Deployment") {
        let name = &deployment["metadata"]["name"];
        assert_eq!(deployment["spec"]["replicas"], 2, "{name}");
        let pod = &deployment["spec"]["template"]["spec"];
        let spread = &pod["topologySpreadConstraints"][0];
        assert_eq!(spread["topologyKey"], "kubernetes.io/hostname", "{name}");
        assert_eq!(pod["terminationGracePeriodSeconds"], 30, "{name}");
        let budget = budgets
            .iter()
            .find(|budget| budget["metadata"]["name"] == *name);
        let budget = &budget.expect("a budget")["spec"];
        assert_eq!(budget["maxUnavailable"], 1, "{name}");
        assert_eq!(
            budget["unhealthyPodEvictionPolicy"], "AlwaysAllow",
            "{name}"
        );
        assert_eq!(budget["selector"], deployment["spec"]["selector"], "{name}");
    }
}

fn recipe(fixture: &str) -> Recipe {
    let (_, valid) = fixtures()
        .into_iter()
        .find(|(name, _)| name == fixture)
        .unwrap();
    desired(&valid).recipe
}

fn configurations(name: &str, namespaces: Namespaces, on_failure: OnFailure) -> Rendered {
    let labels = [("team".to_owned(), "a".to_owned())];
    let input = PolicyInput {
        namespace: "otelagent-system".into(),
        name: name.into(),
        uid: "u".into(),
        recipe: recipe(name),
        selection: Selection {
            namespaces,
            pods: Selector {
                match_labels: labels.into(),
                ..Selector::default()
            },
        },
        exclusions: Vec::new(),
        excluded_namespaces: vec!["kube-system".into(), "otelagent-system".into()],
        canary_namespace: "otelagent-canary".into(),
        on_failure,
        owner_reference: None,
    };
    let endpoint = Endpoint::Service {
        namespace: "otelagent-system".into(),
        name: "otelagent-webhook".into(),
    };
    let webhook = WebhookEngine {
        endpoint,
        ca_bundle: "-----BEGIN CERTIFICATE-----".into(),
        owner: None,
    };
    webhook.render(&input).unwrap()
}

fn both() -> [(&'static str, Rendered); 2] {
    let everywhere = Namespaces::Labelled(Selector::default());
    [
        (
            "node-local",
            configurations("node-local", everywhere, OnFailure::Fail),
        ),
        (
            "sidecar",
            configurations(
                "sidecar",
                Namespaces::Named("shop".into()),
                OnFailure::Ignore,
            ),
        ),
    ]
}

#[test]
fn webhook_configurations_of_each_shape_are_the_golden_ones() {
    for (name, configurations) in both() {
        let texts = [&configurations.canary, &configurations.binding]
            .map(|entry| serde_saphyr::to_string(entry).unwrap());
        insta::with_settings!({snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(format!("webhook-{name}"), texts.join("---\n"));
        });
    }
}

#[test]
fn webhook_is_called_only_for_creation_of_selected_pods() {
    for (name, configurations) in both() {
        let webhooks = [&configurations.canary, &configurations.binding]
            .map(|entry| entry["webhooks"].as_array().unwrap().clone());
        for webhook in webhooks.concat() {
            let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                "resources": ["pods"], "scope": "Namespaced"}]);
            assert_eq!(webhook["rules"], rules, "{name}");
            assert_eq!(webhook["matchPolicy"], "Equivalent", "{name}");
            assert_eq!(webhook["sideEffects"], "None", "{name}");
            assert_eq!(webhook["reinvocationPolicy"], "IfNeeded", "{name}");
            assert!(webhook["timeoutSeconds"].as_u64() <= Some(3), "{name}");
            assert_eq!(words(&webhook["admissionReviewVersions"]), ["v1"], "{name}");
            let requirements = webhook["namespaceSelector"]["matchExpressions"]
                .as_array()
                .unwrap();
            let excludes = |namespace: &str| {
                requirements.iter().any(|requirement| {
                    requirement["key"] == "kubernetes.io/metadata.name"
                        && requirement["operator"] == "NotIn"
                        && words(&requirement["values"]).contains(&namespace)
                })
            };
            assert!(
                excludes("kube-system") && excludes("otelagent-system"),
                "{webhook}"
            );
        }
        let users = &configurations.binding["webhooks"][0];
        let conditions = users["matchConditions"].to_string();
        assert!(
            conditions.contains("kubernetes.io/config.mirror"),
            "{conditions}"
        );
    }
}
