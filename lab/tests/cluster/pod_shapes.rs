//! Pods of many shapes on real nodes: what they send arrives, or they run uninjected and the status says so.
//!
//! All start at once, beside agents of three modes. `docs/pods.md` has a line for each.

use std::collections::BTreeMap;

use demo::images;
use otelagent_core::names;
use serde_json::{Value, json};

use super::programs::{self, GO_HTTP, Program, RUST_GRPC, confined, pod};
use super::{World, condition, world};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// What most programs send before they end.
const COUNT: u64 = 20;
const FINITE: [&str; 2] = ["--count=20", "--rate=40"];
/// One `OtelAgent` for each of these. The namespaces of its pods, restricted and open, have its name.
const AGENTS: [(&str, &str); 3] = [
    ("sidecar", "Sidecar"),
    ("local", "NodeLocal"),
    ("port", "HostPort"),
];

#[test]
fn pods_of_every_shape_use_their_agent_or_run_without() {
    let Some(world) = world("pods of every kind on two real nodes") else {
        return;
    };
    for (name, mode) in AGENTS {
        make_agent(&world, name, mode);
    }
    for (name, mode) in AGENTS {
        world.until_serving(name, mode);
    }
    let facts = ClusterFacts::of(&world);
    let mut shapes = Shapes::default();
    for (agent, _) in AGENTS {
        shapes
            .objects
            .push(programs::namespace(&restricted(agent), true));
        shapes
            .objects
            .push(programs::namespace(&open(agent), false));
    }
    for agent in ["sidecar", "local"] {
        shapes.ordinary(agent);
        shapes.crashing(agent);
        shapes.owned(agent);
        shapes.with_own_ports(agent);
        shapes.with_own_dns(agent, &facts);
    }
    shapes.on_host_networks(&facts);
    shapes.cron_job();
    programs::apply(&world, &shapes.objects);
    for agent in ["sidecar", "local"] {
        shapes.run_by_kubectl(&world, agent);
    }

    programs::until_all_arrived(&world, &shapes.runs, &["traces"]);
    those_without_an_agent_run_and_are_told(&world);
    injected_once_and_with_their_endpoint(&world);
    what_belongs_to_somebody_says_to_whom(&world);
    those_that_crashed_ended_as_they_should(&world);
    copies_of_injected_pods_are_injected_once_and_send(&world);
    for (agent, _) in AGENTS {
        world.end_namespace(&restricted(agent));
        world.end_namespace(&open(agent));
    }
}

fn restricted(agent: &str) -> String {
    format!("shapes-{agent}")
}

/// Where pods may be on the host network.
fn open(agent: &str) -> String {
    format!("shapes-{agent}-open")
}

fn make_agent(world: &World, name: &str, mode: &str) {
    let both = json!([restricted(name), open(name)]);
    let selector = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": both},
    ]});
    let agent = json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": name, "namespace": "otelagent-system"},
        "spec": {
            "mode": mode,
            "export": {"endpoint": "http://otel-collector.observability.svc:4317"},
            "resourceAttributes": {"deployment.environment.name": name},
            "switchover": {"holdOld": "5s"},
            "workloads": {"namespaceSelector": selector},
        },
    });
    world.kubectl.apply(&agent.to_string()).unwrap();
}

/// Facts about the cluster that pods need.
struct ClusterFacts {
    /// A node.
    node: String,
    /// The address of the cluster's DNS.
    dns: Value,
}

impl ClusterFacts {
    fn of(world: &World) -> Self {
        let node = world.cluster.node_names().unwrap().remove(0);
        let path = format!("/api/v1/nodes/{node}/proxy/configz");
        let kubelet: Value = world.kubectl.raw(&path).unwrap();
        let dns = kubelet["kubeletconfig"]["clusterDNS"].clone();
        assert!(dns.is_array(), "{kubelet}");
        Self { node, dns }
    }
}

/// The objects to create, and how much must arrive of each run.
#[derive(Default)]
struct Shapes {
    objects: Vec<Value>,
    runs: BTreeMap<String, u64>,
}

impl Shapes {
    /// A pod that sends a number of spans and ends.
    fn sender(&mut self, namespace: &str, name: &str, spec: &Value) {
        self.objects.push(pod(namespace, name, spec));
        self.runs.insert(name.to_owned(), COUNT);
    }

    /// A pod that runs until it is deleted, and has no agent.
    fn loner(&mut self, namespace: &str, name: &str, more: &[(&str, Value)]) {
        let spec = with(programs::spec(&[RUST_GRPC.container(&["--rate=1"])]), more);
        self.objects.push(pod(namespace, name, &spec));
    }

