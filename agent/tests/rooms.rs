//! The walls between rooms: what the pure ones may not know, and how large any file may grow.

use std::path::{Path, PathBuf};

fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room);
    let files = if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .collect()
    } else {
        vec![path]
    };
    files
        .into_iter()
        .map(|file| (file.clone(), std::fs::read_to_string(file).unwrap()))
        .collect()
}

/// Every source file, in whatever folder.
fn everything() -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn pure_rooms_know_no_network_clock_file_or_environment() {
    let banned = [
        "tokio",
        "hyper",
        "std::net",
        "std::fs",
        "std::env",
        "Instant",
        "SystemTime",
        "fastrand",
        "tracing",
        "println!",
    ];
    for room in [
        "config",
        "config/schema",
        "scan",
        "json",
        "merge.rs",
        "segment",
        "frame.rs",
        "rpc_status.rs",
        "export/retry.rs",
    ] {
        for (file, text) in sources(room) {
            for word in banned {
                assert!(!text.contains(word), "{} knows {word}", file.display());
            }
        }
    }
}

#[test]
fn the_agent_knows_nothing_of_kubernetes() {
    for (file, text) in everything() {
        let mentions = text.lines().filter(|line| !line.starts_with("//!"));
        for line in mentions {
            let line = line.to_lowercase();
            assert!(
                !line.contains("kube") && !line.contains("k8s"),
                "{}: {line}",
                file.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    for (file, text) in everything() {
        assert!(
            text.starts_with("//! "),
            "{} does not say what it is for",
            file.display()
        );
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}
