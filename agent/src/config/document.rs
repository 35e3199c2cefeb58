//! The document's five sections in order, and what they say together. Must not know the fields of a
//! component.

use super::expand::{self, Findings, Mode};
use super::section::{Problems, Section};
use super::tree::Node;
use super::{Config, Problem, exporters, processors, receivers, service};

pub(super) fn read(yaml: &str, mode: &Mode<'_>) -> Result<Config, Vec<Problem>> {
    let tree = match Node::parse(yaml) {
        Ok(tree @ Node::Map(_)) => tree,
        Ok(other) => {
            let message = format!("expected a mapping of sections, found {}", other.kind());
            return Err(vec![Problem::new("", message)]);
        }
        Err(message) => return Err(vec![Problem::new("", message)]),
    };
    let mut findings = Findings::default();
    let tree = expand::expand(tree, "", mode, &mut findings);
    let problems = Problems::new(std::mem::take(&mut findings.with_files));
    let config = sections(&tree, &problems);
    let warnings = problems.warnings();
    let mut found = findings.problems;
    found.extend(problems.into_inner());
    match config {
        Some(mut config) if found.is_empty() => {
            config.warnings = findings.warnings;
            config.warnings.extend(warnings);
            Ok(config)
        }
        _ => Err(found),
    }
}

/// The shape of every field the reader asks for, and whether it was there.
pub(super) fn asked(yaml: &str) -> Vec<(String, bool)> {
    let problems = Problems::new(Vec::new());
    if let Ok(tree @ Node::Map(_)) = Node::parse(yaml) {
        let tree = expand::expand(tree, "", &Mode::Opaque, &mut Findings::default());
        let _ = sections(&tree, &problems);
    }
    problems.asked()
}

/// `None` only together with a problem.
fn sections(tree: &Node, problems: &Problems) -> Option<Config> {
    let mut root = Section::open(tree, "", problems);
    let receivers = receivers::read(&required(&mut root, "receivers")?);
    let processors = root
        .section("processors")
        .map(|section| processors::read(&section))
        .unwrap_or_default();
    // Extensions come before exporters, whose queues may name one.
    let extensions = root
        .section("extensions")
        .map(|section| service::extensions(&section))
        .unwrap_or_default();
    let exporters = exporters::read(&required(&mut root, "exporters")?, &extensions);
    let service = required(&mut root, "service")?;
    root.finish();
    let parts = service::Parts {
        receivers,
        processors,
        exporters,
        extensions,
    };
    service::assemble(service, &parts)
}

fn required<'a>(root: &mut Section<'a>, key: &'static str) -> Option<Section<'a>> {
    let section = root.section(key);
    if section.is_none() {
        root.problem(
            key,
            "is missing; an agent needs receivers, exporters and service",
        );
    }
    section
}

/// Splits a component id `type[/name]` and refuses types other than `known`.
pub(super) fn component_type<'a>(
    parent: &Section<'_>,
    id: &'a str,
    known: &[&str],
) -> Option<&'a str> {
    let (kind, name) = id
        .split_once('/')
        .map_or((id, None), |(kind, name)| (kind, Some(name)));
    if name == Some("") {
        parent.problem(id, "has an empty name after the slash");
        return None;
    }
    if known.contains(&kind) {
        return Some(kind);
    }
    parent.problem(
        id,
        format!(
            "`{kind}` is not supported; use {}",
            super::units::or_list(known)
        ),
    );
    None
}
