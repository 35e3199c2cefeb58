//! `extensions` and `service`: which components are used, and what the agent tells about itself.

use otlp_wire::Signal;

use super::document::component_type;
use super::exporters::Definition;
use super::processors::{DEFAULT_MEMORY, Processor};
use super::receivers;
use super::section::Section;
use super::units;
use super::{
    Address, AttributeEdit, Config, Exporter, Health, LogEncoding, LogLevel, LogOutput,
    MetricsReader, Pipeline, Receiver, Storage, Telemetry, storage,
};

/// The components the file defines, by id.
pub(super) struct Parts {
    pub(super) receivers: Vec<(String, Receiver)>,
    pub(super) processors: Vec<(String, Processor)>,
    pub(super) exporters: Vec<(String, Definition)>,
    pub(super) extensions: Vec<(String, Extension)>,
}

/// What an extension is for.
#[derive(Clone)]
pub(super) enum Extension {
    Health(Health),
    Storage(Storage),
    /// Something this agent has no use for.
    Idle,
}

pub(super) fn extensions(extensions: &Section<'_>) -> Vec<(String, Extension)> {
    let mut found = Vec::new();
    for (id, node) in extensions.entries() {
        let known = ["health_check", "file_storage", "zpages", "pprof"];
        let Some(kind) = component_type(extensions, id, &known) else {
            continue;
        };
        let section = || Section::component(extensions, id, kind, node);
        let extension = match kind {
            "file_storage" => Extension::Storage(storage::read(section(), id)),
            "health_check" => Extension::Health(health(section())),
            _ => {
                let message = "is ignored: this agent has nothing of the kind to show";
                extensions.problems().warn(&extensions.at(id), message);
                Extension::Idle
            }
        };
        found.push((id.to_owned(), extension));
    }
    found
}

fn health(mut section: Section<'_>) -> Health {
    let listen = section
        .parsed("endpoint", receivers::address, receivers::opaque_address)
        .unwrap_or_else(|| localhost(13133));
    let path = section
        .parsed("path", units::absolute_path, str::to_owned)
        .unwrap_or_else(|| "/".to_owned());
    section.finish();
    Health { listen, path }
}

fn localhost(port: u16) -> Address {
    Address {
        host: "localhost".to_owned(),
        port,
    }
}

/// `None` only together with a problem.
pub(super) fn assemble(mut service: Section<'_>, parts: &Parts) -> Option<Config> {
    let mut health = None;
    let mut storages = Vec::new();
    for (path, id) in service.names("extensions") {
        match find(&parts.extensions, id) {
            Some((_, Extension::Health(found))) => health = Some(found.clone()),
            Some((_, Extension::Storage(_))) => storages.push(id),
            Some((_, Extension::Idle)) => {}
            None => undefined(&service, &path, id, "extensions", &parts.extensions),
        }
    }
    let mut wiring = Wiring {
        parts,
        receiver: None,
        pipelines: Vec::new(),
        exporters: Vec::new(),
        memory: DEFAULT_MEMORY,
    };
    match service.section("pipelines") {
        Some(pipelines) => wiring.pipelines(&pipelines),
        None => service.problem(
            "pipelines",
            "is missing; configure traces, metrics, logs or profiles",
        ),
    }
    storage::check(&service, &wiring.exporters, &storages);
    let telemetry = telemetry(service.section("telemetry"));
    service.finish();
    Some(Config {
        receiver: wiring.receiver?,
        pipelines: wiring.pipelines,
        exporters: wiring.exporters,
        memory: wiring.memory,
        health,
        telemetry,
        warnings: Vec::new(),
    })
}

fn find<'a, T>(components: &'a [(String, T)], id: &str) -> Option<&'a (String, T)> {
    components.iter().find(|(name, _)| name == id)
}

fn undefined<T>(section: &Section<'_>, path: &str, id: &str, kind: &str, known: &[(String, T)]) {
    let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
    let defined = if names.is_empty() {
        "none is".to_owned()
    } else {
        format!("defined: {}", names.join(", "))
    };
    section.problems().add(
        path,
        format!("`{id}` is not defined under {kind}; {defined}"),
    );
}

/// Pipelines being put together.
struct Wiring<'p> {
    parts: &'p Parts,
    receiver: Option<Receiver>,
    pipelines: Vec<Pipeline>,
    exporters: Vec<Exporter>,
    memory: super::Memory,
}

