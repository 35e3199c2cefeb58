//! A changed configuration of agents on nodes: running agents take it over, and what they cannot take over replaces
//! them.

use std::collections::BTreeMap;
use std::time::Instant;

use demo::steps;
use demo::wait::{Seen, until};
use otelagent_core::names;
use serde_json::{Value, json};

use super::cut_overs::Load;
use super::{PATIENCE, World, condition, world};

const NAMESPACE: &str = "configuration";
const NODES: usize = 2;

/// An agent pod's uid and how often its container was restarted.
type Agents = BTreeMap<String, (String, u64)>;

#[test]
fn changed_settings_run_in_every_node_mode_without_a_restart_or_a_loss() {
    let Some(world) = world("changed settings of running agents") else {
        return;
    };
    world.agent(NAMESPACE, NAMESPACE, "mode: NodeLocal");
    world.until_serving(NAMESPACE, "NodeLocal");
    let load = Load::start(&world, NAMESPACE);
    for (number, mode) in ["NodeLocal", "HostPort", "HostNetwork"]
        .into_iter()
        .enumerate()
    {
        world.patch(NAMESPACE, &json!({"spec": {"mode": mode}}));
        world.until_serving(NAMESPACE, mode);
        if number > 0 {
            load.roll();
        }
        until_alone(&world, mode);
        let before = agents(&world, NAMESPACE, mode);
        let generation = workload(&world, mode)["metadata"]["generation"].clone();
        let interval = format!("{}ms", 300 + number);
        let timeout = format!("{}s", 7 + number);
        for (change, text) in [
            (json!({"batch": {"flushInterval": interval}}), &*interval),
            (
                json!({"export": {"timeout": timeout}, "resourceAttributes": {"stage": mode}}),
                mode,
            ),
        ] {
            world.patch(NAMESPACE, &json!({"spec": change}));
            let begun = Instant::now();
            until_updated(&world, mode, text);
            println!("{mode}: {change} runs after {:?}", begun.elapsed());
            assert_eq!(
                agents(&world, NAMESPACE, mode),
                before,
                "{mode}: nothing was replaced"
            );
        }
        let after = workload(&world, mode)["metadata"]["generation"].clone();
        assert_eq!(after, generation, "{mode}: its template is the same");
    }
    // Pods of the applications were replaced between modes, which may cost what their SDK gave up on.
    load.check_nothing_acknowledged_is_lost();
    world.end_namespace(NAMESPACE);
}

#[test]
fn settings_that_agents_read_at_their_start_replace_them_and_leave_one_configuration() {
    let Some(world) = world("settings that replace agents") else {
        return;
    };
    let mode = "NodeLocal";
    world.agent("restarted", "nobody", &format!("mode: {mode}"));
    world.until_serving("restarted", mode);
    let of = |name: &str| texts(&world, name, mode);
    let before: Vec<String> = of("restarted").into_keys().collect();
    assert_eq!(before.len(), 1);
    let export =
        json!({"protocol": "http", "endpoint": "http://otel-collector.observability.svc:4318"});
    world.patch("restarted", &json!({"spec": {"export": export}}));
    until(
        "the configuration of replaced agents alone",
        PATIENCE,
        || {
            let now: Vec<String> = of("restarted").into_keys().collect();
            let done = now.len() == 1 && now != before;
            Ok(Seen::check(done, format!("{now:?} after {before:?}")))
        },
    )
    .unwrap_or_else(|error| panic!("{error}"));
    world.until_status("restarted", "every agent replaced", is_updated);
    // It goes with its agents.
    world.patch("restarted", &json!({"spec": {"mode": "Sidecar"}}));
    let query = ["configmaps", "--namespace", steps::PLATFORM];
    let name = names::agent_configuration("restarted", "node-local");
    world.until("the configuration gone", &query, |list| {
        !super::names(list).contains(&name)
    });
}

