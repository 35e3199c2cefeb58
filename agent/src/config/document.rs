//! From a document to a configuration, or to every problem in it. Must not know the settings of a component.

use super::expand::{self, Resolve};
use super::model::Config;
use super::pipelines::{self, Definitions};
use super::problem::{Findings, Problem};
use super::section::Section;
use super::tree::Node;
use super::{exporters, extensions, processors, receivers};

/// Checks a configuration without looking anything up: every `${…}` reference counts as a valid value
/// of whatever type its setting has, and stays in the result as it was written.
///
/// # Errors
/// Every problem found.
pub fn check(yaml: &str) -> Result<Config, Vec<Problem>> {
    read(yaml, None)
}

/// Reads a configuration for use, with references looked up through `resolve`.
///
/// # Errors
/// Every problem found.
pub fn load(yaml: &str, resolve: &dyn Resolve) -> Result<Config, Vec<Problem>> {
    read(yaml, Some(resolve))
}

fn read(yaml: &str, resolve: Option<&dyn Resolve>) -> Result<Config, Vec<Problem>> {
    let tree = match Node::parse(yaml) {
        Ok(tree @ Node::Map(_)) => Ok(tree),
        Ok(other) => Err(format!(
            "expected a mapping of sections, found {}",
            other.kind()
        )),
        Err(message) => Err(message),
    };
    let tree = tree.map_err(|message| vec![Problem::new("", message)])?;
    let findings = Findings::default();
    let tree = expand::expand(tree, "", resolve, &findings);
    let root = Section::root(Some(&tree), &findings);
    root.check();
    let config = sections(&root);
    let (problems, warnings) = findings.into_inner();
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(problems),
    }
}

/// `None` only together with a problem.
fn sections(root: &Section<'_>) -> Option<Config> {
    let needed = ["receivers", "exporters", "service"];
    if !needed.iter().all(|name| root.section(name).is_present()) {
        return None;
    }
    let extensions = extensions::read(&root.section("extensions"));
    let definitions = Definitions {
        receivers: receivers::read(&root.section("receivers")),
        processors: processors::read(&root.section("processors")),
        exporters: exporters::read(&root.section("exporters"), &extensions),
        extensions,
    };
    pipelines::assemble(root, &definitions)
}
