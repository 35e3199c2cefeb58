//! The three ways to move to otelagent, under the load of a program that numbers what it sends. Everything must arrive:
//! before, during and after the move.

use std::time::Duration;

use demo::account::{Account, settle};
use demo::apps::{self, App};
use demo::follow::Follower;
use demo::wait::{Seen, until};
use demo::{Kubectl, images, ledger};
use otelagent_core::inject::cel;
use serde_json::{Value, json};

use super::super::{PATIENCE, World, programs, world};
use super::page::{Page, Reader, Tool};
use super::{end_shop, is_full};

/// How long telemetry may take from the program to the ledger.
const ARRIVAL: Duration = Duration::from_mins(1);
/// The namespace of the old agents, as docs/moving/daemonset.md has it.
const OLD_AGENTS: &str = "node-agents";
/// What the agents of the pages add to everything: `hostMetadata: true`.
const HOST: &str = "host.name";

#[test]
fn move_from_a_daemonset_of_ones_own_loses_nothing() {
    let Some((world, page)) = start("a move from a DaemonSet", "moving/daemonset.md") else {
        return;
    };
    world
        .kubectl
        .apply(&old_daemonset().to_string())
        .expect("the DaemonSet");
    let rollout = ["rollout", "status", "daemonset/otel-agent", "--timeout=2m"];
    let rollout = [&rollout[..], &["--namespace", OLD_AGENTS]].concat();
    world.kubectl.run(&rollout).expect("the DaemonSet runs");
    let mut traffic = Traffic::start(&world, HOST, &environment(&page), &json!({}));
    traffic.arrives(false);
    let reader = Reader::new(&world, Tool::Kubectl);
    reader.section(&page, "1. ");
    traffic.arrives(false);
    reader.section(&page, "2. ");
    traffic.arrives(true);
    reader.section(&page, "3. ");
    traffic.arrives(true);
    drop(traffic);
    let delete = ["delete", "namespace", OLD_AGENTS, "--timeout=180s"];
    world.kubectl.run(&delete).unwrap();
    end(&world);
}

#[test]
fn move_from_the_opentelemetry_operators_sidecars_loses_nothing() {
    let Some((world, page)) = start("a move from sidecars", "moving/opentelemetry-operator.md")
    else {
        return;
    };
    let [policy, binding] = collector_by_annotation();
    for object in [&policy, &binding] {
        world
            .kubectl
            .apply(&object.to_string())
            .expect("the policy");
    }
    until_policy_acts(&world);
    let marker = "deployment.environment.name";
    let asked = json!({"sidecar.opentelemetry.io/inject": "true"});
    let mut traffic = Traffic::start(&world, marker, &environment(&page), &asked);
    traffic.arrives(false);
    assert_eq!(sidecars(&world), ["otc-container"], "what was there before");
    let reader = Reader::new(&world, Tool::Kubectl);
    reader.section(&page, "1. ");
    traffic.arrives(false);
    apps::roll(&world.kubectl, apps::NAMESPACE).unwrap();
    assert_eq!(sidecars(&world), ["otc-container"], "side by side");
    traffic.arrives(false);
    reader.section(&page, "2. ");
    apps::wait_rolled(&world.kubectl, apps::NAMESPACE).unwrap();
    assert_eq!(sidecars(&world), ["otelagent"], "moved");
    traffic.arrives(true);
    reader.section(&page, "3. ");
    drop(traffic);
    for object in [&binding, &policy] {
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        world.kubectl.run(&["delete", kind, name]).unwrap();
    }
    end(&world);
}

#[test]
fn move_from_a_collectors_chart_loses_nothing() {
    let Some((world, page)) = start("a move from a collector", "moving/collector-chart.md") else {
        return;
    };
    let mut traffic = Traffic::start(&world, HOST, &environment(&page), &json!({}));
    traffic.arrives(false);
    let reader = Reader::new(&world, Tool::Kubectl);
    reader.section(&page, "1. ");
    traffic.arrives(false);
    reader.section(&page, "2. ");
    traffic.arrives(true);
    drop(traffic);
    end(&world);
}

fn start(what: &str, page: &'static str) -> Option<(World, Page)> {
    if !is_full() {
        return None;
    }
    let world = world(what)?;
    end_shop(&world);
    Some((world, Page::read(page)))
}