#[test]
fn agents_that_refuse_a_configuration_run_on_and_are_named_until_it_is_corrected() {
    let Some(world) = world("a configuration that agents refuse") else {
        return;
    };
    let (name, mode) = ("refused", "NodeLocal");
    world.agent(name, "nobody", &format!("mode: {mode}"));
    world.until_status(name, "every agent updated", is_updated);
    let before = agents(&world, name, mode);
    let header = |value: Value| {
        let exporter = json!({"headers": {"x-tenant": value}});
        json!({"spec": {"config": {"exporters": {"otlp_grpc": exporter}}}})
    };
    // The operator cannot look into files of agents.
    world.patch(name, &header(json!("${file:/none}")));
    world.until_status(name, "the refusal named", |status| {
        let ready = condition(status, "Ready");
        let message = ready["message"].as_str().unwrap_or_default();
        ready["status"] == "True"
            && ready["reason"] == "NotRolledOut"
            && message.contains("it refuses the present configuration at exporters.otlp_grpc")
            && status["agents"]["ready"] == NODES
            && status["agents"]["updated"] == 0
    });
    let map = names::agent_configuration(name, &kebab(mode));
    let there = ["configmap", &map, "--namespace", steps::PLATFORM];
    let uid = |map: &Value| map["metadata"]["uid"].clone();
    let old = uid(&world.kubectl.get(&there).unwrap());
    let delete = [&["delete"], &there[..]].concat();
    world.kubectl.run(&delete).unwrap();
    world.until("the deleted ConfigMap written anew", &there, |map| {
        uid(map) != old
    });
    world.patch(name, &header(Value::Null));
    world.until_status(name, "every agent updated", is_updated);
    let after = agents(&world, name, mode);
    assert_eq!(after, before, "nothing was replaced or restarted");
}

fn is_updated(status: &Value) -> bool {
    let agents = &status["agents"];
    agents["updated"] == NODES
        && agents["ready"] == NODES
        && condition(status, "Ready")["reason"] == "Serving"
}

/// Waits until the status counts every agent as updated; all of them run what is written then, which has this text, and
/// their kubelets were told.
fn until_updated(world: &World, mode: &str, text: &str) {
    world.until_status(NAMESPACE, "every agent updated", is_updated);
    let texts = texts(world, NAMESPACE, mode);
    assert_eq!(texts.len(), 1, "{:?}", texts.keys());
    assert!(
        texts.values().all(|one| one.contains(text)),
        "{text}: {texts:?}"
    );
    let seen = pods(world, NAMESPACE, mode);
    assert_eq!(seen.len(), NODES);
    for pod in seen {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let path = format!(
            "/api/v1/namespaces/{}/pods/{name}:8888/proxy/metrics",
            steps::PLATFORM
        );
        let written = pod["metadata"]["annotations"][names::ANNOTATION_CONFIG_WRITTEN].as_str();
        let written = written.expect("the kubelet was told");
        let running = format!("otelagent_config_info{{fingerprint=\"{written}\"}} 1");
        // An agent that was not asked yet counts by its template.
        until(&format!("{name}: {running}"), PATIENCE, || {
            let metrics = world.kubectl.run(&["get", "--raw", &path])?;
            let found = metrics.lines().find(|line| line.contains("config_info{"));
            Ok(Seen::check(
                found == Some(running.as_str()),
                format!("{found:?}"),
            ))
        })
        .unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Waits until only the agents of one mode are left.
fn until_alone(world: &World, mode: &str) {
    world.until_status(NAMESPACE, "the end of the switch", |status| {
        status["mode"] == mode && condition(status, "Switching")["status"] == "False"
    });
    let name = names::agent_workload(NAMESPACE, &kebab(mode));
    let query = ["daemonsets", "--namespace", steps::PLATFORM];
    world.until("one agent workload", &query, |list| {
        super::names(list) == [name.clone()]
    });
    world.until_status(NAMESPACE, "its agents ready", is_updated);
}

fn kebab(mode: &str) -> String {
    match mode {
        "HostPort" => "host-port",
        "HostNetwork" => "host-network",
        _ => "node-local",
    }
    .to_owned()
}

fn workload(world: &World, mode: &str) -> Value {
    let name = names::agent_workload(NAMESPACE, &kebab(mode));
    let query = ["daemonset", &name, "--namespace", steps::PLATFORM];
    world.kubectl.get(&query).unwrap()
}

/// The agents' configurations, by key.
fn texts(world: &World, agent: &str, mode: &str) -> BTreeMap<String, String> {
    let name = names::agent_configuration(agent, &kebab(mode));
    let query = ["configmap", &name, "--namespace", steps::PLATFORM];
    let map: Value = world.kubectl.get(&query).unwrap();
    serde_json::from_value(map["data"].clone()).unwrap()
}

fn pods(world: &World, agent: &str, mode: &str) -> Vec<Value> {
    let label = names::agent_label(steps::PLATFORM, agent);
    let selector = format!(
        "--selector={}={label},{}={mode}",
        names::LABEL_OWNER,
        names::LABEL_WORKLOAD
    );
    let query = ["pods", "--namespace", steps::PLATFORM, &selector];
    let list: Value = world.kubectl.get(&query).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn agents(world: &World, agent: &str, mode: &str) -> Agents {
    let identity = |pod: Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let restarts = status["restartCount"].as_u64().unwrap_or_default();
        (name.to_owned(), (uid.to_owned(), restarts))
    };
    pods(world, agent, mode).into_iter().map(identity).collect()
}
