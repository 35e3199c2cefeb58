//! The documents of `-o json` have no field that docs/cli.md does not name.

use std::collections::BTreeSet;

use otelagent_cli::args::Output;
use otelagent_cli::output::API_VERSION;
use otelagent_cli::text::Page;
use otelagent_test_support::manifests::text;
use serde::Serialize;
use serde_json::Value;

use crate::bed::terminal;

/// Fields whose content is somebody else's: objects of Kubernetes, values, modes by name.
const OTHERS: [&str; 5] = ["objects", "before", "after", "modes", "byMode"];

fn fields(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                found.insert(key.clone());
                if !OTHERS.contains(&key.as_str()) {
                    fields(value, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
        _ => {}
    }
}

/// Fails with the fields of a document that the page does not name.
pub(crate) fn is_documented<T: Serialize>(kind: &'static str, answer: &T) {
    let document = terminal(80, Output::Json).render(kind, answer, |_| Page::default());
    let document: Value = serde_json::from_str(&document.unwrap()).unwrap();
    assert_eq!(
        (&document["apiVersion"], &document["kind"]),
        (&API_VERSION.into(), &kind.into())
    );
    let document = serde_json::to_value(answer).unwrap();
    let mut found = BTreeSet::new();
    fields(&document, &mut found);
    assert!(found.len() > 2, "{found:?}");
    let (page, counts) = (text("docs/cli.md"), text("docs/reference/api.md"));
    assert!(page.contains(&format!("| `{kind}` |")));
    found.retain(|field| {
        let named = format!("`{field}`");
        let in_status = format!("`status.{field}");
        !(page.contains(&named) || counts.contains(&named) || counts.contains(&in_status))
    });
    assert!(found.is_empty(), "docs/cli.md does not name {found:?}");
}
