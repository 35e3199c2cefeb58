//! The agent's configuration: OpenTelemetry Collector configuration, generated and overlaid.
//!
//! The same text starts the bundled agent and an unmodified collector. It travels as an annotation of
//! the pod that runs the agent, so it changes exactly with that pod and nothing is written elsewhere.

use serde_json::{Map, Value, json};

use super::validate::ValidAgent;
use crate::quantity::{MIB, milliseconds};
use otelagent_api::{Compression, Export, Header, Protocol, Tls};

/// Where the configuration is mounted.
pub(super) const DIRECTORY: &str = "/etc/otelagent";
/// File name of the configuration in [`DIRECTORY`].
pub(super) const FILE: &str = "config.yaml";
/// Where Secrets and `ConfigMap`s are mounted, one folder each.
pub(super) const MOUNTS: &str = "/etc/otelagent-mounts";
/// Where the queue on disk lies.
pub(super) const QUEUE: &str = "/var/lib/otelagent";

/// Bytes of telemetry a sidecar keeps in memory where the user does not say.
const SIDECAR_MEMORY: u64 = 16 * MIB;
/// Bytes of telemetry a node agent keeps in memory where the user does not say.
const NODE_MEMORY: u64 = 64 * MIB;
/// Bytes the bundled agent needs beside the telemetry it keeps: program, connections, the batch under way.
const BASE_MEMORY: u64 = 32 * MIB;
/// The same of another image. A collector takes 35 MiB when it idles, and its garbage under load.
const OTHER_BASE_MEMORY: u64 = 128 * MIB;

/// Signals of the generated pipelines. The queue of each counts for itself.
const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

/// Every address of the pod, of either family.
const ANY: &str = "[::]";
/// The node's address; in brackets, which an address of either family may stand in here.
const HOST: &str = "[${env:OTELAGENT_HOST_IP}]";

/// Which addresses the agent listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Loopback of an application's pod.
    Sidecar,
    /// The address of a pod of its own.
    Pod,
    /// The address of the node.
    Host,
}

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
    let default = if placement == Placement::Sidecar {
        SIDECAR_MEMORY
    } else {
        NODE_MEMORY
    };
    agent.memory_bytes.unwrap_or(default)
}

/// Bytes the agent's container needs.
pub(super) fn container_memory(agent: &ValidAgent, placement: Placement) -> u64 {
    let base = if agent.own_image().is_none() {
        BASE_MEMORY
    } else {
        OTHER_BASE_MEMORY
    };
    memory_bytes(agent, placement) + base
}

/// The effective configuration as YAML; the same bytes for the same input.
pub(super) fn render(agent: &ValidAgent, placement: Placement) -> String {
    let config = effective(agent, placement);
    // A JSON value always prints as YAML; JSON itself would be as valid, only harder to read.
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}

fn effective(agent: &ValidAgent, placement: Placement) -> Value {
    let mut config = generated(agent, placement);
    if let Some(overlay) = &agent.spec.config {
        lay_over(&mut config, &Value::Object(overlay.clone()));
    }
    config
}

/// Whether an exporter names a Service as `name.namespace.svc`, which means nothing to a pod that does not
/// search the cluster's domain.
pub(super) fn sends_to_service(agent: &ValidAgent, placement: Placement) -> bool {
    let config = effective(agent, placement);
    let exporters = config["exporters"].as_object();
    let endpoints = exporters
        .into_iter()
        .flat_map(Map::values)
        .filter_map(|exporter| exporter["endpoint"].as_str());
    let is_service = |host: &str| {
        let domain = host.rsplit_once('.').map(|(_, last)| last);
        domain.is_some_and(|last| last.eq_ignore_ascii_case("svc"))
    };
    endpoints.map(host).any(is_service)
}

/// The host of a URL, or of what a collector takes for one: `host:port`.
fn host(endpoint: &str) -> &str {
    let rest = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    rest.split(['/', ':']).next().unwrap_or_default()
}

/// The queues on disk, as they are after the user's overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskQueues {
    /// How many there are.
    pub(super) count: u64,
    /// Bytes their files may take together.
    pub(super) bytes: u64,
}

/// What is queued on disk: one queue for each signal and each of its exporters.
pub(super) fn disk_queues(agent: &ValidAgent, placement: Placement) -> DiskQueues {
    let config = effective(agent, placement);
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
            let bytes = limit.filter(|limit| *limit > 0);
            let bytes = bytes.unwrap_or_else(|| telemetry.saturating_mul(3));
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
    let names: Vec<&String> = processors.iter().map(|(name, _)| name).collect();
    let pipeline = json!({"receivers": ["otlp"], "processors": names, "exporters": [exporter]});
    let processors: Map<String, Value> = processors.iter().cloned().collect();
    let mut extensions = Map::from_iter([(
        "health_check".to_owned(),
        json!({"endpoint": format!("{own}:{}", agent.own_ports.health)}),
    )]);
    if agent.disk_bytes.is_some() {
        // The queue counts telemetry; what the files make of it has a limit of its own.
        let storage = json!({"directory": QUEUE, "max_size": queue_bytes(agent, memory)});
        extensions.insert("file_storage".into(), storage);
    }
    let extension_names: Vec<&String> = extensions.keys().collect();
    let pipelines: Map<String, Value> = SIGNALS
        .iter()
        .map(|signal| ((*signal).to_owned(), pipeline.clone()))
        .collect();
    json!({
        "receivers": {"otlp": {"protocols": {
            "grpc": {"endpoint": format!("{receiver}:{}", spec.ports.grpc)},
            "http": {"endpoint": format!("{receiver}:{}", spec.ports.http)},
        }}},
        "processors": processors,
        "exporters": {exporter: export(agent, memory)},
        "service": {
            "extensions": extension_names,
            "pipelines": pipelines,
            "telemetry": {
                "logs": {"level": "info", "encoding": "json"},
                "metrics": {"readers": [{"pull": {"exporter": {"prometheus": prometheus(own, agent.own_ports.metrics)}}}]},
            },
        },
        "extensions": extensions,
    })
}

