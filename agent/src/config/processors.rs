//! `processors`: `memory_limiter` and `resource`.

use super::document::component_type;
use super::section::Section;
use super::tree::Node;
use super::{AttributeAction, AttributeEdit, AttributeValue, Memory};

const MIB: usize = 1024 * 1024;

/// Default limit: an agent without a `memory_limiter` is bounded all the same.
pub(super) const DEFAULT_MEMORY: Memory = Memory {
    limit: 64 * MIB,
    spike: 64 * MIB / 5,
};

/// One processor.
#[derive(Clone)]
pub(super) enum Processor {
    Memory(Memory),
    Resource(Vec<AttributeEdit>),
}

pub(super) fn read(processors: &Section<'_>) -> Vec<(String, Processor)> {
    let mut found: Vec<(String, Processor)> = Vec::new();
    for (id, node) in processors.entries() {
        if id == "batch" || id.starts_with("batch/") {
            processors.problem(
                id,
                "`batch` is not supported; set sending_queue.batch of the exporter instead",
            );
            continue;
        }
        let Some(kind) = component_type(processors, id, &["memory_limiter", "resource"]) else {
            continue;
        };
        let section = Section::component(processors, id, kind, node);
        let processor = if kind == "resource" {
            Processor::Resource(resource(section))
        } else {
            if found
                .iter()
                .any(|(_, other)| matches!(other, Processor::Memory(_)))
            {
                processors.problem(id, "more than one memory_limiter is not supported");
            }
            Processor::Memory(memory_limiter(section))
        };
        found.push((id.to_owned(), processor));
    }
    found
}

fn memory_limiter(mut section: Section<'_>) -> Memory {
    let limit = section.integer("limit_mib", 1..=1024 * 1024);
    if limit.is_none() && section.node("limit_mib").is_none() {
        section.problem("limit_mib", "is missing; give the limit in MiB");
    }
    let spike = section.integer("spike_limit_mib", 0..=1024 * 1024);
    let bytes = |mib: u64| {
        usize::try_from(mib)
            .unwrap_or(usize::MAX / MIB)
            .saturating_mul(MIB)
    };
    let limit = limit.map_or(DEFAULT_MEMORY.limit, bytes);
    let spike = spike.filter(|&mib| mib > 0).map_or(limit / 5, bytes);
    if spike >= limit {
        section.problem("spike_limit_mib", "must be smaller than limit_mib");
    }
    section.finish();
    Memory { limit, spike }
}

fn resource(mut section: Section<'_>) -> Vec<AttributeEdit> {
    let items = section.items("attributes");
    if items.is_empty() {
        section.problem("attributes", "is empty; give at least one attribute");
    }
    let edits = items.into_iter().filter_map(edit).collect();
    section.finish();
    edits
}

/// Which of the four actions, before its value is known.
#[derive(Clone, Copy, PartialEq)]
enum Action {
    Insert,
    Update,
    Upsert,
    Delete,
}

fn edit(mut section: Section<'_>) -> Option<AttributeEdit> {
    let key = section
        .parsed("key", |text| Ok(text.to_owned()), str::to_owned)
        .unwrap_or_default();
    if key.is_empty() {
        section.problem("key", "is missing; name the attribute");
    }
    let action = section.choice(
        "action",
        &[
            ("insert", Action::Insert),
            ("update", Action::Update),
            ("upsert", Action::Upsert),
            ("delete", Action::Delete),
        ],
    );
    if action.is_none() && section.node("action").is_none() {
        section.problem("action", "is missing; use insert, update, upsert or delete");
    }
    let value = value(&mut section);
    let needs_value = action.is_some_and(|action| action != Action::Delete);
    if needs_value && value.is_none() && section.node("value").is_none() {
        section.problem("value", "is missing; give a string, number or boolean");
    }
    section.finish();
    let action = match (action?, value) {
        (Action::Insert, Some(value)) => AttributeAction::Insert(value),
        (Action::Update, Some(value)) => AttributeAction::Update(value),
        (Action::Upsert, Some(value)) => AttributeAction::Upsert(value),
        (Action::Delete, _) => AttributeAction::Delete,
        (_, None) => return None,
    };
    Some(AttributeEdit { key, action })
}

fn value(section: &mut Section<'_>) -> Option<AttributeValue> {
    let node = section.node("value")?;
    match node.meaning() {
        Node::Text(text) | Node::Opaque(text) => Some(AttributeValue::Text(text.clone())),
        Node::Bool(value) => Some(AttributeValue::Bool(*value)),
        Node::Integer(value) => Some(AttributeValue::Integer(*value)),
        Node::Float(value) => Some(AttributeValue::Float(*value)),
        // A variable that is not set: the empty string, not an absent value.
        Node::Null => Some(AttributeValue::Text(String::new())),
        other => {
            let kind = other.kind();
            section.problem(
                "value",
                format!("expected a string, number or boolean, found {kind}"),
            );
            None
        }
    }
}
