//! Reads and extends JSON objects whose fields may be absent or null.
//!
//! Nothing here fails: a value of an unexpected type counts as absent.

use serde_json::{Map, Value};

/// The list at a key, or an empty one.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The string at a key, or an empty one; Go's `omitempty` does not distinguish them either.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The value of a key of a map of strings, such as labels, two levels down.
pub fn entry<'a>(value: &'a Value, path: [&str; 2], key: &str) -> Option<&'a str> {
    value.get(path[0])?.get(path[1])?.get(key)?.as_str()
}

/// Whether a key has a value other than null.
pub(super) fn has(value: &Value, key: &str) -> bool {
    value.get(key).is_some_and(|value| !value.is_null())
}

/// The list at a key, created if absent. `None` if the value is not a list.
pub(super) fn list_mut<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Vec<Value>> {
    child(object, key, Value::Array(Vec::new())).as_array_mut()
}

/// The object at a key, created if absent. `None` if the value is not an object.
pub(super) fn object_mut<'a>(
    object: &'a mut Map<String, Value>,
    key: &str,
) -> Option<&'a mut Map<String, Value>> {
    child(object, key, Value::Object(Map::new())).as_object_mut()
}

fn child<'a>(object: &'a mut Map<String, Value>, key: &str, empty: Value) -> &'a mut Value {
    let slot = object.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = empty;
    }
    slot
}