/// The names of metrics are told, since versions of the collector differ in what is the default.
fn prometheus(host: &str, port: u16) -> Value {
    json!({
        "host": host,
        "port": port,
        "without_type_suffix": true,
        "without_units": true,
        "without_scope_info": true,
    })
}

/// Bytes one signal's queue may hold: its share of the disk, or all of the memory, which the signals
/// share by the memory limit.
fn queue_bytes(agent: &ValidAgent, memory: u64) -> u64 {
    agent
        .disk_bytes
        .map_or(memory, |disk| disk / SIGNALS.len() as u64)
}

/// In pipeline order: first what may refuse, then what adds. Host metadata comes last and only where
/// absent, so an agent never re-labels what another node's pod has said.
fn processors(agent: &ValidAgent, memory: u64) -> Vec<(String, Value)> {
    let limit = (memory + BASE_MEMORY / 2).div_ceil(MIB);
    let mut list = vec![(
        "memory_limiter".to_owned(),
        json!({"check_interval": "1s", "limit_mib": limit}),
    )];
    let insert = |key: &str, value: String| json!({"key": key, "value": value, "action": "insert"});
    if !agent.spec.resource_attributes.is_empty() {
        let attributes: Vec<Value> = agent
            .spec
            .resource_attributes
            .iter()
            .map(|(key, value)| insert(key, literal(value)))
            .collect();
        list.push((
            "resource/attributes".into(),
            json!({"attributes": attributes}),
        ));
    }
    if agent.spec.host_metadata == Some(true) {
        let node = || "${env:OTELAGENT_NODE_NAME}".to_owned();
        let attributes = [insert("host.name", node()), insert("k8s.node.name", node())];
        list.push(("resource/host".into(), json!({"attributes": attributes})));
    }
    list
}

fn export(agent: &ValidAgent, memory: u64) -> Value {
    let export = &agent.spec.export;
    let compression = match export.compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
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
        lay_over(&mut queue, &json!({"storage": "file_storage"}));
    }
    let mut exporter = json!({
        "endpoint": literal(endpoint(export)),
        "compression": compression,
        "timeout": milliseconds(agent.export_timeout),
        "sending_queue": queue,
        "retry_on_failure": {
            "enabled": true,
            "initial_interval": "1s",
            "max_interval": "30s",
            "max_elapsed_time": "0s",
        },
    });
    if !export.headers.is_empty() {
        let headers: Map<String, Value> = export
            .headers
            .iter()
            .enumerate()
            .map(|(i, h)| (h.name.clone(), header(i, h)))
            .collect();
        lay_over(&mut exporter, &json!({"headers": headers}));
    }
    // To a collector, `http` before the host of a gRPC endpoint does not mean without TLS.
    let plain = export.protocol == Protocol::Grpc && export.endpoint.starts_with("http://");
    let tls = export.tls.as_ref().map(tls_files);
    if let Some(tls) = tls.or_else(|| plain.then(|| json!({"insecure": true}))) {
        lay_over(&mut exporter, &json!({"tls": tls}));
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

fn header(index: usize, header: &Header) -> Value {
    match (&header.value, &header.secret_key_ref) {
        (_, Some(key)) => json!(format!("${{file:{MOUNTS}/header-{index}/{}}}", key.key)),
        (value, None) => json!(literal(value.as_deref().unwrap_or_default())),
    }
}

fn tls_files(tls: &Tls) -> Value {
    let mut files = Map::new();
    if let Some(ca) = &tls.ca_config_map {
        files.insert("ca_file".into(), json!(format!("{MOUNTS}/ca/{}", ca.key)));
    }
    if tls.client_certificate_secret.is_some() {
        files.insert(
            "cert_file".into(),
            json!(format!("{MOUNTS}/client/tls.crt")),
        );
        files.insert("key_file".into(), json!(format!("{MOUNTS}/client/tls.key")));
    }
    if !files.is_empty() {
        // A collector reads them once if it is not told to look again.
        files.insert("reload_interval".into(), json!("1m"));
    }
    if let Some(name) = &tls.server_name {
        files.insert("server_name_override".into(), json!(literal(name)));
    }
    if tls.insecure_skip_verify == Some(true) {
        files.insert("insecure_skip_verify".into(), json!(true));
    }
    Value::Object(files)
}

/// A value taken literally: `$` starts an expansion in collector configuration.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Maps are merged, everything else is replaced, as a collector does with several `--config`.
fn lay_over(base: &mut Value, overlay: &Value) {
    match (base, overlay) {
        (Value::Object(base), Value::Object(overlay)) => {
            for (key, value) in overlay {
                lay_over(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, overlay) => *base = overlay.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_merges_maps_and_replaces_lists() {
        let mut base = json!({"a": {"x": 1, "list": [1, 2]}, "b": 1});
        lay_over(&mut base, &json!({"a": {"list": [3], "y": null}}));
        assert_eq!(base, json!({"a": {"x": 1, "list": [3], "y": null}, "b": 1}));
    }

    #[test]
    fn a_users_dollar_sign_is_not_an_expansion() {
        assert_eq!(literal("p$word ${env:HOME}"), "p$$word $${env:HOME}");
    }
}
