//! The measured figures of `docs/sizing.md` and of the README are those of `docs/benchmarks.md`.

use otelagent_api::Mode;
use otelagent_core::build::validate;
use otelagent_test_support::agents::{agent_with, desired, environment};
use otelagent_test_support::manifests::text;

use super::rows;
use crate::documentation::assert_none;

/// The figures of a cell: its words that begin with a digit, with thousands as they are written.
fn figures(cell: &str) -> impl Iterator<Item = &str> {
    let words = cell.split(|c: char| c.is_whitespace() || "()*;:".contains(c));
    let words = words.map(|word| word.trim_end_matches([',', '.', '%']));
    words.filter(|word| word.starts_with(|c: char| c.is_ascii_digit()))
}

#[test]
fn measured_figures_are_those_of_the_benchmarks() {
    let benchmarks = text("docs/benchmarks.md");
    let page = text("docs/sizing.md");
    let (_, rest) = page.split_once("<!-- measured: from here -->").unwrap();
    let (table, _) = rest.split_once("<!-- measured: to here -->").unwrap();
    let rows = rows("docs/sizing.md");
    let measured: Vec<_> = rows
        .iter()
        .filter(|row| table.contains(&format!("| {} |", row[0])))
        .collect();
    assert!(measured.len() > 4, "{measured:?}");
    let readme = super::rows("README.md");
    let of_readme = readme.iter().filter(|row| row[1].contains("benchmarks.md"));
    let of_readme: Vec<&String> = of_readme.map(|row| &row[0]).collect();
    assert!(of_readme.len() > 2, "{of_readme:?}");
    let mut others = Vec::new();
    let mut compared = 0;
    for cell in measured.iter().flat_map(|row| &row[1..]).chain(of_readme) {
        for figure in figures(cell) {
            compared += 1;
            if !benchmarks.contains(figure) {
                others.push(format!("{figure} of {cell}"));
            }
        }
    }
    assert!(compared > 10, "{compared} figures");
    assert_none(&others, "figures that docs/benchmarks.md does not have");
}

/// What agents request by default is what the operator renders.
#[test]
fn default_requests_are_those_that_are_rendered() {
    let rows = rows("docs/sizing.md");
    for (first, mode) in [
        ("agent of a node", Mode::NodeLocal),
        ("sidecar", Mode::Sidecar),
    ] {
        let spec = format!("mode: {mode}, workloads: {{namespaceSelector: {{}}}}");
        let agent = agent_with("otelagent-system", &spec);
        let desired = desired(&validate(&agent, &environment()).expect("a valid OtelAgent"));
        let mut objects = desired.objects.iter();
        let container = match objects.find(|object| object.template().is_some()) {
            Some(object) => object.to_json()["spec"]["template"]["spec"]["containers"][0].clone(),
            None => desired.recipe.sidecar.clone().expect("a sidecar"),
        };
        let requests = &container["resources"]["requests"];
        let rendered = ["cpu", "memory"].map(|what| requests[what].as_str().unwrap().to_owned());
        let row = rows.iter().find(|row| row[0] == first);
        let row = row.unwrap_or_else(|| panic!("no row of the {first}"));
        assert_eq!(row[1..3], rendered, "{first}");
    }
}
