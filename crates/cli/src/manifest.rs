//! Reads manifests: YAML or JSON, one object or several, lists too.

use std::io::Read;
use std::path::Path;

use otelagent_api::OtelAgent;
use serde_json::Value;

use crate::error::CliError;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// The objects of a file; `-` is standard input.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn objects(file: &Path) -> Result<Vec<Value>, CliError> {
    let name = file.display();
    let unreadable =
        |error: std::io::Error| CliError::Usage(format!("{name} cannot be read: {error}"));
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_FILE)
            .read_to_string(&mut text)
    } else {
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(MAX_FILE).read_to_string(&mut text)
    };
    read.map_err(unreadable)?;
    parse(&text).map_err(|why| CliError::Usage(format!("{name}: {why}")))
}

/// The `OtelAgent`s of a file; those without a namespace get `namespace`.
///
/// # Errors
/// If it cannot be read, holds none, or one that is no `OtelAgent` of this version.
pub fn otelagents(file: &Path, namespace: &str) -> Result<Vec<OtelAgent>, CliError> {
    let name = file.display();
    let mut agents = Vec::new();
    for object in objects(file)?
        .into_iter()
        .filter(|object| object["kind"] == "OtelAgent")
    {
        let read: Result<OtelAgent, _> = serde_json::from_value(object);
        let mut agent =
            read.map_err(|error| CliError::Usage(format!("{name}: OtelAgent: {error}")))?;
        agent
            .metadata
            .namespace
            .get_or_insert_with(|| namespace.to_owned());
        agents.push(agent);
    }
    if agents.is_empty() {
        return Err(CliError::Usage(format!("{name} has no OtelAgent")));
    }
    Ok(agents)
}

fn parse(text: &str) -> Result<Vec<Value>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut objects = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(ref fields) if fields.get("items").is_some_and(Value::is_array) => {
                let items = fields["items"].as_array().into_iter().flatten();
                objects.extend(items.cloned());
            }
            Value::Object(ref fields) if fields.get("kind").is_some_and(Value::is_string) => {
                objects.push(document);
            }
            _ => return Err("a document is no Kubernetes object: it has no kind".into()),
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_read_and_empty_ones_are_skipped() {
        let text = "# first\n---\nkind: Pod\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems: [{kind: Pod}]\n";
        let kinds: Vec<String> = parse(text)
            .unwrap()
            .iter()
            .map(|one| one["kind"].to_string())
            .collect();
        assert_eq!(kinds, ["\"Pod\"", "\"Pod\""]);
        assert_eq!(parse(r#"{"kind": "Pod"}"#).unwrap().len(), 1);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["a: 1", "[1, 2]", "kind: [", "just words"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
