//! Compares what the API server made of a probe with what [`inject`] makes of it.
//!
//! Others' admission changes the probes, too: it rewrites images, adds variables, chooses users. So the same
//! probe is also created without the label that makes otelagent inject it, and each field of the injected probe
//! must be as `inject` makes it from either: from the probe as it was sent, if otelagent came first, or from what
//! others made of it, if they did.

use serde_json::Value;

use super::containers::CONTAINER_LISTS;
use super::json::{list, list_mut, text};
use super::pod::{Injection, inject};
use super::recipe::Recipe;
use crate::names;
use crate::quantity;

/// Lists to which others may add items, with the key of an item; their order matters. All other lists must be
/// equal item by item.
const KEYED_LISTS: [(&str, &str); 6] = [
    ("containers", "name"),
    ("initContainers", "name"),
    ("env", "name"),
    ("volumes", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
];

/// Fields of the agent's container that others may change, if they change them in other containers as well.
const LEFT_TO_OTHERS: [&str; 4] = ["image", "imagePullPolicy", "resources", "securityContext"];

/// A difference between the server's pod and the function's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {path} the policy made {found} where {expected} was expected")]
pub struct Mismatch {
    /// The field, such as `spec.containers[app].env[OTEL_SERVICE_NAME].value`.
    pub path: String,
    /// The function's value.
    pub expected: String,
    /// The server's value.
    pub found: String,
}

/// What dry runs say about injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// The probe was injected as it should be.
    AsExpected,
    /// It was not, or was refused because of what was injected.
    Wrong(String),
    /// Others refuse the probe whether it is injected or not, so nothing is known of injection.
    Refused(String),
}

/// The API server's answer to the creation of a pod: the pod as it would be stored, or the refusal.
pub type Answer = Result<Value, String>;

/// Judges the answer to a probe. `plain` is the answer to the same probe without the label, see
/// [`super::canary::unlabelled`].
pub fn judge(
    probe: &Value,
    plain: &Answer,
    answer: &Answer,
    recipe: &Recipe,
    namespace: &str,
) -> Judgement {
    match (answer, plain) {
        (Err(_), Err(refusal)) => Judgement::Refused(refusal.clone()),
        (Err(refusal), Ok(_)) => Judgement::Wrong(refusal.clone()),
        (Ok(answer), plain) => {
            let plain = plain.as_ref().unwrap_or(probe);
            match compare_beside(probe, plain, answer, recipe, namespace) {
                Ok(()) => Judgement::AsExpected,
                Err(mismatch) => Judgement::Wrong(mismatch.to_string()),
            }
        }
    }
}

/// The same where only the hash of the recipe is known.
pub fn judge_hash(hash: &str, plain: &Answer, answer: &Answer) -> Judgement {
    match (answer, plain) {
        (Err(_), Err(refusal)) => Judgement::Refused(refusal.clone()),
        (Err(refusal), Ok(_)) => Judgement::Wrong(refusal.clone()),
        (Ok(pod), _) => match pod["metadata"]["labels"][names::LABEL_CONFIG].as_str() {
            Some(given) if given == hash => Judgement::AsExpected,
            given => Judgement::Wrong(given.unwrap_or("nothing").to_owned()),
        },
    }
}

/// Compares the answer to a probe with the function's result, where no other admission changes pods.
///
/// # Errors
/// The first difference.
pub fn compare(
    probe: &Value,
    answer: &Value,
    recipe: &Recipe,
    namespace: &str,
) -> Result<(), Mismatch> {
    compare_beside(probe, probe, answer, recipe, namespace)
}

/// Compares the answer to a probe with the function's result. `plain` is what others make of the probe. Ignores
/// what others and the server add.
///
/// # Errors
/// The first difference.
pub fn compare_beside(
    probe: &Value,
    plain: &Value,
    answer: &Value,
    recipe: &Recipe,
    namespace: &str,
) -> Result<(), Mismatch> {
    let mut first = match inject(probe, namespace, recipe) {
        Injection::Injected(pod) => pod,
        Injection::Skipped(reason) => {
            return Err(Mismatch {
                path: "metadata.name".into(),
                expected: "a pod that can be injected".into(),
                found: format!("{}: {reason}", text(&probe["metadata"], "name")),
            });
        }
    };
    let last = match inject(plain, namespace, recipe) {
        Injection::Injected(pod) => pod,
        // Others make the pod one that cannot be injected after them.
        Injection::Skipped(_) => first.clone(),
    };
    if let Some(agent) = agent_of(&mut first, recipe) {
        leave_to_others(agent, probe, plain);
    }
    covers(&first, &last, answer, [""; 3])
}

