//! What the README and the pages of `docs` refer to exists: files, functions, headings, condition reasons.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

/// The pages, as paths in the repository: those at its top, and those of `docs` and its folders.
fn pages() -> Vec<PathBuf> {
    let mut pages = markdown("", false);
    pages.extend(markdown("docs", true));
    pages.sort();
    assert!(pages.len() > 20, "{pages:?}");
    pages
}

/// The pages of a folder, as paths in the repository.
pub(crate) fn markdown(folder: impl AsRef<Path>, with_folders: bool) -> Vec<PathBuf> {
    let folder = folder.as_ref();
    let mut pages = Vec::new();
    for entry in fs::read_dir(repository().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if with_folders && entry.path().is_dir() {
            pages.extend(markdown(&path, true));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages
}

/// A page without its blocks of code.
pub(crate) fn prose(page: &Path) -> String {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    text.split("\n```").step_by(2).collect()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .replace(' ', "-")
        .chars()
        .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
        .collect::<String>();
    kept.trim_matches('-').to_owned()
}

fn has_anchor(page: &Path, wanted: &str) -> bool {
    let text = fs::read_to_string(page).unwrap_or_default();
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#').trim()));
    anchors.any(|found| found == wanted)
}

/// Fails with every finding at once.
pub(crate) fn assert_none(findings: &[String], what: &str) {
    assert!(findings.is_empty(), "{what}:\n{}", findings.join("\n"));
}

/// The targets of a page's links, without those to other sites.
pub(crate) fn links(page: &Path) -> Vec<String> {
    let text = prose(page);
    let links = text.split("](").skip(1);
    let links = links.map(|rest| rest.split(')').next().unwrap_or_default().to_owned());
    links
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .collect()
}

#[test]
fn every_relative_link_resolves() {
    let mut broken = Vec::new();
    let mut followed = 0;
    for page in pages() {
        for link in links(&page) {
            followed += 1;
            let (file, heading) = link.split_once('#').unwrap_or((link.as_str(), ""));
            let here = repository().join(&page);
            let target = match file {
                "" => here,
                file => here.parent().unwrap().join(file),
            };
            if !target.exists() || !heading.is_empty() && !has_anchor(&target, heading) {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(followed > 15, "{followed} links");
    assert_none(&broken, "links that lead nowhere");
}

/// Whether a source defines a function, type, constant or module of this name.
fn defines(source: &str, name: &str) -> bool {
    let kinds = [
        "fn", "struct", "enum", "trait", "const", "type", "mod", "static",
    ];
    let after = |found: &str| found.starts_with(|c: char| !c.is_alphanumeric() && c != '_');
    kinds.iter().any(|kind| {
        let definition = format!("{kind} {name}");
        source.split(&definition).skip(1).any(after)
    })
}

/// A reference to a file, and to something in it, if a word in backticks is one: it begins with a folder of
/// the repository.
fn reference(word: &str) -> Option<(&str, Option<&str>)> {
    let (path, item) = match word.split_once("::") {
        Some((path, item)) => (path, Some(item)),
        None => (word, None),
    };
    let (folder, _) = path.split_once('/')?;
    let is_plain = !path.contains(|c: char| c.is_whitespace() || "<>$*(){}:=".contains(c));
    // What is built is there only afterwards.
    let is_source = !folder.is_empty() && folder != "target";
    (is_plain && is_source && repository().join(folder).is_dir()).then_some((path, item))
}

#[test]
fn every_named_file_and_function_exists() {
    let mut missing = Vec::new();
    let mut named = 0;
    for page in pages() {
        let text = prose(&page);
        for (path, item) in text.split('`').skip(1).step_by(2).filter_map(reference) {
            named += 1;
            let file = repository().join(path);
            let exists = match item {
                None => file.exists(),
                Some(item) => defines(&fs::read_to_string(&file).unwrap_or_default(), item),
            };
            if !exists {
                let item = item.map_or_else(String::new, |item| format!("::{item}"));
                missing.push(format!("{}: {path}{item}", page.display()));
            }
        }
    }
    assert!(named > 150, "{named} files are named");
    assert_none(&missing, "named in a page, and not in the repository");
}

#[test]
fn every_named_make_target_exists() {
    let makefile = text("Makefile");
    let mut missing = Vec::new();
    let mut named = 0;
    for page in pages() {
        let text = fs::read_to_string(repository().join(&page)).unwrap();
        let in_text = text.split('`').skip(1).step_by(2);
        for command in in_text.chain(text.lines().map(str::trim)) {
            let Some(rest) = command.strip_prefix("make ") else {
                continue;
            };
            let target = rest.split_whitespace().next().unwrap_or_default();
            named += 1;
            if !makefile.contains(&format!("\n{target}: "))
                && !makefile.contains(&format!("\n{target}:\n"))
            {
                missing.push(format!("{}: make {target}", page.display()));
            }
        }
    }
    assert!(named > 20, "{named} targets");
    assert_none(&missing, "targets that the Makefile does not have");
}

/// The product's source in a file or a folder, without its tests, as one line without white space.
pub(crate) fn source(path: &Path) -> String {
    if path.is_dir() {
        return sources(path).iter().map(|file| source(file)).collect();
    }
    let text = fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]\nmod tests").next();
    product.unwrap_or_default().split_whitespace().collect()
}

/// What a folder holds but for files of tests.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.ends_with("tests.rs")).collect()
}

pub(crate) fn is_reason(word: &str) -> bool {
    word.len() > 3
        && word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_alphabetic())
}

/// The words in quotes that follow a piece of source.
pub(crate) fn after<'a>(source: &'a str, piece: &str) -> BTreeSet<&'a str> {
    let found = source.split(piece).skip(1);
    let words = found.filter_map(|rest| rest.split('"').next());
    words.filter(|word| is_reason(word)).collect()
}

