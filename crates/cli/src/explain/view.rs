//! The answer of `explain` as text.

use serde_json::Value;

use super::report::{CandidateReport, EditReport, Explanation, InjectionReport, PodExplanation};
use crate::text::{Line, Page, Span, bad, dim, good, plain, strong, warn};

/// Longest value that is shown without `-o wide`, in characters.
const MAX_VALUE: usize = 160;

/// The text. `is_whole` cuts nothing.
pub fn view(explanation: &Explanation, is_whole: bool) -> Page {
    let mut page = Page::default();
    for (at, item) in explanation.items.iter().enumerate() {
        if at > 0 {
            page.blank();
        }
        of_pod(&mut page, item, is_whole);
    }
    for note in &explanation.notes {
        page.blank();
        page.line(Line::behind("", [warn("! ")], [plain(note)]));
    }
    page
}

fn sign(is_as_wished: bool) -> Span {
    if is_as_wished {
        good("✓ ")
    } else {
        bad("✗ ")
    }
}

fn of_pod(page: &mut Page, item: &PodExplanation, is_whole: bool) {
    let head = format!("{} in namespace {}: ", item.subject, item.namespace);
    let text = [strong(head), plain(&item.summary)];
    page.line(Line::behind("", [sign(item.is_as_wished)], text));
    for advice in &item.advice {
        page.line(Line::behind("  ", [warn("! ")], [plain(advice)]));
    }
    for candidate in &item.candidates {
        of_candidate(page, candidate);
    }
    if let Some(injected) = &item.injected {
        page.text([plain("  "), strong("what was injected")]);
        of_edits(page, &injected.edits, is_whole);
    }
    let is_same = item.injected.is_some() && item.differences.is_empty();
    match &item.now {
        Some(_) if is_same => {}
        Some(_) if item.injected.is_some() => {
            page.text([plain("  "), strong("what would be different now")]);
            of_edits(page, &item.differences, is_whole);
        }
        Some(InjectionReport { edits, .. }) => {
            page.text([plain("  "), strong("what would be injected now")]);
            of_edits(page, edits, is_whole);
        }
        None => {}
    }
}

fn of_candidate(page: &mut Page, candidate: &CandidateReport) {
    let name = format!("OtelAgent {}/{}", candidate.namespace, candidate.name);
    let mode = candidate
        .mode
        .map_or(String::new(), |mode| format!(", mode {mode}"));
    page.text([plain("  "), strong(name), dim(mode)]);
    let rules = candidate.rules.iter();
    // Those that are met before one that is not say little.
    for rule in rules {
        page.line(Line::behind(
            "    ",
            [sign(rule.is_met)],
            [plain(&rule.text)],
        ));
    }
}

fn of_edits(page: &mut Page, edits: &[EditReport], is_whole: bool) {
    if edits.is_empty() {
        page.text([dim("    nothing that is known")]);
    }
    for edit in edits {
        let value = |value: &Value| shown(value, is_whole);
        let path = strong(format!("{} ", edit.path));
        let (mark, text) = match (&edit.before, &edit.after) {
            (None, Some(after)) => (good("+ "), vec![path, plain(value(after))]),
            (Some(before), Some(after)) => (
                warn("~ "),
                vec![path, plain(value(before)), dim(" → "), plain(value(after))],
            ),
            (Some(before), None) => (bad("- "), vec![path, plain(value(before))]),
            (None, None) => continue,
        };
        page.line(Line::behind("    ", [mark], text));
    }
}

/// A value in a few words: of a variable its value, of a container its image.
fn shown(value: &Value, is_whole: bool) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(fields) if !is_whole => {
            let of = |key: &str| fields.get(key).and_then(Value::as_str);
            match (
                of("value"),
                of("image"),
                value.pointer("/valueFrom/fieldRef/fieldPath"),
            ) {
                (Some(text), _, _) => text.to_owned(),
                (_, Some(image), _) => format!("image {image}"),
                (_, _, Some(field)) => format!("field {}", field.as_str().unwrap_or_default()),
                _ => value.to_string(),
            }
        }
        other => other.to_string(),
    };
    if is_whole || text.chars().count() <= MAX_VALUE {
        return text;
    }
    let kept: String = text.chars().take(MAX_VALUE).collect();
    format!(
        "{kept}… ({} characters; -o wide shows all)",
        text.chars().count()
    )
}
