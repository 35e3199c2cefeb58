//! Which objects a change makes, changes, removes, and keeps while pods use them.

use std::collections::BTreeMap;
use std::fmt;

use otelagent_api::ResourceExt;
use serde_json::Value;

use crate::reconcile::Observation;

/// An object, by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its kind.
    pub kind: String,
    /// Its namespace; `None` if it has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// What becomes of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectChanges {
    /// Made.
    pub made: Vec<ObjectName>,
    /// There already, and changed.
    pub changed: Vec<ObjectName>,
    /// Removed without waiting for pods.
    pub removed: Vec<ObjectName>,
    /// Kept while pods use them, then removed.
    pub kept: Vec<ObjectName>,
}

impl ObjectChanges {
    /// Whether no object changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The difference between what is there before, once the change has been made, and once no pod uses an older route.
    pub(super) fn between(
        before: &Observation<'_>,
        made: &Observation<'_>,
        end: &Observation<'_>,
    ) -> Self {
        let [before, made, end] = [before, made, end].map(existing);
        let names = |objects: &BTreeMap<ObjectName, &Value>,
                     is_named: &dyn Fn(&ObjectName) -> bool| {
            let names = objects.keys().filter(|name| is_named(name));
            names.cloned().collect::<Vec<_>>()
        };
        Self {
            made: names(&made, &|name| !before.contains_key(name)),
            changed: names(&made, &|name| {
                before.contains_key(name) && before.get(name) != made.get(name)
            }),
            removed: names(&before, &|name| !made.contains_key(name)),
            kept: names(&made, &|name| !end.contains_key(name)),
        }
    }
}

/// The objects of the `OtelAgent`.
fn existing<'a>(observation: &'a Observation<'_>) -> BTreeMap<ObjectName, &'a Value> {
    let owner = observation.owner();
    let namespace = observation.agent.namespace();
    let own = |kind: &str, object: &'a Value| {
        let name = ObjectName {
            kind: kind.to_owned(),
            namespace: namespace.clone(),
            name: object["metadata"]["name"].as_str()?.to_owned(),
        };
        owner.is_named_by(object).then_some((name, object))
    };
    let workloads = observation.workloads.values();
    let workloads = workloads.filter_map(|found| own("DaemonSet", &found.object));
    let service = observation.service.iter();
    let service = service.filter_map(|object| own("Service", object));
    let admission = observation.admission.iter().filter(|object| object.is_ours);
    let admission = admission.map(|object| {
        let name = ObjectName {
            kind: object.kind.to_owned(),
            namespace: None,
            name: object.name.clone(),
        };
        (name, &object.object)
    });
    workloads.chain(service).chain(admission).collect()
}
