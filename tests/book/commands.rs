//! Every command of the pages that one follows step by step is run by `lab/tests/cluster/book`, or says why not.

use std::path::Path;

use otelagent_test_support::manifests::text;

use crate::documentation::{assert_none, markdown};

/// The pages that are followed from top to bottom.
fn pages() -> Vec<String> {
    let mut pages = vec![
        "docs/getting-started.md".to_owned(),
        "docs/operations.md".to_owned(),
    ];
    let moving = markdown(Path::new("docs/moving"), false);
    pages.extend(moving.iter().map(|page| super::shown(page)));
    assert!(pages.len() > 4, "{pages:?}");
    pages
}

/// A block is run if it says `run`, alone or with the tool it needs. Otherwise a comment above says why it is not.
#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let mut silent = Vec::new();
    let mut run = 0;
    for page in pages() {
        let text = text(&page);
        let mut before = "";
        let mut is_inside = false;
        for line in text.lines() {
            if is_inside {
                is_inside = line != "```";
                continue;
            }
            if let Some(info) = line.strip_prefix("```") {
                is_inside = true;
                let mut words = info.split(' ');
                let is_shell = matches!(words.next(), Some("sh" | "bash" | "console" | ""));
                let is_run = words.any(|word| word == "run" || word.starts_with("run="));
                run += usize::from(is_shell && is_run);
                if is_shell && !is_run && !before.starts_with("<!-- not run: ") {
                    silent.push(format!("{page}: ```{info}"));
                }
            }
            if line.starts_with("    ") && before.is_empty() {
                silent.push(format!("{page}: {line}"));
            }
            before = line;
        }
        assert!(!is_inside, "{page}: a block without an end");
    }
    assert!(run > 15, "{run} blocks are run");
    assert_none(
        &silent,
        "commands that no test runs and that do not say why",
    );
}