    fn ordinary(&mut self, agent: &str) {
        let app = GO_HTTP.container(&FINITE);
        self.sender(
            &restricted(agent),
            &format!("{agent}-bare"),
            &programs::spec(&[app]),
        );

        let name = format!("{agent}-inits");
        let mut spec = programs::spec(&[RUST_GRPC.container(&FINITE)]);
        let inits = [("first", GO_HTTP), ("second", RUST_GRPC)].map(|(init, program)| {
            self.runs.insert(format!("{name}.{init}"), COUNT);
            program.container_of_run(init, &format!("$(POD_NAME).{init}"), &FINITE)
        });
        spec["initContainers"] = json!(inits);
        self.sender(&restricted(agent), &name, &spec);
    }

    fn crashing(&mut self, agent: &str) {
        for ending in ENDINGS {
            let args = [
                "--count=20",
                "--rate=40",
                &format!("--ending={}", ending.name),
            ];
            let mut app = RUST_GRPC.container(&args);
            app["resources"]["limits"]["memory"] = "48Mi".into();
            let name = format!("{agent}-{}", ending.name);
            self.sender(&restricted(agent), &name, &programs::spec(&[app]));
        }
    }

    /// A container of the pod listens where the agent would.
    fn with_own_ports(&mut self, agent: &str) {
        let mut neighbour = confined("collector", images::LEDGER);
        neighbour["ports"] = json!([{"containerPort": 4317}, {"containerPort": 4318}]);
        let spec = programs::spec(&[RUST_GRPC.container(&FINITE), neighbour]);
        self.sender(&restricted(agent), &format!("{agent}-ports"), &spec);
    }

    fn with_own_dns(&mut self, agent: &str, facts: &ClusterFacts) {
        let none = |searches: Value| {
            [
                ("dnsPolicy", json!("None")),
                (
                    "dnsConfig",
                    json!({"nameservers": facts.dns, "searches": searches}),
                ),
            ]
        };
        let searching = none(json!(["svc.cluster.local", "cluster.local"]));
        for (program, name) in [(RUST_GRPC, "searches-rust"), (GO_HTTP, "searches-go")] {
            let spec = with(programs::spec(&[program.container(&FINITE)]), &searching);
            self.sender(&restricted(agent), &format!("{agent}-{name}"), &spec);
        }
        let namespace = restricted(agent);
        self.loner(
            &namespace,
            &format!("{agent}-no-searches"),
            &none(json!([])),
        );
        let of_the_node = [("dnsPolicy", json!("Default"))];
        self.loner(&namespace, &format!("{agent}-node-dns"), &of_the_node);
    }

    /// Two of a kind on one node, where ports would clash.
    fn on_host_networks(&mut self, facts: &ClusterFacts) {
        let on_host = |dns: &str| {
            [
                ("hostNetwork", json!(true)),
                ("dnsPolicy", json!(dns)),
                (
                    "nodeSelector",
                    json!({"kubernetes.io/hostname": facts.node}),
                ),
            ]
        };
        let sending = |program: Program, dns: &str| {
            with(programs::spec(&[program.container(&FINITE)]), &on_host(dns))
        };
        for (number, program) in [(1, RUST_GRPC), (2, GO_HTTP)] {
            let local = sending(program, "ClusterFirstWithHostNet");
            self.sender(&open("local"), &format!("local-host-{number}"), &local);
            let port = sending(program, "Default");
            self.sender(&open("port"), &format!("port-host-{number}"), &port);
            let name = format!("sidecar-host-{number}");
            self.loner(&open("sidecar"), &name, &on_host("ClusterFirst"));
        }
        let name = "local-host-first";
        self.loner(&open("local"), name, &on_host("ClusterFirst"));
        let spec = with(
            programs::spec(&[GO_HTTP.container(&FINITE)]),
            &[("dnsPolicy", json!("Default"))],
        );
        self.sender(&open("port"), "port-node-dns", &spec);
    }

    /// Pods of controllers; their names are not known beforehand.
    fn owned(&mut self, agent: &str) {
        let namespace = restricted(agent);
        for (kind, name) in [("StatefulSet", "set"), ("DaemonSet", "daemon")] {
            let name = format!("{agent}-{name}");
            let mut spec = programs::spec(&[GO_HTTP.container(&["--rate=5"])]);
            spec["restartPolicy"] = "Always".into();
            let labels = json!({"app": name});
            self.objects.push(json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": spec},
                },
            }));
        }
        let name = format!("{agent}-job");
        self.objects.push(json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace},
            "spec": job(&name),
        }));
    }

    /// It runs every minute; one run is enough.
    fn cron_job(&mut self) {
        let name = "sidecar-cron";
        self.objects.push(json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": name, "namespace": restricted("sidecar")},
            "spec": {
                "schedule": "* * * * *", "concurrencyPolicy": "Forbid", "jobTemplate": {"spec": job(name)},
            },
        }));
    }

    fn run_by_kubectl(&mut self, world: &World, agent: &str) {
        let name = format!("{agent}-run");
        let namespace = format!("--namespace={}", open(agent));
        let image = format!("--image={}", images::GO_SDK);
        let pull = "--image-pull-policy=IfNotPresent";
        let run = format!("--run={name}");
        let command = ["run", &name, &namespace, &image, "--restart=Never", pull];
        let args = ["--", &run, "--protocol=grpc", "--count=20"];
        world.kubectl.run(&[&command[..], &args].concat()).unwrap();
        self.runs.insert(name, COUNT);
    }
}

