//! Renders the agent's configuration: OpenTelemetry Collector configuration, with the user's overlay.
//!
//! The bundled agent and an unmodified collector start with the same text. Of a sidecar, it is an annotation of the
//! pod; of agents on nodes, a `ConfigMap`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::live_settings;
use super::valid_agent::{AgentConfiguration, DiskQueues, Placement, ValidAgent};
use crate::quantity::{MIB, milliseconds};
use otelagent_api::{Export, Header, Ports, Protocol, Tls};

/// Where the configuration is mounted.
pub(super) const DIRECTORY: &str = "/etc/otelagent";
/// File name of the configuration in [`DIRECTORY`].
pub(super) const FILE: &str = "config.yaml";
/// Where Secrets and `ConfigMap`s are mounted, one folder each.
pub(super) const MOUNTS: &str = "/etc/otelagent-mounts";
/// Where the queue on disk is mounted.
pub(super) const QUEUE: &str = "/var/lib/otelagent";

/// Default for the bytes of telemetry that a sidecar keeps in memory.
const SIDECAR_MEMORY: u64 = 16 * MIB;
/// Default for the bytes of telemetry that a node agent keeps in memory.
const NODE_MEMORY: u64 = 64 * MIB;
/// Bytes that the bundled agent needs beside the telemetry: program, connections, the current batch.
const BASE_MEMORY: u64 = 32 * MIB;
/// The same for another image. An idle collector takes 35 MiB, and more under load.
const OTHER_BASE_MEMORY: u64 = 128 * MIB;

/// Signals of the generated pipelines. Each has a queue of its own.
const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

/// Where a node is.
pub(super) struct Place {
    /// Its resource attribute (semantic conventions, `cloud`).
    pub(super) attribute: &'static str,
    /// The variable of the agent that says it.
    pub(super) variable: &'static str,
    /// The label of nodes, which servers from 1.35 on give to their pods too (KEP-4742).
    pub(super) label: &'static str,
}

/// What is said of a node's place.
pub(super) const TOPOLOGY: [Place; 2] = [
    Place {
        attribute: "cloud.availability_zone",
        variable: "OTELAGENT_NODE_ZONE",
        label: "topology.kubernetes.io/zone",
    },
    Place {
        attribute: "cloud.region",
        variable: "OTELAGENT_NODE_REGION",
        label: "topology.kubernetes.io/region",
    },
];

/// Every address of the pod, of either family.
const ANY: &str = "[::]";
/// The node's address. Brackets are valid here around an address of either family.
const HOST: &str = "[${env:OTELAGENT_HOST_IP}]";

impl Placement {
    fn receiver(self) -> &'static str {
        match self {
            Self::Sidecar => "127.0.0.1",
            Self::Pod => ANY,
            Self::Host => HOST,
        }
    }

    /// Health and metrics are reached from the node and from scrapers, so never loopback only.
    fn own(self) -> &'static str {
        match self {
            Self::Sidecar | Self::Pod => ANY,
            Self::Host => HOST,
        }
    }
}

/// Bytes of telemetry the agent keeps in memory.
fn memory_bytes(agent: &ValidAgent, placement: Placement) -> u64 {
    agent.memory_bytes.unwrap_or(match placement {
        Placement::Sidecar => SIDECAR_MEMORY,
        Placement::Pod | Placement::Host => NODE_MEMORY,
    })
}

/// Bytes the agent's container needs.
pub(super) fn container_memory(agent: &ValidAgent, placement: Placement) -> u64 {
    let own = agent.own_image();
    memory_bytes(agent, placement) + own.map_or(BASE_MEMORY, |_| OTHER_BASE_MEMORY)
}

/// The configuration for a placement: the one that validation rendered, if it is for this placement.
pub(super) fn configuration(
    agent: &ValidAgent,
    placement: Placement,
) -> Cow<'_, AgentConfiguration> {
    match &agent.configuration {
        Some(rendered) if rendered.placement == placement => Cow::Borrowed(rendered),
        _ => Cow::Owned(render(agent, placement)),
    }
}

