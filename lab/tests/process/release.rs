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

/// The files that `make set-version` writes, but for locks.
fn versioned() -> Vec<String> {
    let makefile = fs::read_to_string(demo::repository().join("Makefile")).unwrap();
    let (_, after) = makefile.split_once("\nVERSIONED := ").expect("the list");
    let (list, _) = after.split_once("\n\n").expect("its end");
    let words = list.split_whitespace().filter(|word| *word != "\\");
    words.map(str::to_owned).collect()
}

/// Where people and clusters find names of images and of their files.
const NAMING: [&str; 8] = [
    "README.md",
    "Dockerfile",
    "charts",
    "crds",
    "docs",
    "gitops",
    "manifests",
    "packaging",
];

/// It speaks of the release that comes next.
const OF_THE_NEXT: &str = "docs/releasing.md";

#[test]
fn every_file_that_names_the_version_names_this_one() {
    // This workspace's own; make set-version writes both.
    let version = env!("CARGO_PKG_VERSION");
    let read = |file: &str| fs::read_to_string(demo::repository().join(file)).unwrap();
    let product = read("Cargo.toml");
    assert!(product.contains(&format!("\nversion = \"{version}\"\n")));
    let versioned = versioned();
    let listed = output(
        Command::new("git")
            .current_dir(demo::repository())
            .arg("ls-files")
            .args(NAMING),
    );
    let mut found = 0;
    for file in listed.lines().filter(|file| *file != OF_THE_NEXT) {
        // A file may be removed and not committed yet.
        let Ok(text) = fs::read_to_string(demo::repository().join(file)) else {
            continue;
        };
        for name in ["operator", "agent"] {
            for before in [format!("otelagent/{name}:"), format!("otelagent-{name}-")] {
                for named in versions_after(&text, &before) {
                    assert_eq!(named.trim_end_matches(".tar"), version, "{file}: {before}");
                    let is_written = versioned.iter().any(|one| one == file);
                    assert!(is_written, "make set-version leaves {file} as it is");
                    found += 1;
                }
            }
        }
    }
    assert!(found >= 8, "{found}");
    for lock in [
        "Cargo.lock",
        "lab/Cargo.lock",
        "lab/apps/Cargo.lock",
        "agent/fuzz/Cargo.lock",
    ] {
        let text = read(lock);
        for package in text.split("[[package]]").skip(1) {
            let is = |name: &str| package.contains(&format!("\nname = \"{name}\"\n"));
            if ["otelagent-agent", "otelagent-flow", "testbed"]
                .iter()
                .any(|name| is(name))
            {
                let wanted = format!("\nversion = \"{version}\"\n");
                assert!(package.contains(&wanted), "{lock}: {package}");
            }
        }
    }
}

