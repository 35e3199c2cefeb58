//! Fields that an installed CRD of an older release lacks.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where a CRD has its schema.
const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

/// The fields of this release's CRD that an installed one has not, such as `status.delivery`; of an object that is
/// lacking, its fields are not told.
pub fn lacking(installed: &Value, own: &Value) -> Vec<String> {
    let mut lacking = BTreeSet::new();
    let schema = |crd: &Value| crd.pointer(SCHEMA).cloned().unwrap_or_default();
    compare("", &schema(installed), &schema(own), &mut lacking);
    lacking.into_iter().collect()
}

fn compare(path: &str, installed: &Value, own: &Value, lacking: &mut BTreeSet<String>) {
    let properties = own["properties"].as_object().into_iter().flatten();
    for (name, field) in properties {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match installed["properties"].get(name) {
            Some(installed) => compare(&path, installed, field, lacking),
            None => drop(lacking.insert(path)),
        }
    }
    if let Some(items) = own.get("items") {
        compare(path, &installed["items"], items, lacking);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_an_older_crd_are_named_from_the_outside() {
        let own: Value = serde_saphyr::from_str(&otelagent_api::crd_yaml().unwrap()).unwrap();
        assert_eq!(lacking(&own, &own), [""; 0]);
        let mut older = own.clone();
        let schema = older.pointer_mut(SCHEMA).unwrap();
        let remove = |of: &mut Value, name: &str| {
            let properties = of["properties"].as_object_mut().unwrap();
            properties.remove(name).unwrap();
        };
        remove(&mut schema["properties"]["status"], "delivery");
        remove(
            &mut schema["properties"]["status"]["properties"]["pods"],
            "orphaned",
        );
        assert_eq!(
            lacking(&older, &own),
            ["status.delivery", "status.pods.orphaned"]
        );
    }
}