/// Renders the effective configuration; the same bytes for the same input.
pub(super) fn render(agent: &ValidAgent, placement: Placement) -> AgentConfiguration {
    let mut config = generated(agent, placement);
    if let Some(overlay) = &agent.spec.config {
        lay_over(&mut config, &Value::Object(overlay.clone()));
    }
    if let Some(ports) = agent.second_ports.filter(|_| placement == Placement::Host) {
        listen_at_second(ports, placement, &mut config);
    }
    let at_start = match agent.own_image() {
        None => yaml(&live_settings::at_start(&config)),
        Some(_) => yaml(&config),
    };
    AgentConfiguration {
        placement,
        at_start,
        text: yaml(&config),
        disk_queues: disk_queues(&config),
        sends_to_service: sends_to_service(&config),
        unreachable: unreachable(agent, placement, &config),
    }
}

/// Adds a receiver that differs from the first in its ports alone, also after the user's overlay.
fn listen_at_second(ports: Ports, placement: Placement, config: &mut Value) {
    const FIRST: &str = "otlp";
    const SECOND: &str = "otlp/second-ports";
    let Some(mut second) = config["receivers"].get(FIRST).cloned() else {
        return;
    };
    for (protocol, port) in [("grpc", ports.grpc), ("http", ports.http)] {
        let protocol = second["protocols"].get_mut(protocol);
        if let Some(protocol) = protocol.filter(|protocol| protocol.is_object()) {
            protocol["endpoint"] = format!("{}:{port}", placement.receiver()).into();
        }
    }
    config["receivers"][SECOND] = second;
    let pipelines = config["service"]["pipelines"].as_object_mut();
    for pipeline in pipelines.into_iter().flat_map(Map::values_mut) {
        if let Some(receivers) = pipeline["receivers"].as_array_mut()
            && receivers.iter().any(|receiver| receiver == FIRST)
        {
            receivers.push(SECOND.into());
        }
    }
}

/// A JSON value always prints as YAML; JSON itself would be as valid, only harder to read.
fn yaml(config: &Value) -> String {
    serde_saphyr::to_string(config).unwrap_or_else(|_| config.to_string())
}

/// What tells configurations apart, as the agent itself says it.
pub(super) fn fingerprint(text: &str) -> String {
    format!("{:016x}", otelagent_agent::config::fingerprint(text))
}

/// Whether telemetry or the agent's own metrics are sent to a Service.
fn sends_to_service(config: &Value) -> bool {
    let exporters = config["exporters"].as_object().into_iter();
    let readers = config["service"]["telemetry"]["metrics"]["readers"].as_array();
    let pushed = readers.into_iter().flatten();
    let pushed = pushed.map(|reader| &reader["periodic"]["exporter"]["otlp"]);
    let mut hosts = exporters
        .flat_map(Map::values)
        .chain(pushed)
        .filter_map(|exporter| exporter["endpoint"].as_str().map(host));
    hosts.any(|host| host.to_ascii_lowercase().ends_with(".svc"))
}