impl Wiring<'_> {
    fn pipelines(&mut self, pipelines: &Section<'_>) {
        let mut any = false;
        for (id, node) in pipelines.entries() {
            any = true;
            let known = Signal::ALL.map(Signal::name);
            let Some(kind) = component_type(pipelines, id, &known) else {
                continue;
            };
            let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.name() == kind) else {
                continue;
            };
            if self.pipelines.iter().any(|other| other.signal == signal) {
                let message = format!("more than one {kind} pipeline is not supported");
                pipelines.problem(id, message);
                continue;
            }
            let section = Section::component(pipelines, id, kind, node);
            if let Some(pipeline) = self.pipeline(section, signal) {
                self.pipelines.push(pipeline);
            }
        }
        if !any {
            pipelines.problems().add(
                &pipelines.path,
                "is empty; configure traces, metrics, logs or profiles",
            );
        }
    }

    fn pipeline(&mut self, mut section: Section<'_>, signal: Signal) -> Option<Pipeline> {
        let receivers = section.names("receivers");
        if receivers.is_empty() {
            section.problem("receivers", "is empty; name a receiver");
        }
        for (path, id) in receivers {
            match find(&self.parts.receivers, id) {
                Some((_, receiver)) => self.receiver = Some(receiver.clone()),
                None => undefined(&section, &path, id, "receivers", &self.parts.receivers),
            }
        }
        let (processors, attributes) = self.processors(&mut section, signal);
        let exporters = section.names("exporters");
        let exporter = match exporters.as_slice() {
            [(path, id)] => self.exporter(&section, path, id, signal),
            [] => {
                section.problem("exporters", "is empty; name an exporter");
                None
            }
            _ => {
                section.problem("exporters", "more than one exporter is not supported");
                None
            }
        };
        section.finish();
        Some(Pipeline {
            signal,
            processors,
            attributes,
            exporter: exporter?,
        })
    }

    /// The ids of a pipeline's processors and what they do to attributes.
    fn processors(
        &mut self,
        section: &mut Section<'_>,
        signal: Signal,
    ) -> (Vec<String>, Vec<AttributeEdit>) {
        let mut ids = Vec::new();
        let mut attributes = Vec::new();
        for (path, id) in section.names("processors") {
            ids.push(id.to_owned());
            match find(&self.parts.processors, id) {
                Some((_, Processor::Memory(memory))) => self.memory = *memory,
                Some((_, Processor::Resource(_))) if !signal.is_mergeable() => {
                    let why = format!("`{id}` cannot be used for profiles, which pass as they are");
                    section.problems().add(&path, why);
                }
                Some((_, Processor::Resource(edits))) => attributes.extend_from_slice(edits),
                None => undefined(section, &path, id, "processors", &self.parts.processors),
            }
        }
        (ids, attributes)
    }

    /// The index of an exporter that is now in use.
    fn exporter(
        &mut self,
        section: &Section<'_>,
        path: &str,
        id: &str,
        signal: Signal,
    ) -> Option<usize> {
        let Some((_, definition)) = find(&self.parts.exporters, id) else {
            undefined(section, path, id, "exporters", &self.parts.exporters);
            return None;
        };
        let Some(exporter) = definition.of(signal) else {
            let message = format!("`{id}` has no endpoint for {}", signal.name());
            section.problems().add(path, message);
            return None;
        };
        let same = |used: &Exporter| used.id == id && used.signal == exporter.signal;
        if let Some(index) = self.exporters.iter().position(same) {
            return Some(index);
        }
        self.exporters.push(exporter);
        Some(self.exporters.len() - 1)
    }
}

fn telemetry(section: Option<Section<'_>>) -> Telemetry {
    let mut telemetry = Telemetry {
        metrics: Some(MetricsReader {
            listen: localhost(8888),
            without_type_suffix: true,
            without_units: true,
        }),
        log_level: LogLevel::Info,
        log_encoding: LogEncoding::Console,
        log_output: LogOutput::Stderr,
    };
    let Some(mut section) = section else {
        return telemetry;
    };
    if let Some(metrics) = section.section("metrics") {
        telemetry.metrics = metrics_reader(metrics, telemetry.metrics);
    }
    if let Some(mut logs) = section.section("logs") {
        let levels = [
            ("debug", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("error", LogLevel::Error),
        ];
        telemetry.log_level = logs.choice("level", &levels).unwrap_or(LogLevel::Info);
        let encodings = [
            ("json", LogEncoding::Json),
            ("console", LogEncoding::Console),
        ];
        telemetry.log_encoding = logs
            .choice("encoding", &encodings)
            .unwrap_or(LogEncoding::Console);
        telemetry.log_output = log_output(&mut logs);
        logs.finish();
    }
    section.finish();
    telemetry
}

fn log_output(logs: &mut Section<'_>) -> LogOutput {
    match logs.names("output_paths").as_slice() {
        [] | [(_, "stderr")] => LogOutput::Stderr,
        [(_, "stdout")] => LogOutput::Stdout,
        _ => {
            logs.problem("output_paths", "only [stderr] and [stdout] are supported");
            LogOutput::Stderr
        }
    }
}

fn metrics_reader(
    mut metrics: Section<'_>,
    default: Option<MetricsReader>,
) -> Option<MetricsReader> {
    let levels = [
        ("none", false),
        ("basic", true),
        ("normal", true),
        ("detailed", true),
    ];
    let on = metrics.choice("level", &levels).unwrap_or(true);
    let mut reader = default;
    let mut readers = metrics.items("readers");
    if readers.len() > 1 {
        metrics.problem("readers", "more than one reader is not supported");
    }
    if !readers.is_empty() {
        reader = prometheus(readers.swap_remove(0));
    }
    metrics.finish();
    reader.filter(|_| on)
}

fn prometheus(mut reader: Section<'_>) -> Option<MetricsReader> {
    let mut found = None;
    if let Some(mut pull) = reader.section("pull") {
        if let Some(mut exporter) = pull.section("exporter") {
            found = exporter.section("prometheus").map(pull_reader);
            exporter.finish();
        }
        pull.finish();
    }
    if found.is_none() {
        reader.problem(
            "pull.exporter.prometheus",
            "is missing; it is the only reader supported",
        );
    }
    reader.finish();
    found
}

/// The collector puts host and port together with a colon, so an IPv6 address comes in brackets.
fn without_brackets(host: &str) -> String {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).to_owned()
}

fn pull_reader(mut prometheus: Section<'_>) -> MetricsReader {
    let host = prometheus
        .parsed("host", |text| Ok(without_brackets(text)), str::to_owned)
        .unwrap_or_else(|| "localhost".to_owned());
    let port = prometheus.integer("port", 0..=65535).unwrap_or(8888);
    let without_type_suffix = prometheus.boolean("without_type_suffix").unwrap_or(false);
    let without_units = prometheus.boolean("without_units").unwrap_or(false);
    prometheus.finish();
    MetricsReader {
        listen: Address {
            host,
            port: u16::try_from(port).unwrap_or_default(),
        },
        without_type_suffix,
        without_units,
    }
}
