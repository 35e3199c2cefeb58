//! Decides whether an object with a name that the operator would give belongs to an `OtelAgent`.

use serde_json::Value;

use crate::names;

/// An `OtelAgent` as the owner of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectOwner {
    /// Its uid.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Value of [`names::LABEL_OWNER`].
    pub label: String,
}

impl ObjectOwner {
    /// Whether an object names this owner: by an owner reference or, if it is cluster-scoped, by the label with
    /// the owner's uid.
    pub fn is_named_by(&self, object: &Value) -> bool {
        references(object).any(|reference| reference["uid"] == *self.uid)
            || object["metadata"]["labels"][names::LABEL_OWNER_UID] == *self.uid
    }

    /// Whether an object belongs to this owner, even if it no longer names it: the operator has applied it for
    /// an `OtelAgent` of this name, and it has no other controller. An object that a user created does not,
    /// whatever its labels say. Needs `metadata.managedFields`, which caches do not keep.
    pub fn owns(&self, object: &Value) -> bool {
        // An OtelAgent that was recreated has another uid; objects of the old one belong to it.
        let is_elsewhere = references(object).any(|reference| {
            reference["controller"] == true
                && (reference["kind"] != "OtelAgent" || reference["name"] != *self.name)
        });
        let is_labelled = object["metadata"]["labels"][names::LABEL_OWNER] == *self.label;
        self.is_named_by(object) || is_applied(object) && is_labelled && !is_elsewhere
    }
}

/// Whether this operator has applied an object. Needs `metadata.managedFields`.
pub fn is_applied(object: &Value) -> bool {
    let managers = object["metadata"]["managedFields"].as_array();
    let mut managers = managers.into_iter().flatten();
    managers.any(|entry| entry["manager"] == names::FIELD_MANAGER && entry["operation"] == "Apply")
}

/// Who, apart from this operator, changed an object last: the name of a field manager. Needs
/// `metadata.managedFields`.
pub fn last_other_manager(object: &Value) -> Option<&str> {
    let managers = object["metadata"]["managedFields"].as_array();
    let others = managers
        .into_iter()
        .flatten()
        .filter(|entry| entry["manager"] != names::FIELD_MANAGER && entry["subresource"].is_null());
    // Times are RFC 3339 in UTC, so their texts are in order.
    let last = others.max_by_key(|entry| entry["time"].as_str())?;
    last["manager"].as_str()
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn owner() -> ObjectOwner {
        ObjectOwner {
            uid: "u".into(),
            name: "node".into(),
            label: "system.node".into(),
        }
    }

    fn object(manager: &str, operation: &str, label: &str, references: &Value) -> Value {
        json!({"metadata": {
            "labels": {names::LABEL_OWNER: label},
            "ownerReferences": references,
            "managedFields": [{"manager": manager, "operation": operation}],
        }})
    }

    fn controller(kind: &str, name: &str, uid: &str) -> Value {
        json!([{"kind": kind, "name": name, "uid": uid, "controller": true}])
    }

    #[test]
    fn reference_or_the_uid_label_names_the_owner() {
        let referred = json!({"metadata": {"ownerReferences": [{"uid": "u"}]}});
        let labelled = json!({"metadata": {"labels": {names::LABEL_OWNER_UID: "u"}}});
        let other = json!({"metadata": {"labels": {names::LABEL_OWNER_UID: "v"}, "ownerReferences": [{"uid": "w"}]}});
        assert!(owner().is_named_by(&referred) && owner().owns(&referred));
        assert!(owner().is_named_by(&labelled) && owner().owns(&labelled));
        assert!(!owner().is_named_by(&other) && !owner().owns(&other));
    }

    #[test]
    fn last_other_manager_is_neither_this_operator_nor_one_of_the_status() {
        let entry = |manager: &str, time: &str, subresource: Value| json!({"manager": manager, "time": time, "subresource": subresource});
        let object = json!({"metadata": {"managedFields": [
            entry(names::FIELD_MANAGER, "2026-01-03T00:00:00Z", Value::Null),
            entry("second", "2026-01-02T00:00:00Z", Value::Null),
            entry("first", "2026-01-01T00:00:00Z", Value::Null),
            entry("kube-controller-manager", "2026-01-04T00:00:00Z", "status".into()),
        ]}});
        assert_eq!(last_other_manager(&object), Some("second"));
        assert_eq!(last_other_manager(&json!({})), None);
    }

    #[test]
    fn applied_object_stays_owned_without_its_reference() {
        let ours =
            |references: &Value| object(names::FIELD_MANAGER, "Apply", "system.node", references);
        let none = json!([]);
        assert!(owner().owns(&ours(&none)));
        assert!(!owner().is_named_by(&ours(&none)));
        let before = controller("OtelAgent", "node", "before");
        assert!(owner().owns(&ours(&before)), "of one that was recreated");
    }

    #[test]
    fn objects_of_others_are_not_taken_over() {
        let none = json!([]);
        let made = object("kubectl", "Update", "system.node", &none);
        assert!(!owner().owns(&made), "anybody can set labels");
        let forced = object(names::FIELD_MANAGER, "Update", "system.node", &none);
        assert!(!owner().owns(&forced), "this operator applies");
        let another = object(names::FIELD_MANAGER, "Apply", "system.other", &none);
        assert!(!owner().owns(&another), "of another OtelAgent");
        let controlled = controller("OtelAgent", "other", "v");
        let adopted = object(names::FIELD_MANAGER, "Apply", "system.node", &controlled);
        assert!(!owner().owns(&adopted));
        let bare = json!({"metadata": {"name": "node"}});
        assert!(!owner().owns(&bare));
    }
}
