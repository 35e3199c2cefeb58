//! `docs/SUMMARY.md`, by which mdBook makes the book.

use std::collections::BTreeSet;
use std::path::Path;

use super::shown;
use crate::documentation::{assert_none, links, markdown};

const SUMMARY: &str = "docs/SUMMARY.md";

/// The pages that the summary lists.
pub(super) fn listed() -> BTreeSet<String> {
    let links = links(Path::new(SUMMARY));
    let count = links.len();
    let pages: BTreeSet<String> = links.iter().map(|link| format!("docs/{link}")).collect();
    assert_eq!(pages.len(), count, "a page is listed twice: {links:?}");
    pages
}

#[test]
fn summary_lists_every_page() {
    let there: BTreeSet<String> = markdown("docs", true)
        .iter()
        .map(|page| shown(page))
        .filter(|page| page != SUMMARY)
        .collect();
    let missing: Vec<String> = there.difference(&listed()).cloned().collect();
    assert_none(&missing, "pages that docs/SUMMARY.md does not list");
}

/// mdBook copies only what is in `docs`, so a link to anything else would lead nowhere in the book.
#[test]
fn pages_link_to_pages_of_the_book_only() {
    let listed = listed();
    let mut outside = Vec::new();
    for page in &listed {
        let folder = Path::new(page).parent().unwrap();
        for link in links(Path::new(page)) {
            let file = link.split('#').next().unwrap_or_default();
            let target = normal(&shown(&folder.join(file)));
            if !file.is_empty() && !listed.contains(&target) {
                outside.push(format!("{page}: {link}"));
            }
        }
    }
    assert_none(&outside, "links that lead out of the book");
}

/// A path without `..`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}
