//! Decodes each stored `OtelAgent` by itself.
//!
//! Tenants store `OtelAgent`s, and the API server accepts what no decoder here does: `spec.config` may be
//! nested a thousand levels deep. The operator skips an object that it cannot decode. If it decoded a list
//! as a whole, that object would block all others.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use otelagent_api::{OtelAgent, OtelAgentStatus, Resource};

/// How deep an object may be nested. The JSON reader fails at 128, the levels around the object included.
const DEPTH: usize = 100;
/// The metadata that the server itself writes, which can always be decoded.
const MARKS: [&str; 7] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
];

/// A stored `OtelAgent`.
#[derive(Resource, Clone, Debug)]
#[resource(inherit = OtelAgent, crates(kube_core = "otelagent_api::kube_core"))]
pub struct Decoded {
    /// The relevant part of its metadata.
    pub metadata: ObjectMeta,
    /// The object without its managed fields.
    pub agent: Result<OtelAgent, Unreadable>,
}

/// An object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// What is wrong with it.
    pub why: String,
    /// Its status, which the operator itself has written.
    pub status: Option<OtelAgentStatus>,
}

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut is_cut = false;
        let object = Shallow {
            left: DEPTH,
            is_cut: &mut is_cut,
        };
        let mut object = object.deserialize(deserializer)?;
        let agent = if is_cut {
            Err(format!("it is nested more than {DEPTH} levels deep"))
        } else {
            OtelAgent::deserialize(&object).map_err(|error| error.to_string())
        };
        let agent = agent.map(|mut agent| {
            agent.metadata.managed_fields = None;
            agent
        });
        let agent = agent.map_err(|why| Unreadable {
            why,
            status: OtelAgentStatus::deserialize(&object["status"]).ok(),
        });
        let mut marks = object
            .get_mut("metadata")
            .map(Value::take)
            .unwrap_or_default();
        if let Some(marks) = marks.as_object_mut() {
            marks.retain(|key, _| MARKS.contains(&key.as_str()));
        }
        let metadata = ObjectMeta::deserialize(marks).map_err(D::Error::custom)?;
        Ok(Self { metadata, agent })
    }
}

/// Reads JSON and skips what is nested too deep, without recursion.
struct Shallow<'a> {
    left: usize,
    is_cut: &'a mut bool,
}

impl Shallow<'_> {
    /// The value one level deeper.
    fn inner(&mut self) -> Shallow<'_> {
        Shallow {
            left: self.left.saturating_sub(1),
            is_cut: self.is_cut,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Shallow<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.left == 0 {
            *self.is_cut = true;
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shallow<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner())? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            map.insert(key, fields.next_value_seed(self.inner())?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use otelagent_api::ResourceExt;
    use otelagent_api::kube_core::{ObjectList, WatchEvent};

    use super::*;

    fn agent(name: &str, config: &str) -> String {
        format!(
            r#"{{"apiVersion":"otelagent.dev/v1alpha1","kind":"OtelAgent",
            "metadata":{{"name":"{name}","namespace":"shop","uid":"u","resourceVersion":"7","generation":2,
                "creationTimestamp":"2026-11-26T12:00:00Z"}},
            "spec":{{"mode":"Sidecar","export":{{"endpoint":"http://c:4317"}},"config":{config}}}}}"#
        )
    }

    fn deep() -> String {
        "{\"a\":".repeat(5000) + "1" + &"}".repeat(5000)
    }

    #[test]
    fn of_a_list_every_object_is_read_but_the_one_that_is_nested_too_deep() {
        let text = format!(
            r#"{{"apiVersion":"otelagent.dev/v1alpha1","kind":"OtelAgentList","metadata":{{"resourceVersion":"9"}},
            "items":[{},{},{}]}}"#,
            agent("one", "{}"),
            agent("deep", &deep()),
            agent("two", "7")
        );
        let list: ObjectList<Decoded> = serde_json::from_str(&text).unwrap();
        let read: Vec<(String, bool)> = list
            .items
            .iter()
            .map(|found| (found.name_any(), found.agent.is_ok()))
            .collect();
        let expected = [("one", true), ("deep", false), ("two", false)];
        assert_eq!(read, expected.map(|(name, is)| (name.to_owned(), is)));
        let deep = &list.items[1];
        assert_eq!(deep.uid().as_deref(), Some("u"));
        assert_eq!(deep.resource_version().as_deref(), Some("7"));
        assert_eq!(deep.meta().generation, Some(2));
    }

    #[test]
    fn watch_goes_on_past_it() {
        let text = format!(r#"{{"type":"ADDED","object":{}}}"#, agent("deep", &deep()));
        let event: WatchEvent<Decoded> = serde_json::from_str(&text).unwrap();
        let WatchEvent::Added(found) = event else {
            panic!("another event");
        };
        assert!(
            found
                .agent
                .is_err_and(|unreadable| unreadable.why.contains("levels deep"))
        );
    }
}
