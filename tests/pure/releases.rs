//! What each release renders, in hashes. An upgrade of the operator must not restart agents or make pods stale unless
//! `docs/upgrading.md` says so and why.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use otelagent_core::build::validate;

use super::{agent, daemon_set, desired, environment};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const UPGRADING: &str = include_str!("../../docs/upgrading.md");

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pure/releases")
}

/// One line for each fixture: hash of the agents' template, what selects them, hash of the recipe.
fn rendered() -> String {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pure/fixtures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let mut text = String::new();
    for path in paths {
        let yaml = std::fs::read_to_string(&path).unwrap();
        let valid = validate(&agent(&yaml), &environment()).expect("a valid fixture");
        let desired = desired(&valid);
        let spec = daemon_set(&desired).and_then(|set| set.spec.clone());
        let template = spec.map_or_else(
            || "none".to_owned(),
            |spec| {
                let selects = spec.selector.match_labels.unwrap_or_default();
                let selects: Vec<String> =
                    selects.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("{} ({})", desired.template, selects.join(","))
            },
        );
        writeln!(
            text,
            "{}: agents {template}, recipe {}",
            path.file_stem().unwrap().display(),
            desired.recipe.hash()
        )
        .unwrap();
    }
    text
}

/// Releases by version, as numbers, so that 0.10 comes after 0.9.
fn pinned() -> BTreeMap<Vec<u64>, String> {
    let version = |path: &PathBuf| {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        stem.split('.').map(|part| part.parse().unwrap()).collect()
    };
    std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (version(&path), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn this_release_renders_what_is_pinned_for_it() {
    let path = folder().join(format!("{VERSION}.txt"));
    if std::env::var_os("OTELAGENT_PIN_RELEASE").is_some() {
        std::fs::write(&path, rendered()).unwrap();
    }
    let pinned = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        rendered(),
        pinned,
        "what this release renders has changed: agents would be replaced, or pods become stale. If that is meant, run \
         `make pin-release` and say why in docs/upgrading.md"
    );
}

#[test]
fn upgrade_notes_name_releases_that_render_differently() {
    let releases = pinned();
    for (before, after) in releases.iter().zip(releases.iter().skip(1)) {
        let words: Vec<String> = after.0.iter().map(u64::to_string).collect();
        let heading = format!("## {}", words.join("."));
        let is_named = UPGRADING.lines().any(|line| line == heading);
        assert!(
            is_named || before.1 == after.1,
            "docs/upgrading.md has no section `{heading}` though its agents or recipes differ"
        );
    }
    let this: Vec<u64> = VERSION
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    assert!(releases.contains_key(&this), "{VERSION} is not pinned");
}
