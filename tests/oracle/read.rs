//! Reading the API server as plain JSON.

use kube::Client;
use serde_json::Value;

/// One object or list by its path; `Null` where it is not found.
///
/// # Errors
/// Every other failure, as text.
pub(crate) async fn get(client: &Client, path: &str) -> Result<Value, String> {
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    match client.request::<Value>(request).await {
        Ok(value) => Ok(value),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Value::Null),
        Err(error) => Err(format!("{path}: {error}")),
    }
}

/// Items of a list.
///
/// # Errors
/// As [`get`].
pub(crate) async fn list(client: &Client, path: &str) -> Result<Vec<Value>, String> {
    let mut found = get(client, path).await?;
    Ok(match found["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    })
}

/// Text at a JSON pointer, empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A label.
pub(super) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// Whether a pod or node says that it is Ready.
pub(super) fn is_ready(object: &Value) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|all| {
            all.iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
}

/// Whether a pod is neither finished nor about to be.
pub(super) fn is_live(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether an object is being deleted.
pub(super) fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}