/// The host of a URL, or of what a collector takes for one: `host:port`.
fn host(endpoint: &str) -> &str {
    let (_, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    rest.split(['/', ':']).next().unwrap_or_default()
}

/// Finds the queues on disk: one for each signal and each of its exporters.
fn disk_queues(config: &Value) -> DiskQueues {
    let pipelines = config["service"]["pipelines"].as_object();
    let exporters = pipelines.into_iter().flat_map(Map::values);
    let exporters = exporters.filter_map(|pipeline| pipeline["exporters"].as_array());
    let mut queues = DiskQueues::default();
    for exporter in exporters.flatten().filter_map(Value::as_str) {
        let queue = &config["exporters"][exporter]["sending_queue"];
        if let Some(storage) = queue["storage"].as_str() {
            let limit = config["extensions"][storage]["max_size"].as_u64();
            let telemetry = queue["queue_size"].as_u64().unwrap_or_default();
            // Without a limit, a collector's files took 2.4 times the bytes of small requests.
            let without = telemetry.saturating_mul(3);
            let bytes = limit.filter(|limit| *limit > 0).unwrap_or(without);
            queues.count += 1;
            queues.bytes = queues.bytes.saturating_add(bytes);
        }
    }
    queues
}

fn generated(agent: &ValidAgent, placement: Placement) -> Value {
    let spec = &agent.spec;
    let (receiver, own) = (placement.receiver(), placement.own());
    let memory = memory_bytes(agent, placement);
    let exporter = match spec.export.protocol {
        Protocol::Grpc => "otlp_grpc",
        Protocol::Http => "otlp_http",
    };
    let processors = processors(agent, memory);
    let names: Vec<&str> = processors.iter().map(|(name, _)| *name).collect();
    let pipeline = json!({"receivers": ["otlp"], "processors": names, "exporters": [exporter]});
    let health = format!("{own}:{}", spec.ports.health);
    let mut extensions = BTreeMap::from([("health_check", json!({"endpoint": health}))]);
    if agent.disk_bytes.is_some() {
        // The queue counts telemetry; its files have a limit of their own.
        let storage = json!({"directory": QUEUE, "max_size": queue_bytes(agent, memory)});
        extensions.insert("file_storage", storage);
    }
    // The naming of metrics is explicit, since versions of the collector differ in their defaults.
    let prometheus = json!({
        "host": own,
        "port": spec.ports.metrics,
        "without_type_suffix": true,
        "without_units": true,
        "without_scope_info": true,
    });
    json!({
        "receivers": {"otlp": {"protocols": {
            "grpc": {"endpoint": format!("{receiver}:{}", spec.ports.grpc)},
            "http": {"endpoint": format!("{receiver}:{}", spec.ports.http)},
        }}},
        "processors": BTreeMap::from_iter(processors),
        "exporters": {exporter: export(agent, memory)},
        "service": {
            "extensions": extensions.keys().collect::<Vec<_>>(),
            "pipelines": BTreeMap::from(SIGNALS.map(|signal| (signal, &pipeline))),
            "telemetry": {
                "logs": {"level": "info", "encoding": "json"},
                "metrics": {"readers": [{"pull": {"exporter": {"prometheus": prometheus}}}]},
            },
        },
        "extensions": extensions,
    })
}

/// Addresses at which clients would not reach the agent: a collector's configuration is often copied whole, with its
/// addresses.
fn unreachable(agent: &ValidAgent, placement: Placement, config: &Value) -> Vec<String> {
    const RECEIVER: &str = "receivers.otlp.protocols";
    const HEALTH: &str = "extensions.health_check.endpoint";
    let ports = agent.spec.ports;
    let is_sidecar = placement == Placement::Sidecar;
    let (grpc, http) = (
        format!("{RECEIVER}.grpc.endpoint"),
        format!("{RECEIVER}.http.endpoint"),
    );
    let mut wrong = Vec::new();
    for (path, field, port, client, by_loopback) in [
        (
            grpc.as_str(),
            "grpc",
            ports.grpc,
            "applications",
            is_sidecar,
        ),
        (&http, "http", ports.http, "applications", is_sidecar),
        (HEALTH, "health", ports.health, "the kubelet", false),
    ] {
        let given = config.pointer(&format!("/{}", path.replace('.', "/")));
        let Some(given) = given.and_then(Value::as_str) else {
            continue;
        };
        if !is_reached(given, port, by_loopback) {
            wrong.push(format!(
                "spec.config sets {path} to `{given}`, where {client} would not reach the agent; leave it out, and set \
                 spec.ports.{field} for another port"
            ));
        }
    }
    let used = config["service"]["extensions"].as_array();
    if used.is_some_and(|used| !used.iter().any(|one| one == "health_check")) {
        wrong.push(
            "spec.config replaces service.extensions by a list without health_check, which the kubelet asks; add it".into(),
        );
    }
    wrong
}

/// Whether others reach what listens at an address. What only the agent's environment says is unknown.
fn is_reached(address: &str, port: u16, by_loopback: bool) -> bool {
    let Some((host, own_port)) = address.rsplit_once(':') else {
        return address.contains("${");
    };
    let is_any = ["", "0.0.0.0", "[::]"].contains(&host) || host.contains("${");
    let is_loopback = by_loopback && ["127.0.0.1", "localhost"].contains(&host);
    (is_any || is_loopback) && (own_port == port.to_string() || own_port.ends_with('}'))
}

/// Bytes one signal's queue may hold: its share of the disk, or all of the memory, which the signals
/// share by the memory limit.
fn queue_bytes(agent: &ValidAgent, memory: u64) -> u64 {
    agent
        .disk_bytes
        .map_or(memory, |disk| disk / SIGNALS.len() as u64)
}

/// Processors in pipeline order: first those that may refuse, then those that add. Host metadata is inserted
/// only where absent, so an agent never relabels telemetry of another node.
fn processors(agent: &ValidAgent, memory: u64) -> Vec<(&'static str, Value)> {
    let limit = (memory + BASE_MEMORY / 2).div_ceil(MIB);
    let limiter = json!({"check_interval": "1s", "limit_mib": limit});
    let insert = |key: &str, value: &str| json!({"key": key, "value": value, "action": "insert"});
    let mut list = vec![("memory_limiter", limiter)];
    let attributes = agent.spec.resource_attributes.iter();
    let attributes = attributes.map(|(key, value)| insert(key, &literal(value)));
    let attributes: Vec<Value> = attributes.collect();
    if !attributes.is_empty() {
        list.push(("resource/attributes", json!({"attributes": attributes})));
    }
    if agent.spec.host_metadata == Some(true) {
        let node = "${env:OTELAGENT_NODE_NAME}";
        // What names another node has come past this agent's node, through a mesh for instance: it keeps that name.
        let named =
            json!({"key": "host.name", "from_attribute": "k8s.node.name", "action": "insert"});
        let own = ["host.name", "k8s.node.name"].map(|key| insert(key, node));
        let mut attributes: Vec<Value> = [named].into_iter().chain(own).collect();
        // The bundled agent leaves out what is empty, where the node or the server has no such label.
        if agent.own_image().is_none() {
            let place = TOPOLOGY
                .map(|place| insert(place.attribute, &format!("${{env:{}:-}}", place.variable)));
            attributes.extend(place);
        }
        list.push(("resource/host", json!({"attributes": attributes})));
    }
    list
}

fn export(agent: &ValidAgent, memory: u64) -> Value {
    let export = &agent.spec.export;
    let queue_bytes = queue_bytes(agent, memory);
    // A collector refuses a batch that its queue could never hold.
    let batch = agent.batch_bytes.min(queue_bytes);
    let mut queue = json!({
        "enabled": true,
        "sizer": "bytes",
        "queue_size": queue_bytes,
        "block_on_overflow": false,
        "batch": {
            "flush_timeout": milliseconds(agent.flush_interval),
            "sizer": "bytes",
            "min_size": batch,
            "max_size": batch,
        },
    });
    if agent.disk_bytes.is_some() {
        queue["storage"] = "file_storage".into();
    }
    let mut exporter = json!({
        "endpoint": literal(endpoint(export)),
        "compression": export.compression,
        "timeout": milliseconds(agent.export_timeout),
        "sending_queue": queue,
        "retry_on_failure": {
            "enabled": true,
            "initial_interval": "1s",
            "max_interval": "30s",
            "max_elapsed_time": "0s",
        },
    });
    for (index, header) in export.headers.iter().enumerate() {
        exporter["headers"][&header.name] = self::header(index, header).into();
    }
    // To a collector, `http` before the host of a gRPC endpoint does not mean without TLS.
    let plain = export.protocol == Protocol::Grpc && export.endpoint.starts_with("http://");
    if let Some(tls) = &export.tls {
        exporter["tls"] = tls_files(tls);
    } else if plain {
        exporter["tls"] = json!({"insecure": true});
    }
    exporter
}

/// A collector takes no slash after the port of a gRPC endpoint.
fn endpoint(export: &Export) -> &str {
    match export.protocol {
        Protocol::Grpc => export.endpoint.trim_end_matches('/'),
        Protocol::Http => &export.endpoint,
    }
}

fn header(index: usize, header: &Header) -> String {
    match (&header.value, &header.secret_key_ref) {
        (_, Some(key)) => format!("${{file:{MOUNTS}/header-{index}/{}}}", key.key),
        (value, None) => literal(value.as_deref().unwrap_or_default()),
    }
}

fn tls_files(tls: &Tls) -> Value {
    let mut files = json!({});
    if let Some(ca) = &tls.ca_config_map {
        files["ca_file"] = format!("{MOUNTS}/ca/{}", ca.key).into();
    }
    if tls.client_certificate_secret.is_some() {
        files["cert_file"] = format!("{MOUNTS}/client/tls.crt").into();
        files["key_file"] = format!("{MOUNTS}/client/tls.key").into();
    }
    if tls.ca_config_map.is_some() || tls.client_certificate_secret.is_some() {
        // Without it, a collector reads the files only once.
        files["reload_interval"] = "1m".into();
    }
    if let Some(name) = &tls.server_name {
        files["server_name_override"] = literal(name).into();
    }
    if tls.insecure_skip_verify == Some(true) {
        files["insecure_skip_verify"] = true.into();
    }
    files
}

/// A value taken literally: `$` starts an expansion in collector configuration.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Maps are merged, everything else is replaced, as a collector does with several `--config`. A null, as a key
/// alone on its line gives, changes nothing that is generated: to a collector it is an empty mapping, which it
/// would fill with defaults of its own.
fn lay_over(base: &mut Value, overlay: &Value) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => {
            for (key, value) in overlay {
                lay_over(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (base, overlay) => *base = without_empty_items(overlay),
    }
}

/// A value without the nulls of its lists, which are items alone on their line.
fn without_empty_items(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let items = items.iter().filter(|item| !item.is_null());
            items.map(without_empty_items).collect()
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(key, value)| (key.clone(), without_empty_items(value)));
            fields.collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_merges_maps_and_replaces_lists() {
        let mut base = json!({"a": {"x": 1, "list": [1, 2]}, "b": 1});
        lay_over(&mut base, &json!({"a": {"list": [3], "y": null}}));
        assert_eq!(base, json!({"a": {"x": 1, "list": [3], "y": null}, "b": 1}));
    }

    #[test]
    fn null_in_the_overlay_takes_nothing_away() {
        let generated = json!({"map": {"x": 1}, "list": [1], "text": "a", "deep": [{"x": null}]});
        let mut base = generated.clone();
        lay_over(&mut base, &json!({"map": null, "list": null, "text": null}));
        lay_over(&mut base, &json!({"map": {"x": null}}));
        assert_eq!(base, generated);
        lay_over(
            &mut base,
            &json!({"list": [null, 2, [null]], "new": {"list": [null, "b"]}}),
        );
        assert_eq!(base["list"], json!([2, []]));
        assert_eq!(base["new"], json!({"list": ["b"]}));
    }

    #[test]
    fn dollar_sign_of_the_user_is_not_expanded() {
        assert_eq!(literal("p$word ${env:HOME}"), "p$$word $${env:HOME}");
    }
}
