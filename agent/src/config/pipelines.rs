//! `service`: which of the components that the file defines are used, and for which signal.

use super::extensions::{Extension, check_storages};
use super::model::{AttributeEdit, Config, Exporter, Health, Memory, Pipeline, ReceiverConfig};
use super::processors::{Processor, memory_limiter};
use super::section::Section;
use super::telemetry::telemetry;
use otlp_wire::Signal;

/// The components that the file defines, by id.
pub(super) struct Definitions {
    pub(super) receivers: Vec<(String, ReceiverConfig)>,
    pub(super) processors: Vec<(String, Processor)>,
    pub(super) exporters: Vec<(String, Vec<Exporter>)>,
    pub(super) extensions: Vec<(String, Extension)>,
}

/// `None` only together with a problem.
pub(super) fn assemble(root: &Section<'_>, definitions: &Definitions) -> Option<Config> {
    let service = root.section("service");
    let (health, storages) = extensions(&service, definitions);
    let mut assembly = Assembly {
        definitions,
        receiver: None,
        pipelines: Vec::new(),
        exporters: Vec::new(),
        memory: memory_limiter(&root.section("processors").absent("memory_limiter")),
    };
    assembly.pipelines(&service.section("pipelines"));
    check_storages(&service, &assembly.exporters, &storages);
    Some(Config {
        receiver: assembly.receiver?,
        pipelines: assembly.pipelines,
        exporters: assembly.exporters,
        memory: assembly.memory,
        health,
        telemetry: telemetry(&service.section("telemetry")),
        warnings: Vec::new(),
    })
}

/// The extensions in use: health, and the ids of storages.
fn extensions<'s>(
    service: &Section<'s>,
    definitions: &Definitions,
) -> (Option<Health>, Vec<&'s str>) {
    let (mut health, mut storages) = (None, Vec::new());
    for (path, id) in service.ids("extensions") {
        match defined(service, &path, id, "extensions", &definitions.extensions) {
            Some(Extension::Health(found)) => health = Some(found.clone()),
            Some(Extension::Storage(_)) => storages.push(id),
            Some(Extension::Idle) | None => {}
        }
    }
    (health, storages)
}

/// The component that is used at `path`.
fn defined<'d, T>(
    section: &Section<'_>,
    path: &str,
    id: &str,
    kind: &str,
    known: &'d [(String, T)],
) -> Option<&'d T> {
    let found = known.iter().find(|(name, _)| name == id);
    if found.is_none() {
        let names: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        let defined = match names.as_slice() {
            [] => "none is".to_owned(),
            names => format!("defined: {}", names.join(", ")),
        };
        let message = format!("`{id}` is not defined under {kind}; {defined}");
        section.findings().problem(path, message);
    }
    found.map(|(_, component)| component)
}

/// Pipelines that are being put together.
struct Assembly<'d> {
    definitions: &'d Definitions,
    receiver: Option<ReceiverConfig>,
    pipelines: Vec<Pipeline>,
    exporters: Vec<Exporter>,
    memory: Memory,
}

impl Assembly<'_> {
    fn pipelines(&mut self, pipelines: &Section<'_>) {
        for (id, kind, section) in pipelines.components() {
            let mut signals = Signal::ALL.into_iter();
            let Some(signal) = signals.find(|signal| signal.name() == kind) else {
                continue;
            };
            if self.pipelines.iter().any(|other| other.signal == signal) {
                let message = format!("more than one {kind} pipeline is not supported");
                pipelines.problem(id, message);
            } else if let Some(pipeline) = self.pipeline(&section, signal) {
                self.pipelines.push(pipeline);
            }
        }
        if pipelines.is_present() && pipelines.entries().is_empty() {
            let message = "is empty; configure traces, metrics, logs or profiles";
            pipelines.problem("", message);
        }
    }

    fn pipeline(&mut self, section: &Section<'_>, signal: Signal) -> Option<Pipeline> {
        let receivers = section.ids("receivers");
        if receivers.is_empty() {
            section.problem("receivers", "is empty; name a receiver");
        }
        for (path, id) in receivers {
            let known = &self.definitions.receivers;
            if let Some(receiver) = defined(section, &path, id, "receivers", known) {
                self.receiver = Some(receiver.clone());
            }
        }
        let (processors, attributes) = self.processors(section, signal);
        let exporter = match section.ids("exporters").as_slice() {
            [(path, id)] => self.exporter(section, path, id, signal),
            [] => {
                section.problem("exporters", "is empty; name an exporter");
                None
            }
            _ => {
                section.problem("exporters", "more than one exporter is not supported");
                None
            }
        };
        Some(Pipeline {
            signal,
            processors,
            attributes,
            exporter: exporter?,
        })
    }

    /// The ids of a pipeline's processors, and what they do to attributes.
    fn processors(
        &mut self,
        section: &Section<'_>,
        signal: Signal,
    ) -> (Vec<String>, Vec<AttributeEdit>) {
        let (mut ids, mut attributes) = (Vec::new(), Vec::new());
        for (path, id) in section.ids("processors") {
            ids.push(id.to_owned());
            let known = &self.definitions.processors;
            match defined(section, &path, id, "processors", known) {
                Some(Processor::Memory(memory)) => self.memory = *memory,
                Some(Processor::Resource(_)) if !signal.is_mergeable() => {
                    let why = format!("`{id}` cannot be used for profiles, which pass unchanged");
                    section.findings().problem(&path, why);
                }
                Some(Processor::Resource(edits)) => attributes.extend_from_slice(edits),
                None => {}
            }
        }
        (ids, attributes)
    }

    /// The index of an exporter, which is in use from now on.
    fn exporter(
        &mut self,
        section: &Section<'_>,
        path: &str,
        id: &str,
        signal: Signal,
    ) -> Option<usize> {
        let known = &self.definitions.exporters;
        let exporters = defined(section, path, id, "exporters", known)?;
        let of = |signal| exporters.iter().find(|exporter| exporter.signal == signal);
        let Some(exporter) = of(Some(signal)).or_else(|| of(None)) else {
            let message = format!("`{id}` has no endpoint for {}", signal.name());
            section.findings().problem(path, message);
            return None;
        };
        let is_same = |used: &Exporter| used.id == id && used.signal == exporter.signal;
        let used = self.exporters.iter().position(is_same);
        Some(used.unwrap_or_else(|| {
            self.exporters.push(exporter.clone());
            self.exporters.len() - 1
        }))
    }
}