/// The injected container.
fn agent_of<'a>(pod: &'a mut Value, recipe: &Recipe) -> Option<&'a mut Value> {
    let own = recipe.container_name()?;
    let inits = list_mut(pod.get_mut("spec")?.as_object_mut()?, "initContainers")?;
    inits
        .iter_mut()
        .find(|container| text(container, "name") == own)
}

/// Forgets those fields of the agent's container that others change in the probe's own containers.
fn leave_to_others(agent: &mut Value, probe: &Value, plain: &Value) {
    for kind in CONTAINER_LISTS {
        for sent in list(&probe["spec"], kind) {
            let mut kept = list(&plain["spec"], kind).iter();
            let kept = kept.find(|kept| text(kept, "name") == text(sent, "name"));
            for field in LEFT_TO_OTHERS {
                forget(agent, field, sent, kept.unwrap_or(sent));
            }
        }
    }
}

fn forget(expected: &mut Value, field: &str, sent: &Value, kept: &Value) {
    let (sent, kept) = (&sent[field], &kept[field]);
    if sent == kept {
        return;
    }
    let Some(fields) = expected.as_object_mut() else {
        return;
    };
    let Some(Value::Object(inner)) = fields.get(field) else {
        fields.remove(field);
        return;
    };
    let keys: Vec<String> = inner.keys().cloned().collect();
    for key in keys {
        forget(&mut fields[field], &key, sent, kept);
    }
}

/// Checks that `found` has everything that is in `first`, with the value that it has there or in `last`; null
/// stands for a field that is absent. `keys` are the last three keys of the path; items of lists have none.
fn covers(first: &Value, last: &Value, found: &Value, keys: [&str; 3]) -> Result<(), Mismatch> {
    let [above, parent, own] = keys;
    // The server rewrites quantities.
    let holds_quantity = above == "resources" || parent == "emptyDir";
    let is_same = |expected: &Value| {
        let texts = expected.as_str().zip(found.as_str());
        expected == found || holds_quantity && texts.is_some_and(|(a, b)| quantity::same(a, b))
    };
    if is_same(first) || is_same(last) {
        return Ok(());
    }
    let key = KEYED_LISTS.iter().find(|(list, _)| *list == own);
    match (first, found, key) {
        (Value::Object(fields), Value::Object(_), _) => {
            let mut fields = fields.iter().filter(|(_, value)| !is_empty(value));
            fields.try_for_each(|(key, value)| {
                let last = if last.is_object() { &last[key] } else { value };
                covers(value, last, &found[key], [parent, own, key])
                    .map_err(|found| found.under(key))
            })
        }
        (Value::Array(first), Value::Array(found), Some((_, key))) => {
            let last = last.as_array().unwrap_or(first);
            covers_keyed(key, first, last, found)
        }
        (Value::Array(first), Value::Array(found), None) if first.len() == found.len() => {
            let mut pairs = first.iter().zip(found).enumerate();
            pairs.try_for_each(|(index, (first, found))| {
                covers(first, first, found, [""; 3])
                    .map_err(|found| found.under(&format!("[{index}]")))
            })
        }
        _ => Err(mismatch(if last.is_null() { first } else { last }, found)),
    }
}

/// Empty fields, which Go omits unless they are pointers.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// The items of `first` in their order, possibly with others in between, and none twice.
fn covers_keyed(
    key: &str,
    first: &[Value],
    last: &[Value],
    found: &[Value],
) -> Result<(), Mismatch> {
    let keys = || found.iter().map(|other| text(other, key));
    let mut rest = found.iter();
    for item in first {
        let own = text(item, key);
        let is_own = |other: &&Value| text(other, key) == own;
        let from_others = last.iter().find(is_own);
        let outcome = if keys().filter(|other| *other == own).count() > 1 {
            Err(mismatch(&"one".into(), &"several".into()))
        } else if from_others.is_none() && !keys().any(|other| other == own) {
            // Others removed it, or it is not added to what they made.
            Ok(())
        } else {
            match rest.find(is_own) {
                Some(other) => covers(item, from_others.unwrap_or(item), other, [""; 3]),
                None => Err(mismatch(item, &keys().collect())),
            }
        };
        outcome.map_err(|found| found.under(&format!("[{own}]")))?;
    }
    Ok(())
}

fn mismatch(expected: &Value, found: &Value) -> Mismatch {
    Mismatch {
        path: String::new(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

impl Mismatch {
    /// The same with the key of the object around it, or the item of the list in brackets.
    fn under(mut self, step: &str) -> Self {
        let is_key = !self.path.is_empty() && !self.path.starts_with('[');
        let dot = if is_key { "." } else { "" };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }
}
