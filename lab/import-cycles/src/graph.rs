//! Which file of a crate needs which, and where that goes round in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::modules::Crate;

/// The first place where one module needs another, and how many there are.
struct Edge {
    line: usize,
    path: String,
    places: usize,
}

/// Every cycle of a crate, as text with each import in it.
pub(crate) fn cycles(found: &Crate) -> Vec<String> {
    let edges = edges(found);
    let reachable: Vec<BTreeSet<usize>> = (0..found.modules.len())
        .map(|from| reach(&edges, from))
        .collect();
    let mut left: BTreeSet<usize> = (0..found.modules.len())
        .filter(|at| reachable[*at].contains(at))
        .collect();
    let mut cycles = Vec::new();
    while let Some(first) = left.first() {
        let cycle: BTreeSet<usize> = reachable[*first]
            .iter()
            .copied()
            .filter(|at| reachable[*at].contains(first))
            .collect();
        left.retain(|at| !cycle.contains(at));
        cycles.push(describe(found, &edges, &cycle));
    }
    cycles
}

fn edges(found: &Crate) -> BTreeMap<(usize, usize), Edge> {
    let mut edges = BTreeMap::new();
    for used in &found.uses {
        let Some(target) = found
            .resolve(used.module, &used.path)
            .filter(|target| target.item)
        else {
            continue;
        };
        let (from, to) = (
            found.modules[used.module].unit,
            found.modules[target.module].unit,
        );
        // Passing on what a child module defines is how a module presents itself, not a need of it.
        if from == to || used.reexport && is_within(found, to, from) {
            continue;
        }
        let edge = edges.entry((from, to)).or_insert_with(|| Edge {
            line: used.line,
            path: used.path.join("::"),
            places: 0,
        });
        edge.places += 1;
    }
    edges
}

fn is_within(found: &Crate, module: usize, ancestor: usize) -> bool {
    std::iter::successors(Some(module), |at| found.modules[*at].parent).any(|at| at == ancestor)
}

fn reach(edges: &BTreeMap<(usize, usize), Edge>, from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(at) = open.pop() {
        let next = edges
            .range((at, 0)..=(at, usize::MAX))
            .map(|((_, to), _)| *to);
        open.extend(next.filter(|to| reached.insert(*to)));
    }
    reached
}

fn describe(
    found: &Crate,
    edges: &BTreeMap<(usize, usize), Edge>,
    cycle: &BTreeSet<usize>,
) -> String {
    let names: Vec<&str> = cycle
        .iter()
        .map(|at| found.modules[*at].path.as_str())
        .collect();
    let mut text = format!("cycle of {} modules: {}\n", names.len(), names.join(", "));
    for ((from, to), edge) in edges {
        if cycle.contains(from) && cycle.contains(to) {
            let (from, to) = (&found.modules[*from], &found.modules[*to]);
            let (file, Edge { line, path, places }) = (from.file.display(), edge);
            let more = if *places > 1 {
                format!(" and {} more", places - 1)
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "  {} -> {}  {file}:{line} {path}{more}",
                from.path, to.path
            );
        }
    }
    text
}
