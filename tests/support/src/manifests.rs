//! What is shipped, read as YAML.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// A file of the repository.
pub fn text(path: &str) -> String {
    std::fs::read_to_string(crate::repository().join(path))
        .unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Every object of every manifest that is installed: all but the samples.
pub fn shipped() -> Vec<Value> {
    let mut files = Vec::new();
    collect(&crate::repository().join("manifests"), &mut files);
    files.sort();
    let files = files.into_iter().filter(|file| {
        let text = file.to_string_lossy();
        !text.contains("/samples/") && !text.ends_with("kustomization.yaml")
    });
    let objects: Vec<Value> = files
        .flat_map(|file| objects(&std::fs::read_to_string(file).unwrap()))
        .collect();
    assert!(objects.len() > 30, "{} objects", objects.len());
    objects
}

/// Those of one kind.
pub fn shipped_of(kind: &str) -> Vec<Value> {
    let mut objects = shipped();
    objects.retain(|object| object["kind"] == kind);
    assert!(!objects.is_empty(), "no {kind}");
    objects
}

/// The documents of one file.
pub fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n");
    documents
        .map(|document| {
            serde_saphyr::from_str(document).unwrap_or_else(|why| panic!("{why}: {document}"))
        })
        .collect()
}

/// The blocks of YAML of a page of the documentation.
pub fn yaml_blocks(page: &str) -> Vec<String> {
    let blocks = page.split("```yaml\n").skip(1);
    blocks
        .filter_map(|rest| rest.split("```").next().map(str::to_owned))
        .collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            files.push(path);
        }
    }
}

/// The strings of a list.
pub fn words(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}