/// What a program says when it fails.
fn refusal(command: &mut Command) -> String {
    let output = command.current_dir(demo::repository()).output().unwrap();
    assert!(!output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn make_refuses_wrong_versions_and_registries_before_it_does_anything() {
    for wrong in ["", "0.2", "v0.2.0", "0.2.0+b", "0.2.0 x", "01.2.0", "a/b"] {
        let new = format!("NEW={wrong}");
        let said = refusal(Command::new("make").args(["set-version", &new]));
        assert!(said.contains("is no version"), "{wrong}: {said}");
    }
    for wrong in ["https://registry.example.com/a", "a b", "a/B", "a//b", "/a"] {
        for target in ["release", "images-push"] {
            let registry = format!("REGISTRY={wrong}");
            let said = refusal(Command::new("make").args([target, &registry]));
            assert!(said.contains("is no registry"), "{wrong}: {said}");
        }
    }
    let said = refusal(Command::new("make").args(["images-push", "REGISTRY="]));
    assert!(said.contains("REGISTRY names the registry"), "{said}");
    for right in [
        "new-version NEW=1.20.3-rc.1",
        "registry-name REGISTRY=[::1]:5000/a-b/c/",
    ] {
        output(
            Command::new("make")
                .current_dir(demo::repository())
                .args(right.split(' ')),
        );
    }
}

/// A comma in what `make` is given to print cuts a recipe in two.
#[test]
fn every_recipe_of_make_is_a_program_of_the_shell() {
    let repository = demo::repository();
    let makefile = fs::read_to_string(repository.join("Makefile")).unwrap();
    let phony = makefile
        .lines()
        .filter_map(|line| line.strip_prefix(".PHONY: "));
    let targets: Vec<&str> = phony.flat_map(str::split_whitespace).collect();
    assert!(targets.len() > 30, "{targets:?}");
    for target in targets {
        let mut make = Command::new("make");
        let make = make.current_dir(repository).args(["--dry-run", target]);
        let recipe = output(make.args(["REGISTRY=registry.example/team", "NEW=1.2.3"]));
        output(Command::new("bash").args(["-n", "-c", &recipe]));
    }
}

/// A release is made anew in its directory, which somebody may have named by mistake.
#[test]
fn release_empties_no_directory_of_anything_else() {
    let home = std::env::temp_dir().join(format!("no-release-{}", std::process::id()));
    let inner = home.join("otelagent");
    fs::create_dir_all(&inner).unwrap();
    for foreign in ["otelagent", "notes.txt"] {
        if foreign == "notes.txt" {
            fs::remove_dir(&inner).unwrap();
            fs::write(home.join(foreign), "mine").unwrap();
        }
        let said = refusal(Command::new("packaging/release").arg(&home));
        assert!(said.contains("is no directory of a release"), "{said}");
        assert!(home.join(foreign).exists());
    }
    fs::remove_dir_all(home).unwrap();
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

/// With `make test-full`: it builds all programs for two architectures, twice.
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
    let chart = format!("otelagent-{version}.tgz");
    wanted.push(chart.clone());
    for name in ["agent", "operator"] {
        wanted.extend(["amd64", "arm64"].map(|on| format!("otelagent-{name}-linux-{on}")));
        wanted.push(format!("otelagent-{name}-{version}.oci.tar"));
        wanted.push(format!("otelagent-{name}-{version}.spdx.json"));
    }
    wanted.extend(["amd64", "arm64"].map(|on| format!("kubectl-otelagent-linux-{on}.tar.gz")));
    wanted.push("otelagent-krew.yaml".to_owned());
    let sums = sums(&release);
    for file in &wanted {
        assert!(sums.contains(&format!("  {file}\n")), "{file} in {sums}");
    }
    let plugin = fs::read_to_string(release.join("otelagent-krew.yaml")).unwrap();
    assert!(
        !plugin.contains('@') && plugin.contains(&format!("version: v{version}\n")),
        "{plugin}"
    );
    for name in ["agent", "operator", "cli"] {
        let bill = fs::read(release.join(format!("otelagent-{name}-{version}.spdx.json"))).unwrap();
        let bill: serde_json::Value = serde_json::from_slice(&bill).unwrap();
        assert_eq!(bill["spdxVersion"], "SPDX-2.3");
        let packages = bill["packages"].as_array().unwrap();
        assert!(packages.iter().any(|package| package["name"] == "tokio"));
    }
    let values = output(Command::new("tar").current_dir(&release).args([
        "--extract",
        "--to-stdout",
        "--file",
        &chart,
        "otelagent/values.yaml",
    ]));
    for name in ["agent", "operator"] {
        let image = format!("repository: registry.example/team/{name}\n");
        assert!(values.contains(&image), "{values}");
    }
    let installed = fs::read_to_string(release.join("otelagent.yaml")).unwrap();
    for name in ["agent", "operator"] {
        let image = format!("registry.example/team/{name}:{version}");
        assert!(installed.contains(&image), "{image}");
    }
    fs::remove_dir_all(scratch).unwrap();
}
