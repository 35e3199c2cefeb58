//! The API: the `OtelAgent` object, its schema and its status.
//!
//! This crate defines types, bounds and the rules that an API server can check. What a field does is decided
//! in `otelagent-core`.

mod affinity;
mod mode;
mod rules;
mod selector;
mod spec;
mod start_gate;
mod status;

pub use affinity::*;
pub use mode::Mode;
pub use selector::{Operator, Requirement, Selector};
pub use spec::*;
pub use start_gate::{StartGate, StartGateType};
pub use status::*;

// Re-exported so that other crates can read objects and durations without the client crate.
pub use kube::core as kube_core;
pub use kube::core::Duration as KubeDuration;
pub use kube::{Resource, ResourceExt};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// Where a schema has its status.
const STATUS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status";

/// The `CustomResourceDefinition` as YAML, as `crds/` ships it. Line breaks of the source are removed from
/// descriptions, since `kubectl explain` would print them. An object that no operator has seen has a status that says
/// so, or kstatus would take it for ready.
///
/// # Errors
/// If the derived definition does not serialize.
pub fn crd_yaml() -> Result<String, Box<dyn std::error::Error>> {
    let mut crd = serde_json::to_value(OtelAgent::crd())?;
    unwrap_descriptions(&mut crd);
    if let Some(status) = crd.pointer_mut(STATUS) {
        status["default"] = json!({"observedGeneration": -1});
    }
    let crd: CustomResourceDefinition = serde_json::from_value(crd)?;
    Ok(serde_saphyr::to_string(&crd)?)
}

fn unwrap_descriptions(value: &mut Value) {
    if let Some(Value::String(text)) = value.get_mut("description") {
        let paragraphs = text.split("\n\n");
        let unwrapped = paragraphs.map(|paragraph| paragraph.replace('\n', " ").replace('`', ""));
        *text = unwrapped.collect::<Vec<_>>().join("\n\n");
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(unwrap_descriptions),
        Value::Array(items) => items.iter_mut().for_each(unwrap_descriptions),
        _ => {}
    }
}
