//! The answers of `render` and `diff` as text.

use std::fmt::Write;

use super::compare::Comparison;
use super::rendering::{AgentRendering, Rendering};
use crate::error::CliError;
use crate::text::{Line, Page, bad, escape, escape_document, good, plain, strong, warn};

/// YAML: each object as a document, what else is to be said as comments.
///
/// # Errors
/// If an object cannot be written as YAML.
pub fn render_text(rendering: &Rendering) -> Result<String, CliError> {
    let mut out = String::new();
    for item in &rendering.items {
        let written = of_agent(&mut out, item, &rendering.kubernetes);
        written.map_err(|error| CliError::Internal(error.to_string()))?;
    }
    Ok(escape_document(&out).into_owned())
}

fn of_agent(
    out: &mut String,
    item: &AgentRendering,
    kubernetes: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let mode = item
        .mode
        .map_or(String::new(), |mode| format!(", mode {mode}"));
    let about = format!(
        "OtelAgent {}/{}{mode}, on Kubernetes {kubernetes}",
        item.namespace, item.name
    );
    writeln!(out, "# {}", escape(&about))?;
    if let Some(endpoint) = &item.endpoint {
        writeln!(out, "# endpoint of applications: {}", escape(endpoint))?;
    }
    for problem in &item.problems {
        let problem = format!("{}: {}", problem.reason, problem.message);
        writeln!(out, "# refused: {}", escape(&problem))?;
    }
    for object in &item.objects {
        writeln!(out, "---")?;
        out.push_str(&serde_saphyr::to_string(object)?);
    }
    if let Some(configuration) = &item.agent_configuration {
        writeln!(
            out,
            "---\n# the agent's configuration, which is in the annotation of its pods\n{}",
            configuration.trim_end()
        )?;
    }
    Ok(())
}

/// The differences, with the colours of diffs.
pub fn diff_view(comparison: &Comparison) -> Page {
    let mut page = Page::default();
    for problem in &comparison.problems {
        let text = format!("{}: {}", problem.reason, problem.message);
        page.line(Line::behind("", [bad("✗ ")], [plain(text)]));
    }
    for item in &comparison.items {
        for line in item.diff.lines() {
            let span = match line.get(..1) {
                _ if line.starts_with("---") || line.starts_with("+++") => strong(line),
                Some("+") => good(line),
                Some("-") => bad(line),
                _ => plain(line),
            };
            page.raw(span);
        }
    }
    if comparison.is_as_wished() {
        page.text([plain("no difference")]);
    }
    for note in &comparison.notes {
        page.line(Line::behind("", [warn("! ")], [plain(note)]));
    }
    page
}
