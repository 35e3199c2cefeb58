//! The pure rooms are pure: nothing in them can reach a client, a clock, chance, the environment or a
//! log.

use std::path::Path;

/// The rooms, as files or folders of `src`.
const PURE: [&str; 8] = [
    "names.rs",
    "api",
    "authority.rs",
    "desired",
    "inject",
    "switching",
    "restart",
    "status",
];

/// What no line of a pure room may name, outside tests.
const BANNED: [&str; 15] = [
    "tokio",
    "async ",
    ".await",
    "kube::Client",
    "kube::client",
    "kube::Api",
    "kube::runtime",
    "Timestamp::now",
    "SystemTime",
    "Instant::now",
    "std::env",
    "std::fs",
    "std::net",
    "tracing::",
    "rand::",
];

#[test]
fn no_pure_room_names_a_client_a_clock_or_the_runtime() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for room in PURE {
        collect(&src.join(room), &mut files);
    }
    assert!(
        files.len() > 20,
        "the walk found the rooms: {}",
        files.len()
    );
    let mut found = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for banned in BANNED.iter().filter(|banned| line.contains(**banned)) {
                found.push(format!("{}:{}: {banned}", file.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_agent_and_the_test_bed_know_nothing_of_the_operator_or_its_client() {
    for package in ["agent", "testbed"] {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(package)
            .join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        for banned in ["kube", "k8s-openapi", "otelagent-operator"] {
            assert!(
                !text.lines().any(|line| line.starts_with(banned)),
                "{package} depends on {banned}"
            );
        }
    }
}

fn collect(path: &Path, files: &mut Vec<std::path::PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            collect(&entry.unwrap().path(), files);
        }
    } else {
        files.push(path.to_owned());
    }
}