fn end(world: &World) {
    end_shop(world);
    world.end_all_agents();
}

/// The variables that the page's reader has in each Deployment.
fn environment(page: &Page) -> Vec<Value> {
    serde_saphyr::from_str(page.block("env")).expect("a list of variables")
}

/// The names of all native sidecars of the application's pods.
fn sidecars(world: &World) -> Vec<String> {
    let pods: Value = world
        .kubectl
        .get(&["pods", "--namespace", apps::NAMESPACE])
        .unwrap();
    let pods = pods["items"].as_array().unwrap().iter();
    let live = pods.filter(|pod| pod["metadata"].get("deletionTimestamp").is_none());
    let mut names: Vec<String> = live
        .flat_map(|pod| {
            pod["spec"]["initContainers"]
                .as_array()
                .into_iter()
                .flatten()
        })
        .map(|container| container["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}

/// One application, `cart`, and what became of all that it sent.
struct Traffic<'a> {
    kubectl: &'a Kubectl,
    follower: Follower,
    before: Account,
    /// A resource attribute that only otelagent's agents add.
    marker: &'static str,
}

impl<'a> Traffic<'a> {
    /// Runs it with further variables, and with annotations of its pods.
    fn start(world: &'a World, marker: &'static str, env: &[Value], annotations: &Value) -> Self {
        let mut app = App::go_sdk();
        "cart".clone_into(&mut app.name);
        app.args = [
            "--protocol=grpc",
            "--rate=50",
            "--signals=traces,metrics,logs",
        ]
        .map(str::to_owned)
        .to_vec();
        let mut deployment: Value = serde_saphyr::from_str(&app.manifest()).expect("a Deployment");
        let template = &mut deployment["spec"]["template"];
        template["metadata"]["annotations"] = annotations.clone();
        let own = template["spec"]["containers"][0]["env"].as_array_mut();
        own.expect("variables").extend(env.iter().cloned());
        let namespace = programs::namespace(apps::NAMESPACE, true);
        world.kubectl.apply(&namespace.to_string()).unwrap();
        world.kubectl.apply(&deployment.to_string()).unwrap();
        apps::wait_rolled(&world.kubectl, apps::NAMESPACE).unwrap();
        Self {
            kubectl: &world.kubectl,
            follower: Follower::new(&world.kubectl, apps::NAMESPACE),
            before: Account::default(),
            marker,
        }
    }

    /// More has been sent than before, all of it has arrived, and that of running pods came through otelagent's agents or
    /// did not.
    fn arrives(&mut self, through_agents: bool) {
        let sent = self.before.sent;
        until("more telemetry", PATIENCE, || {
            let all = self.follower.said();
            let made: u64 = all.values().map(|said| 2 * said.report.made).sum();
            Ok(Seen::check(made > sent, format!("{all:?}")))
        })
        .unwrap();
        let nothing = Account::default();
        let now = settle(
            self.kubectl,
            apps::NAMESPACE,
            &self.follower,
            nothing,
            ARRIVAL,
        )
        .unwrap();
        assert!(now.sent > sent, "{now:?}");
        let complaints = self.follower.said();
        assert_eq!(
            (now.lost, now.unfinished, now.counters_short),
            (0, 0, 0),
            "{now:?}, {complaints:?}"
        );
        self.before = now;
        self.came(through_agents);
    }

    fn came(&self, through_agents: bool) {
        let client = ledger::Client::new(self.kubectl);
        until("where it came through", PATIENCE, || {
            let mut seen = Vec::new();
            for pod in apps::pods(self.kubectl, apps::NAMESPACE)? {
                if pod.deleting {
                    continue;
                }
                let resources = client.run(&pod.name)?.resources;
                let marked = |marked: bool| {
                    resources
                        .iter()
                        .filter(|resource| resource.attribute(self.marker).is_some() == marked)
                        .count()
                };
                seen.push((pod.name, marked(true), marked(false)));
            }
            let as_wanted = |(_, marked, plain): &(String, usize, usize)| {
                let (those, others) = if through_agents {
                    (marked, plain)
                } else {
                    (plain, marked)
                };
                *those > 0 && *others == 0
            };
            let all = !seen.is_empty() && seen.iter().all(as_wanted);
            Ok(Seen::check(all, format!("{seen:?}")))
        })
        .unwrap_or_else(|error| panic!("through agents: {through_agents}: {error}"));
    }
}

/// The configuration of a collector that forwards to where the agents of the pages send, too.
fn forwarding(host: &str) -> String {
    json!({
        "receivers": {"otlp": {"protocols": {
            "grpc": {"endpoint": format!("{host}:4317")}, "http": {"endpoint": format!("{host}:4318")},
        }}},
        "processors": {"batch": {"timeout": "100ms"}},
        "exporters": {"otlp": {
            "endpoint": "otel-collector.observability.svc:4317", "tls": {"insecure": true},
        }},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                "traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp"]},
                "metrics": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp"]},
                "logs": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlp"]},
            },
        },
    })
    .to_string()
}

