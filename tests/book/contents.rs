//! `docs/SUMMARY.md`, by which mdBook makes the book, and the picture of README and book.

use std::collections::BTreeSet;
use std::path::Path;

use otelagent_api::Mode;
use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

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

/// Pictures of the book, which mdBook copies.
fn is_picture(target: &str) -> bool {
    target.starts_with("docs/images/") && repository().join(target).is_file()
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
            if !file.is_empty() && !listed.contains(&target) && !is_picture(&target) {
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

/// Those who see the picture, in light and in dark, and those who do not learn the same.
#[test]
fn picture_and_what_stands_for_it_name_every_mode() {
    let picture = text("docs/images/overview.svg");
    assert!(picture.contains("(prefers-color-scheme: dark)"));
    let alternative = |page: &str, link: &str| {
        let text = text(page);
        let (before, _) = text.split_once(&format!("]({link})")).expect("the picture");
        before.rsplit_once("![").expect("an image").1.to_owned()
    };
    let readme = alternative("README.md", "docs/images/overview.svg");
    let concepts = alternative("docs/concepts.md", "images/overview.svg");
    let description = picture.split("<desc").nth(1).unwrap_or_default();
    let description = description.split("</desc>").next().unwrap_or_default();
    let drawn = picture.split("</style>").nth(1).unwrap_or_default();
    for mode in Mode::ALL {
        for place in [readme.as_str(), &concepts, description, drawn] {
            assert!(place.contains(mode.as_str()), "{mode:?} in {place}");
        }
    }
}
