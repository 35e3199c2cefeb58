//! What must be so of the code, its dependencies and how it is built (part 6.5 of the checklist).

use super::yaml::{repository, shipped_of, text};

#[test]
fn no_package_has_unsafe_code_of_its_own() {
    for workspace in ["Cargo.toml", "apps/Cargo.toml"] {
        let lints = text(workspace);
        assert!(
            lints.contains("[workspace.lints.rust]\nunsafe_code = \"forbid\""),
            "{workspace}"
        );
    }
    // Fuzz targets are not shipped, and their macro exports a symbol.
    for package in [
        "Cargo.toml",
        "agent/Cargo.toml",
        "testbed/Cargo.toml",
        "demo/Cargo.toml",
        "demo/agent/Cargo.toml",
        "benches/agent/Cargo.toml",
        "apps/ledger/Cargo.toml",
        "apps/rust-sdk/Cargo.toml",
    ] {
        assert!(
            text(package).contains("[lints]\nworkspace = true"),
            "{package}"
        );
    }
}

#[test]
fn dependencies_come_from_one_registry_and_what_is_unsound_or_doubled_is_banned() {
    let deny = text("deny.toml");
    for line in [
        "unknown-registry = \"deny\"",
        "unknown-git = \"deny\"",
        "yanked = \"deny\"",
        "wildcards = \"deny\"",
        "multiple-versions = \"deny\"",
    ] {
        assert!(deny.lines().any(|found| found == line), "{line}");
    }
    for banned in [
        "openssl",
        "native-tls",
        "aws-lc-rs",
        "rustls-pemfile",
        "serde_yml",
        "protobuf",
        "paste",
    ] {
        assert!(deny.contains(&format!("crate = \"{banned}\"")), "{banned}");
    }
    assert!(
        text("Makefile").contains("--locked check --hide-inclusion-graph bans licenses sources")
    );
    for lock in ["Cargo.lock", "apps/Cargo.lock", "agent/fuzz/Cargo.lock"] {
        for source in text(lock)
            .lines()
            .filter_map(|line| line.strip_prefix("source = "))
        {
            assert_eq!(
                source, "\"registry+https://github.com/rust-lang/crates.io-index\"",
                "{lock}"
            );
        }
    }
}

#[test]
fn releases_are_built_locked_checked_for_overflow_and_by_one_toolchain() {
    let profile = text("Cargo.toml");
    assert!(profile.contains("[profile.release]") && profile.contains("overflow-checks = true"));
    for file in ["Makefile", "Dockerfile"] {
        let text = text(file).replace("\\\n", " ");
        let builds = text
            .lines()
            .filter(|line| line.contains("build --release") || line.contains("build --profile"));
        for line in builds.filter(|line| !line.contains("agent-demo")) {
            assert!(line.contains("--locked"), "{file}: {line}");
        }
    }
    let channel = text("rust-toolchain.toml");
    let channel = channel
        .lines()
        .find_map(|line| line.strip_prefix("channel = "));
    let digits = channel.unwrap().trim_matches('"').split('.').count();
    assert_eq!(digits, 3, "an exact version");
}

/// With `panic = "abort"` one pod or one `OtelAgent` that makes the program panic ends the replica for all.
#[test]
fn a_panic_ends_one_answer_and_not_the_process_in_what_is_shipped() {
    let profiles = text("Cargo.toml");
    let profile = profiles
        .split("[profile.operator]\n")
        .nth(1)
        .expect("a profile of the operator");
    let profile = profile.split("\n[").next().unwrap();
    assert!(
        profile.contains("inherits = \"release\"") && profile.contains("panic = \"unwind\""),
        "{profile}"
    );
    for file in ["Makefile", "Dockerfile", "demo/src/images.rs"] {
        assert!(
            text(file).contains("operator/otelagent-operator")
                || text(file).contains("\"operator\""),
            "{file}"
        );
    }
}

#[test]
fn images_have_a_version_no_shell_and_no_root() {
    let file = text("Dockerfile");
    let last: Vec<&str> = file.split("\nFROM scratch AS ").skip(1).collect();
    assert_eq!(last.len(), 2);
    for stage in last {
        assert!(
            stage.contains("USER 65532:65532") && !stage.contains("\nRUN "),
            "{stage}"
        );
    }
    for line in file.lines().filter(|line| line.starts_with("FROM ")) {
        assert!(!line.contains(":latest"), "{line}");
    }
    for deployment in shipped_of("Deployment") {
        let containers = deployment["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap();
        for container in containers {
            let image = container["image"].as_str().unwrap();
            let tag = image.rsplit(':').next().unwrap();
            assert_eq!(tag, env!("CARGO_PKG_VERSION"), "{image}");
        }
    }
}

#[test]
fn whoever_finds_a_hole_is_told_where_to_say_so() {
    let page = text("SECURITY.md");
    for word in ["privately", "Supported versions", "docs/security.md"] {
        assert!(page.contains(word), "{word}");
    }
    assert!(repository().join("docs/security.md").is_file());
}
