//! Pure. What users write and read: the `OtelAgent` object, its schema and its status.
//!
//! Only shapes, bounds and the rules an API server can check by itself. What a field makes happen is
//! decided in `desired` and `switching`, which this room must not know.

mod mode;
mod rules;
mod selector;
mod spec;
mod status;

pub use mode::Mode;
pub use selector::{Operator, Requirement, Selector};
pub use spec::*;
pub use status::*;

// What reads an object and its durations, so that pure crates need no crate that can also be a client.
pub use kube::ResourceExt;
pub use kube::core::Duration as KubeDuration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The `CustomResourceDefinition` as it is shipped. Descriptions are unwrapped: a source file's line
/// breaks would otherwise stand in the middle of `kubectl explain`.
///
/// # Errors
/// When the derived definition does not serialize, which a test would show first.
pub fn crd_yaml() -> Result<String, Box<dyn std::error::Error>> {
    let mut crd = serde_json::to_value(OtelAgent::crd())?;
    unwrap_descriptions(&mut crd);
    let crd: CustomResourceDefinition = serde_json::from_value(crd)?;
    Ok(serde_saphyr::to_string(&crd)?)
}

fn unwrap_descriptions(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match value {
                    serde_json::Value::String(text) if key == "description" => {
                        *text = text
                            .split("\n\n")
                            .map(|paragraph| paragraph.replace('\n', " ").replace('`', ""))
                            .collect::<Vec<_>>()
                            .join("\n\n");
                    }
                    other => unwrap_descriptions(other),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}
