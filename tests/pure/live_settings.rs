//! What the operator takes for live is live for the agent, and the other way round where it matters.

use otelagent_agent::config::{Config, Problem, Resolve, changes, fingerprint, load};
use otelagent_api::Mode;
use otelagent_core::build::{DesiredMode, validate};

use super::{agent, configuration, desired_in, environment};

struct Surroundings;

impl Resolve for Surroundings {
    fn env(&self, name: &str) -> Option<String> {
        let is_own = name.starts_with("OTELAGENT_");
        is_own.then(|| "192.0.2.1".into())
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Ok("secret".into())
    }
}

fn rendered(mode: Mode, fields: &str) -> DesiredMode {
    let export = if fields.starts_with("export:") {
        ""
    } else {
        "export: {endpoint: 'http://c.o.svc:4317'}, "
    };
    let valid = validate(
        &agent(&format!(
            "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, \
             metadata: {{name: node, namespace: otelagent-system, uid: u}}, spec: {{mode: {mode}, {export}{fields}}}}}"
        )),
        &environment(),
    );
    desired_in(mode, &valid.expect("a valid OtelAgent"))
}

fn read(desired: &DesiredMode) -> Config {
    load(&configuration(desired), &Surroundings).expect("a configuration for the agent")
}

fn taken_over(before: &DesiredMode, after: &DesiredMode) -> Result<Vec<String>, Vec<Problem>> {
    changes(&read(before), &read(after)).map(|changes| changes.paths)
}

const ON_NODES: [Mode; 3] = [Mode::HostPort, Mode::HostNetwork, Mode::NodeLocal];

/// Changes that agents take over.
const LIVE: [&str; 11] = [
    "batch: {flushInterval: 7s, maxSize: 1Mi}",
    "resourceAttributes: {team: a}",
    "export: {endpoint: 'http://other:4317'}",
    "export: {endpoint: 'https://other:4317', tls: {serverName: x}}",
    "export: {endpoint: 'http://c.o.svc:4317', compression: none}",
    "export: {endpoint: 'http://c.o.svc:4317', headers: [{name: a, value: b}]}",
    "export: {endpoint: 'http://c.o.svc:4317', timeout: 3s}",
    "config: {exporters: {otlp_grpc: {retry_on_failure: {max_interval: 9s}}}}",
    "config: {exporters: {otlp_grpc: {sending_queue: {num_consumers: 3}}}}",
    "config: {processors: {resource: {attributes: [{key: a, value: b, action: upsert}]}}, \
     service: {pipelines: {logs: {processors: [memory_limiter, resource]}}}}",
    "config: {service: {telemetry: {logs: {level: warn}, resource: {a: b}}}}",
];

/// Changes that need another agent, or come with another pod: the agent takes over a memory limit, and the names of
/// variables, that its own pod does not have.
const AT_START: [&str; 9] = [
    "buffer: {memory: 128Mi}",
    "hostMetadata: true",
    "export: {endpoint: 'http://c.o.svc:4318', protocol: http}",
    "ports: {health: 14000}",
    "ports: {metrics: 14001}",
    "config: {service: {telemetry: {logs: {encoding: console}}}}",
    "config: {receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: 7}}}}}",
    "buffer: {disk: {size: 1Gi}}",
    "agent: {image: 'otelcol:1'}",
];

#[test]
fn live_settings_change_no_template_and_the_agent_takes_them_over() {
    for mode in ON_NODES {
        let before = rendered(mode, "batch: {}");
        for fields in LIVE {
            let after = rendered(mode, fields);
            assert_eq!(before.template, after.template, "{mode}: {fields}");
            assert_ne!(before.configuration, after.configuration, "{fields}");
            let paths = taken_over(&before, &after);
            assert!(
                paths.as_ref().is_ok_and(|paths| !paths.is_empty()),
                "{mode}: {fields}: {paths:?}"
            );
        }
    }
}

#[test]
fn settings_that_agents_read_at_their_start_change_the_template() {
    for mode in ON_NODES {
        let before = rendered(mode, "batch: {}");
        for fields in AT_START {
            assert_ne!(before.template, rendered(mode, fields).template, "{fields}");
        }
        let disk = |rest: &str| rendered(mode, &format!("buffer: {{disk: {{size: 1Gi}}}}, {rest}"));
        let (before, batch) = (disk("batch: {}"), disk("batch: {flushInterval: 7s}"));
        assert_eq!(before.template, batch.template);
        assert!(taken_over(&before, &batch).is_ok());
        let larger = rendered(mode, "buffer: {disk: {size: 2Gi}}");
        assert_ne!(before.template, larger.template);
        assert!(taken_over(&before, &larger).is_err());
    }
}

/// Whatever two specs are, an agent is never given what it would refuse for the sake of a restart.
#[test]
fn agents_of_one_template_take_over_each_others_configuration() {
    let all = LIVE.iter().chain(&AT_START[..8]);
    let all: Vec<DesiredMode> = all.map(|fields| rendered(Mode::HostPort, fields)).collect();
    let mut compared = 0;
    for before in &all {
        for after in all.iter().filter(|after| before.template == after.template) {
            let taken = taken_over(before, after);
            assert!(taken.is_ok(), "{taken:?}");
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
}

#[test]
fn operator_and_agent_name_a_configuration_alike() {
    for mode in ON_NODES {
        let desired = rendered(mode, "batch: {}");
        let by_agent = format!("{:016x}", fingerprint(&configuration(&desired)));
        assert_eq!(desired.configuration, by_agent);
    }
}

/// Of what another image takes over nothing is known.
#[test]
fn any_change_replaces_agents_of_another_image() {
    let image = "agent: {image: 'otelcol:1'}";
    let before = rendered(Mode::NodeLocal, image);
    let after = rendered(
        Mode::NodeLocal,
        &format!("{image}, batch: {{flushInterval: 7s}}"),
    );
    assert_ne!(before.template, after.template);
}
