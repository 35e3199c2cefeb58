//! What a release consists of, built as it is released.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::KubernetesVersion;

use crate::test_scale::is_full;

/// The output of a program, which must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn version_names_the_releases_of_kubernetes_that_are_tested() {
    let operator = demo::images::program("otelagent-operator").unwrap();
    let said = output(Command::new(operator).arg("--version"));
    let tested: Vec<&str> = KubernetesVersion::ALL
        .iter()
        .map(|release| release.minor())
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let wanted = format!(
        "otelagent-operator {version}\ntested with Kubernetes {}\n",
        tested.join(", ")
    );
    assert_eq!(said, wanted);
}

/// What follows this text in a file, up to what ends a version.
fn versions_after(text: &str, before: &str) -> Vec<String> {
    let ends = |letter: char| letter.is_whitespace() || "\"`'),;".contains(letter);
    let found = text.match_indices(before);
    found
        .map(|(at, _)| &text[at + before.len()..])
        .map(|rest| rest.split(ends).next().unwrap_or_default().to_owned())
        .filter(|version| version.starts_with(|first: char| first.is_ascii_digit()))
        .collect()
}

#[test]
fn every_file_that_names_the_version_names_this_one() {
    // This workspace's own; make set-version writes both.
    let version = env!("CARGO_PKG_VERSION");
    let read = |file: &str| fs::read_to_string(demo::repository().join(file)).unwrap();
    let product = read("Cargo.toml");
    assert!(product.contains(&format!("\nversion = \"{version}\"\n")));
    let mut found = 0;
    for file in [
        "README.md",
        "manifests/default/operator.yaml",
        "manifests/webhook/webhook.yaml",
    ] {
        let text = read(file);
        for image in ["otelagent/operator:", "otelagent/agent:"] {
            for named in versions_after(&text, image) {
                assert_eq!(named, version, "{file}: {image}");
                found += 1;
            }
        }
    }
    assert!(found >= 3, "{found}");
}

/// A clone of what is committed, built by `make release` in a directory of its own.
fn released(place: &Path) -> PathBuf {
    fs::create_dir_all(place).unwrap();
    let clone = place.join("otelagent");
    let from = demo::repository();
    output(
        Command::new("git")
            .args(["clone", "--quiet"])
            .args([from, &clone]),
    );
    let target = place.join("target");
    output(
        Command::new("make")
            .current_dir(&clone)
            .args(["release", "REGISTRY=registry.example/team"])
            .env("CARGO_TARGET_DIR", &target),
    );
    target.join(format!("release-{}", env!("CARGO_PKG_VERSION")))
}

/// With `make test-full`: it builds both programs for two architectures, twice.
#[test]
fn release_built_twice_in_different_places_is_the_same() {
    if !is_full() {
        return;
    }
    let scratch = std::env::temp_dir().join(format!("release-{}", std::process::id()));
    let release = released(&scratch.join("here"));
    let other = released(&scratch.join("elsewhere/deeper"));
    let sums = |release: &Path| fs::read_to_string(release.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(&release), sums(&other));

    let version = env!("CARGO_PKG_VERSION");
    let mut wanted: Vec<String> = ["crds", "webhook", "restart"]
        .map(|part| format!("otelagent-{part}.yaml"))
        .into();
    wanted.push("otelagent.yaml".to_owned());
    for name in ["agent", "operator"] {
        wanted.extend(["amd64", "arm64"].map(|on| format!("otelagent-{name}-linux-{on}")));
        wanted.push(format!("otelagent-{name}-{version}.oci.tar"));
        wanted.push(format!("otelagent-{name}-{version}.spdx.json"));
    }
    let sums = sums(&release);
    for file in &wanted {
        assert!(sums.contains(&format!("  {file}\n")), "{file} in {sums}");
    }
    for name in ["agent", "operator"] {
        let bill = fs::read(release.join(format!("otelagent-{name}-{version}.spdx.json"))).unwrap();
        let bill: serde_json::Value = serde_json::from_slice(&bill).unwrap();
        assert_eq!(bill["spdxVersion"], "SPDX-2.3");
        let packages = bill["packages"].as_array().unwrap();
        assert!(packages.iter().any(|package| package["name"] == "tokio"));
    }
    let installed = fs::read_to_string(release.join("otelagent.yaml")).unwrap();
    for name in ["agent", "operator"] {
        let image = format!("registry.example/team/{name}:{version}");
        assert!(installed.contains(&image), "{image}");
    }
    fs::remove_dir_all(scratch).unwrap();
}
