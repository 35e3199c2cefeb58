//! Reading the API server as plain JSON.

use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::time::sleep;

/// Attempts of a read.
const ATTEMPTS: usize = 4;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// One object or list by its path; `Null` if the server has none. A broken connection is tried again: a busy
/// machine is no finding.
///
/// # Errors
/// Every other failure, as text.
pub(crate) async fn get(client: &Client, path: &str) -> Result<Value, String> {
    for _ in 1..ATTEMPTS {
        match attempt(client, path).await {
            Err(kube::Error::Api(status)) => return Err(format!("{path}: {status}")),
            Err(_) => sleep(PAUSE).await,
            Ok(value) => return Ok(value),
        }
    }
    attempt(client, path)
        .await
        .map_err(|error| format!("{path}: {error}"))
}

async fn attempt(client: &Client, path: &str) -> Result<Value, kube::Error> {
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Value::Null),
        outcome => outcome,
    }
}

/// A request with a body, or without one if that is `Null`. Patches are merge patches.
///
/// # Errors
/// If the path is malformed.
pub(crate) fn request(
    method: http::Method,
    path: &str,
    body: &Value,
) -> http::Result<http::Request<Vec<u8>>> {
    let kind = if method == http::Method::PATCH {
        "application/merge-patch+json"
    } else {
        "application/json"
    };
    let body = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(body)
}

/// Objects of a list.
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

/// Text at a JSON pointer; empty if there is none.
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

/// Whether a pod or a node is Ready.
pub(super) fn is_ready(object: &Value) -> bool {
    items(&object["status"]["conditions"])
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether a pod has run to its end.
pub(super) fn is_finished(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether an object is being deleted.
pub(super) fn is_terminating(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Whether a pod has not run to its end and is not being deleted.
pub(super) fn is_live(pod: &Value) -> bool {
    !is_finished(pod) && !is_terminating(pod)
}

/// The items of an array; none of anything else.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
