//! Images: the same content gives the same bytes, wherever and whenever they are written.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testbed::image::{ImageSpec, write_index};

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

/// The files of a tar, by path.
fn files(tar: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        files.insert(path, bytes);
    }
    files
}

#[test]
fn index_holds_an_image_for_each_architecture() {
    let dir = scratch("index");
    let images = ["arm64", "amd64"].map(|architecture| {
        let mut spec = spec(&dir);
        spec.architecture = architecture.to_owned();
        let out = dir.join(format!("{architecture}.tar"));
        spec.write(&out).unwrap();
        out
    });
    let out = dir.join("both.tar");
    write_index("bed.local/x:1", &images, &out).unwrap();
    let files = files(&out);
    let json = |path: &str| -> Value { serde_json::from_slice(&files[path]).unwrap() };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        format!("blobs/{digest}")
    };
    let entry = json("index.json")["manifests"][0].clone();
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        "bed.local/x:1"
    );
    let index = json(&blob(&entry));
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2);
    for (manifest, architecture) in manifests.iter().zip(["arm64", "amd64"]) {
        assert_eq!(manifest["platform"]["architecture"], architecture);
        assert_eq!(manifest["platform"]["os"], "linux");
        let image = json(&blob(manifest));
        let config = json(&blob(&image["config"]));
        assert_eq!(config["architecture"], architecture);
        for layer in image["layers"].as_array().unwrap() {
            assert!(files.contains_key(&blob(layer)));
        }
    }
    // The layer of both is there once: an index, two manifests, two configurations, a layer.
    let blobs = files.keys().filter(|path| path.starts_with("blobs/"));
    assert_eq!(blobs.count(), 6);
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