fn with(mut spec: Value, more: &[(&str, Value)]) -> Value {
    for (field, value) in more {
        spec[field] = value.clone();
    }
    spec
}

/// The spec of a Job whose pod sends and ends.
fn job(name: &str) -> Value {
    json!({
        "backoffLimit": 0,
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": programs::spec(&[RUST_GRPC.container(&FINITE)]),
        },
    })
}

fn get(world: &World, kind: &str, namespace: &str, name: &str) -> Value {
    let query = [kind, name, "--namespace", namespace];
    world
        .kubectl
        .get(&query)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The status of a pod's application.
fn app_of(pod: &Value) -> &Value {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let mut apps = statuses.into_iter().flatten();
    apps.find(|status| status["name"] == "app")
        .unwrap_or(&Value::Null)
}

fn those_without_an_agent_run_and_are_told(world: &World) {
    let loners = [
        (
            "sidecar",
            vec![
                ("shapes-sidecar", "sidecar-no-searches"),
                ("shapes-sidecar", "sidecar-node-dns"),
                ("shapes-sidecar-open", "sidecar-host-1"),
                ("shapes-sidecar-open", "sidecar-host-2"),
            ],
        ),
        (
            "local",
            vec![
                ("shapes-local", "local-no-searches"),
                ("shapes-local", "local-node-dns"),
                ("shapes-local-open", "local-host-first"),
            ],
        ),
    ];
    for (agent, loners) in loners {
        for (namespace, name) in &loners {
            let query = ["pod", *name, "--namespace", *namespace];
            let pod = world.until("it runs without an agent", &query, |pod| {
                !app_of(pod)["state"]["running"].is_null()
            });
            assert!(pod["metadata"]["labels"][names::LABEL_AGENT].is_null());
            assert!(pod["spec"]["initContainers"].is_null(), "{name}");
        }
        let reported = world.until_status(agent, "its missed pods", |status| {
            status["pods"]["missed"] == loners.len()
        });
        let message = condition(&reported["status"], "Injected")["message"].to_string();
        // The first three are named.
        let (namespace, name) = loners[0];
        let named = format!("Pod {namespace}/{name}");
        assert!(message.contains(&named), "{message}");
    }
}

fn injected_once_and_with_their_endpoint(world: &World) {
    let moved = get(world, "pod", "shapes-sidecar", "sidecar-ports");
    assert_eq!(endpoints(&moved), ["http://127.0.0.1:14317"]);
    let usual = get(world, "pod", "shapes-sidecar", "sidecar-bare");
    assert_eq!(endpoints(&usual), ["http://127.0.0.1:4317"]);
    for name in ["local-ports", "local-bare"] {
        let pod = get(world, "pod", "shapes-local", name);
        assert_eq!(endpoints(&pod), ["http://local.otelagent-system.svc:4317"]);
    }
}

/// Every endpoint that a pod's application is given.
fn endpoints(pod: &Value) -> Vec<String> {
    let app = &pod["spec"]["containers"][0];
    let env = app["env"].as_array().unwrap().iter();
    env.filter(|variable| variable["name"] == ENDPOINT)
        .map(|variable| variable["value"].as_str().unwrap_or_default().to_owned())
        .collect()
}

fn what_belongs_to_somebody_says_to_whom(world: &World) {
    for agent in ["sidecar", "local"] {
        for (kind, name) in [("statefulset", "set"), ("daemonset", "daemon")] {
            let name = format!("{agent}-{name}");
            for run in runs_of(world, agent, &name) {
                says(world, agent, &run, &format!("k8s.{kind}.name"), &name);
            }
        }
        let name = format!("{agent}-job");
        let query = ["job", &name, "--namespace", &restricted(agent)];
        // A sidecar that is no native one would keep it from completing.
        world.until("the job complete", &query, |job| {
            job["status"]["succeeded"] == 1
        });
        finished(world, agent, &name, "k8s.job.name", &name);
    }
    let query = ["cronjob", "sidecar-cron", "--namespace=shapes-sidecar"];
    world.until("the cron job once successful", &query, |cron| {
        cron["status"]["lastSuccessfulTime"].is_string()
    });
    let name = "sidecar-cron";
    finished(world, "sidecar", name, "k8s.cronjob.name", name);
}

/// All spans of what a Job ran arrived, and say whose they are.
fn finished(world: &World, agent: &str, name: &str, key: &str, value: &str) {
    let run = runs_of(world, agent, name).remove(0);
    let runs = BTreeMap::from([(run.clone(), COUNT)]);
    programs::until_all_arrived(world, &runs, &["traces"]);
    says(world, agent, &run, key, value);
}

/// Pods with a label `app`, and so their runs.
fn runs_of(world: &World, agent: &str, app: &str) -> Vec<String> {
    let selector = format!("--selector=app={app}");
    let namespace = restricted(agent);
    let query = ["pods", "--namespace", &namespace, &selector];
    let pods = world.until("pods of it", &query, |pods| {
        pods["items"]
            .as_array()
            .is_some_and(|pods| !pods.is_empty())
    });
    super::names(&pods)
}

/// Waits for spans of a run, which passed its agent and have this attribute.
fn says(world: &World, agent: &str, run: &str, key: &str, value: &str) {
    let client = demo::ledger::Client::new(&world.kubectl);
    demo::wait::until(&format!("spans of {run}"), super::PATIENCE, || {
        let resources = client.run(run)?.resources;
        let through = |resource: &demo::ledger::Resource| {
            resource.attribute("deployment.environment.name") == Some(agent)
                && resource.attribute(key) == Some(value)
        };
        let right = resources.iter().all(through) && !resources.is_empty();
        Ok(demo::wait::Seen::check(right, format!("{resources:?}")))
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

/// A crash.
struct Ending {
    name: &'static str,
    /// Exit codes. Which signal an abort ends with depends on the process: the first of a container has no
    /// default actions. Nothing but the system's killer for want of memory sends number 9 here.
    codes: &'static [i64],
}

const ENDINGS: [Ending; 3] = [
    Ending {
        name: "abort",
        codes: &[128 + 4, 128 + 6, 128 + 11],
    },
    Ending {
        name: "fail",
        codes: &[1],
    },
    Ending {
        name: "hoard",
        codes: &[128 + 9],
    },
];

/// The account of all programs shows that every acknowledged item arrived. This shows that these really crashed.
fn those_that_crashed_ended_as_they_should(world: &World) {
    for agent in ["sidecar", "local"] {
        for ending in ENDINGS {
            let name = format!("{agent}-{}", ending.name);
            let query = ["pod", &name, "--namespace", &restricted(agent)];
            let pod = world.until("its end", &query, |pod| pod["status"]["phase"] == "Failed");
            let ended = &app_of(&pod)["state"]["terminated"];
            let code = ended["exitCode"].as_i64();
            let foreseen = code.is_some_and(|code| ending.codes.contains(&code));
            assert!(foreseen, "{name}: {ended}");
        }
    }
}

/// `kubectl debug --copy-to` drops labels and annotations; a hand that copies a manifest keeps them.
fn copies_of_injected_pods_are_injected_once_and_send(world: &World) {
    let mut runs = BTreeMap::new();
    for agent in ["sidecar", "local"] {
        let (namespace, original) = (restricted(agent), format!("{agent}-bare"));
        let debugged = format!("{agent}-debugged");
        let image = format!("--image={}", images::GO_SDK);
        let debug = [
            "debug",
            &format!("pod/{original}"),
            "--namespace",
            &namespace,
            &format!("--copy-to={debugged}"),
            "--container=debugger",
            "--profile=restricted",
            &image,
            "--",
            "/go-sdk",
            "--help",
        ];
        world.kubectl.run(&debug).unwrap();

        let copied = format!("{agent}-copied");
        let mut copy = get(world, "pod", &namespace, &original);
        let metadata = json!({
            "name": copied, "namespace": namespace,
            "labels": copy["metadata"]["labels"], "annotations": copy["metadata"]["annotations"],
        });
        copy["metadata"] = metadata;
        copy.as_object_mut().unwrap().remove("status");
        copy["spec"].as_object_mut().unwrap().remove("nodeName");
        programs::apply(world, &[copy]);
        runs.insert(debugged, COUNT);
        runs.insert(copied, COUNT);
    }
    programs::until_all_arrived(world, &runs, &["traces"]);
    for run in runs.keys() {
        let agent = run.split('-').next().unwrap_or_default();
        let pod = get(world, "pod", &restricted(agent), run);
        let inits = pod["spec"]["initContainers"].as_array();
        let sidecars = inits.into_iter().flatten();
        let sidecars = sidecars.filter(|container| container["name"] == names::CONTAINER);
        assert_eq!(sidecars.count(), usize::from(agent == "sidecar"), "{run}");
        assert_eq!(endpoints(&pod).len(), 1, "{run}");
        assert!(pod["metadata"]["labels"][names::LABEL_CONFIG].is_string());
        says(world, agent, run, "k8s.pod.name", run);
    }
}
