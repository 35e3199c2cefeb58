//! `processors`: `memory_limiter` and `resource`.

use super::model::{AttributeAction, AttributeEdit, AttributeValue, Memory};
use super::section::Section;
use super::tree::Node;

const MIB: usize = 1024 * 1024;

/// One processor.
pub(super) enum Processor {
    Memory(Memory),
    Resource(Vec<AttributeEdit>),
}

pub(super) fn read(processors: &Section<'_>) -> Vec<(String, Processor)> {
    let mut limiters = 0;
    processors.components(|id, kind, section| {
        if kind == "resource" {
            return Processor::Resource(resource(&section));
        }
        limiters += 1;
        if limiters > 1 {
            processors.problem(id, "more than one memory_limiter is not supported");
        }
        Processor::Memory(memory_limiter(&section))
    })
}

/// The limits of a `memory_limiter`, or the defaults without one.
pub(super) fn memory_limiter(section: &Section<'_>) -> Memory {
    let limit = section.get::<usize>("limit_mib").saturating_mul(MIB);
    let spike = match section.get::<usize>("spike_limit_mib") {
        0 => limit / 5,
        mib => mib.saturating_mul(MIB),
    };
    if spike >= limit {
        section.problem("spike_limit_mib", "must be smaller than limit_mib");
    }
    Memory { limit, spike }
}

fn resource(section: &Section<'_>) -> Vec<AttributeEdit> {
    let items = section.section("attributes").items();
    if items.is_empty() {
        section.problem("attributes", "is empty; give at least one attribute");
    }
    items.iter().filter_map(edit).collect()
}

/// Whether the value is a reference to nothing.
fn is_unset(section: &Section<'_>) -> bool {
    matches!(section.node("value"), Some(Node::Resolved { text, .. }) if text.is_empty())
}

fn edit(section: &Section<'_>) -> Option<AttributeEdit> {
    let action = section.given::<String>("action")?;
    let value = section.given::<AttributeValue>("value");
    let source = section.given::<String>("from_attribute");
    if source.is_some() && (action != "insert" || section.node("value").is_some()) {
        let problem = "is supported with action insert and without a value; give a literal value";
        section.problem("from_attribute", problem);
    }
    if action != "delete" && source.is_none() && section.node("value").is_none() {
        section.problem("value", "is missing; give a string, number or boolean");
    }
    let action = match (action.as_str(), value) {
        ("insert", None) => AttributeAction::InsertFrom(source?),
        // A variable of the environment that says nothing.
        ("insert", Some(_)) if is_unset(section) => return None,
        ("delete", _) => AttributeAction::Delete,
        ("insert", Some(value)) => AttributeAction::Insert(value),
        ("update", Some(value)) => AttributeAction::Update(value),
        (_, Some(value)) => AttributeAction::Upsert(value),
        (_, None) => return None,
    };
    Some(AttributeEdit {
        key: section.get("key"),
        action,
    })
}
