//! From a document to a configuration, or to every problem in it. Must not know the settings of a component.

use super::expand::{self, Resolve};
use super::model::Config;
use super::pipelines;
use super::problem::{Findings, Problem};
use super::section::Section;
use super::tree::Node;

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
    let refused = |message| vec![Problem::new("", message)];
    let tree = Node::parse(yaml).map_err(refused)?;
    if !matches!(tree, Node::Map(_)) {
        let found = tree.kind();
        return Err(refused(format!(
            "expected a mapping of sections, found {found}"
        )));
    }
    let findings = Findings::default();
    let tree = expand::expand(tree, "", resolve, &findings);
    let root = Section::root(Some(&tree), &findings);
    root.check();
    let config = pipelines::read(&root);
    let (problems, warnings) = (findings.problems.take(), findings.warnings.take());
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(problems),
    }
}