/// The reasons that docs/status.md explains: of conditions, of errors and of events.
pub(crate) fn documented_reasons() -> BTreeSet<String> {
    let page = text("docs/status.md");
    let tables = page
        .split("\n## ")
        .find(|part| part.starts_with("Conditions"))
        .unwrap();
    let events = page
        .split("\n## ")
        .find(|part| part.starts_with("Events"))
        .unwrap();
    let documented: BTreeSet<String> = tables
        .lines()
        .filter(|line| line.starts_with('|'))
        .chain([events])
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|word| is_reason(word))
        .filter(|word| !["Injected", "Ready"].contains(word))
        .map(str::to_owned)
        .collect();
    assert!(documented.len() > 40, "{documented:?}");
    documented
}

#[test]
fn documented_condition_reasons_are_those_of_the_code() {
    let documented = documented_reasons();
    let folders = ["src", "crates/core/src", "crates/webhook/src"]
        .map(|folder| source(&repository().join(folder)));
    let errors = source(&repository().join("src/controller/error.rs"));
    let source = folders.concat();
    let unknown = documented
        .iter()
        .filter(|word| !source.contains(&format!("\"{word}\"")));
    let unknown: Vec<String> = unknown.cloned().collect();
    assert_none(
        &unknown,
        "reasons of docs/status.md that the code does not have",
    );

    let ways = [
        "assess(true,\"",
        "assess(false,\"",
        "reason:\"",
        "failed(\"",
    ];
    let mut given: BTreeSet<&str> = ways.iter().flat_map(|way| after(&source, way)).collect();
    given.extend(after(&errors, "=>\""));
    assert!(given.len() > 40, "{given:?}");
    let silent = given.iter().filter(|word| !documented.contains(**word));
    let silent: Vec<String> = silent.map(ToString::to_string).collect();
    assert_none(
        &silent,
        "reasons of the code that docs/status.md does not explain",
    );
}
