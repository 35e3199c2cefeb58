//! Images: the same content gives the same bytes, wherever and whenever they are written.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use testbed::image::ImageSpec;

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("testbed-image-{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn spec(dir: &Path) -> ImageSpec {
    let binary = dir.join("binary");
    fs::write(&binary, b"#!/bin/true\n").unwrap();
    ImageSpec {
        name: "bed.local/x:1".to_owned(),
        entrypoint: vec!["/bin/x".to_owned(), "--flag".to_owned()],
        files: vec![
            (binary.clone(), "/bin/x".to_owned()),
            (binary, "/a/b/c".to_owned()),
        ],
        labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        ..ImageSpec::default()
    }
}

#[test]
fn bytes_depend_on_content_alone() {
    let dir = scratch("bytes");
    let mut spec = spec(&dir);
    spec.write(&dir.join("1.tar")).unwrap();
    // Other times, another order, another source name.
    fs::rename(dir.join("binary"), dir.join("other")).unwrap();
    fs::copy(dir.join("other"), dir.join("binary")).unwrap();
    spec.files.reverse();
    spec.write(&dir.join("2.tar")).unwrap();
    assert_eq!(
        fs::read(dir.join("1.tar")).unwrap(),
        fs::read(dir.join("2.tar")).unwrap()
    );
    spec.env.insert("A".to_owned(), "b".to_owned());
    spec.write(&dir.join("3.tar")).unwrap();
    assert_ne!(
        fs::read(dir.join("1.tar")).unwrap(),
        fs::read(dir.join("3.tar")).unwrap()
    );
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn unusable_names_and_paths_are_refused() {
    let dir = scratch("refused");
    let good = spec(&dir);
    let out = dir.join("x.tar");
    for name in ["", "bed.local/x", ":1", "x:", "host:5000/x"] {
        let spec = ImageSpec {
            name: name.to_owned(),
            ..good.clone()
        };
        assert_eq!(spec.write(&out).unwrap_err().reason(), "Invalid", "{name}");
    }
    for target in ["", "/", "bin/x", "/../x", "/a//b"] {
        let files = vec![(dir.join("binary"), target.to_owned())];
        let spec = ImageSpec {
            files,
            ..good.clone()
        };
        assert_eq!(
            spec.write(&out).unwrap_err().reason(),
            "Invalid",
            "{target}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}
