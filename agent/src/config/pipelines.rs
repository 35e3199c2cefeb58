//! `service`: which of the defined components are used, and for which signal.

use super::extensions::{self, Extension};
use super::model::{Config, Exporter, Memory, Pipeline, ReceiverConfig};
use super::processors::{self, Processor};
use super::section::Section;
use super::{exporters, push, receivers, telemetry};
use otlp_wire::Signal;

/// `None` only together with a problem.
pub(super) fn read(root: &Section<'_>) -> Option<Config> {
    let needed = ["receivers", "exporters", "service"];
    if !needed.iter().all(|name| root.section(name).is_present()) {
        return None;
    }
    let extensions = extensions::read(&root.section("extensions"));
    let mut pipelines = PipelineReader {
        receivers: receivers::read(&root.section("receivers"), &extensions),
        processors: processors::read(&root.section("processors")),
        exporters: exporters::read(&root.section("exporters"), &extensions),
        receiver: None,
        used: Vec::new(),
        memory: processors::memory_limiter(&root.section("processors").absent("memory_limiter")),
    };
    let service = root.section("service");
    let mut health = None;
    for (place, id) in service.ids("extensions") {
        if let Some(Extension::Health(found)) = defined(&place, id, "extensions", &extensions) {
            health = Some(found.clone());
        }
    }
    let found = pipelines.read(&service.section("pipelines"));
    extensions::check_storages(root, &pipelines.used);
    let receiver = pipelines.receiver?;
    extensions::check_auth(root, &receiver);
    let telemetry = telemetry::read(&service.section("telemetry"));
    if let Some(push) = &telemetry.push {
        push::check_loop(root, push, &receiver);
    }
    Some(Config {
        receiver,
        pipelines: found,
        exporters: pipelines.used,
        memory: pipelines.memory,
        health,
        telemetry,
        warnings: Vec::new(),
    })
}

/// The component that a place in the file refers to.
fn defined<'d, T>(
    place: &Section<'_>,
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
        place.problem("", message);
    }
    found.map(|(_, component)| component)
}

/// The components that the file defines, by id, and their use in pipelines.
struct PipelineReader {
    receivers: Vec<(String, ReceiverConfig)>,
    processors: Vec<(String, Processor)>,
    exporters: Vec<(String, Vec<Exporter>)>,
    receiver: Option<ReceiverConfig>,
    /// Exporters in the order of their first use.
    used: Vec<Exporter>,
    memory: Memory,
}

impl PipelineReader {
    fn read(&mut self, section: &Section<'_>) -> Vec<Pipeline> {
        let mut found: Vec<Pipeline> = Vec::new();
        for (id, (kind, pipeline)) in section.components(|_, kind, section| (kind, section)) {
            let mut signals = Signal::ALL.into_iter();
            let Some(signal) = signals.find(|signal| signal.name() == kind) else {
                continue;
            };
            if found.iter().any(|other| other.signal == signal) {
                let message = format!("more than one {kind} pipeline is not supported");
                section.problem(&id, message);
            } else {
                found.extend(self.pipeline(&pipeline, signal));
            }
        }
        if section.is_present() && section.entries().is_empty() {
            let message = "is empty; configure traces, metrics, logs or profiles";
            section.problem("", message);
        }
        found
    }

    fn pipeline(&mut self, section: &Section<'_>, signal: Signal) -> Option<Pipeline> {
        let receivers = section.ids("receivers");
        if receivers.is_empty() {
            section.problem("receivers", "is empty; name a receiver");
        }
        for (place, id) in receivers {
            if let Some(receiver) = defined(&place, id, "receivers", &self.receivers) {
                match &mut self.receiver {
                    Some(first) => receivers::join(first, receiver, &place),
                    None => self.receiver = Some(receiver.clone()),
                }
            }
        }
        let (mut processors, mut attributes) = (Vec::new(), Vec::new());
        for (place, id) in section.ids("processors") {
            processors.push(id.to_owned());
            match defined(&place, id, "processors", &self.processors) {
                Some(Processor::Memory(memory)) => self.memory = *memory,
                Some(Processor::Resource(_)) if !signal.is_mergeable() => {
                    let why = format!("`{id}` cannot be used for profiles, which pass unchanged");
                    place.problem("", why);
                }
                Some(Processor::Resource(edits)) => attributes.extend_from_slice(edits),
                None => {}
            }
        }
        let exporter = match section.ids("exporters").as_slice() {
            [(place, id)] => self.exporter(place, id, signal)?,
            ids => {
                let message = match ids {
                    [] => "is empty; name an exporter",
                    _ => "more than one exporter is not supported",
                };
                section.problem("exporters", message);
                return None;
            }
        };
        Some(Pipeline {
            signal,
            processors,
            attributes,
            exporter,
        })
    }

    /// Marks an exporter as used and returns its index.
    fn exporter(&mut self, place: &Section<'_>, id: &str, signal: Signal) -> Option<usize> {
        let exporters = defined(place, id, "exporters", &self.exporters)?;
        let of = |signal| exporters.iter().find(|exporter| exporter.signal == signal);
        let Some(exporter) = of(Some(signal)).or_else(|| of(None)) else {
            let message = format!("`{id}` has no endpoint for {}", signal.name());
            place.problem("", message);
            return None;
        };
        let is_same = |used: &Exporter| used.id == id && used.signal == exporter.signal;
        let used = self.used.iter().position(is_same);
        Some(used.unwrap_or_else(|| {
            self.used.push(exporter.clone());
            self.used.len() - 1
        }))
    }
}