/// A container with a collector, configured as the OpenTelemetry Operator does it.
fn collector(name: &str, host: &str) -> Value {
    let mut container = programs::confined(name, images::COLLECTOR);
    container["args"] = json!(["--config=env:OTEL_CONFIG"]);
    container["env"] = json!([{"name": "OTEL_CONFIG", "value": forwarding(host)}]);
    container["ports"] = json!([
        {"name": "otlp-grpc", "containerPort": 4317},
        {"name": "otlp-http", "containerPort": 4318},
    ]);
    container
}

/// A collector on each node behind host ports, in a namespace that admits them.
fn old_daemonset() -> Value {
    let labels = json!({"app": "otel-agent"});
    let mut container = collector("collector", "0.0.0.0");
    container["readinessProbe"] = json!({"tcpSocket": {"port": 4317}, "periodSeconds": 1});
    for port in container["ports"].as_array_mut().unwrap() {
        port["hostPort"] = port["containerPort"].clone();
    }
    json!({"apiVersion": "v1", "kind": "List", "items": [
        programs::namespace(OLD_AGENTS, false),
        {
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "otel-agent", "namespace": OLD_AGENTS},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "securityContext": {"runAsNonRoot": true},
                        "containers": [container],
                    },
                },
            },
        },
    ]})
}

const ASKED: &str =
    "object.metadata.?annotations[?'sidecar.opentelemetry.io/inject'].orValue('') == 'true'";

/// What the OpenTelemetry Operator's webhook does to pods with its annotation, done by a policy.
fn collector_by_annotation() -> [Value; 2] {
    let mut sidecar = collector("otc-container", "localhost");
    sidecar["restartPolicy"] = "Always".into();
    let sidecar = cel::literal(&sidecar);
    let label = "/metadata/labels/sidecar.opentelemetry.io~1injected";
    let patches = format!(
        "[JSONPatch{{op: 'add', path: '/spec/initContainers', value: [{sidecar}]}}, \
         JSONPatch{{op: 'add', path: '{label}', value: 'shop.sidecar'}}]"
    );
    let name = "collector-by-annotation";
    let kind = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        })
    };
    [
        kind(
            "MutatingAdmissionPolicy",
            json!({
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                }]},
                "matchConditions": [{"name": "asked", "expression": ASKED}],
                "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patches}}],
            }),
        ),
        kind(
            "MutatingAdmissionPolicyBinding",
            json!({"policyName": name}),
        ),
    ]
}

/// A policy acts some time after it was created.
fn until_policy_acts(world: &World) {
    let namespace = programs::namespace(apps::NAMESPACE, true);
    world.kubectl.apply(&namespace.to_string()).unwrap();
    until("the policy that adds collectors", PATIENCE, || {
        let overrides = json!({
            "metadata": {"annotations": {"sidecar.opentelemetry.io/inject": "true"}},
            "spec": programs::spec(&[programs::confined("asking", "none")]),
        });
        let text = world.kubectl.run(&[
            "run",
            "asking",
            &format!("--overrides={overrides}"),
            "--image=none",
            "--dry-run=server",
            "--output=json",
            "--namespace",
            apps::NAMESPACE,
        ])?;
        Ok(Seen::check(text.contains("otc-container"), text.clone()))
    })
    .unwrap();
}
