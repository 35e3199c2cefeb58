//! From a document to a configuration, or to every problem in it. Does not know the settings of a component.

use super::expand::{self, Resolve};
use super::model::Config;
use super::pipelines;
use super::problem::{Findings, Problem};
use super::proxy;
use super::section::Section;
use super::tree::Node;

/// Checks a configuration without resolving references: every `${…}` counts as a valid value of its
/// setting's type, and stays in the result as written.
///
/// # Errors
/// Every problem found.
pub fn check(yaml: &str) -> Result<Config, Vec<Problem>> {
    read(yaml, None)
}

/// Reads a configuration for use, and resolves references with `resolve`.
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
    let mut config = pipelines::read(&root);
    if let (Some(config), Some(resolve)) = (&mut config, resolve) {
        let push = config.telemetry.push.iter_mut();
        let push = push.map(|push| &mut push.exporter);
        for exporter in config.exporters.iter_mut().chain(push) {
            proxy::by_environment(exporter, resolve, &findings);
        }
    }
    let (problems, warnings) = (findings.problems.take(), findings.warnings.take());
    match config {
        Some(config) if problems.is_empty() => Ok(Config { warnings, ..config }),
        _ => Err(problems),
    }
}
