//! Whose an object is that bears a name this operator would give.

use serde_json::Value;

use crate::names;

/// One `OtelAgent`, as its objects name it.
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
    /// Whether an object says itself that it is this owner's: by an owner reference, or, where it is
    /// cluster-scoped, by the label with the owner's uid.
    pub fn is_named_by(&self, object: &Value) -> bool {
        references(object).any(|reference| reference["uid"] == *self.uid)
            || object["metadata"]["labels"][names::LABEL_OWNER_UID] == *self.uid
    }

    /// Whether an object is this owner's, though it may not say so any more: this operator has applied it
    /// for an `OtelAgent` of this name, and nobody else has become its controller. What a user made is
    /// not, whatever its labels say. Needs `metadata.managedFields`, which caches do not keep.
    pub fn owns(&self, object: &Value) -> bool {
        // One that was deleted and made again has another uid, and its objects are as good.
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
    fn a_reference_or_the_label_with_the_uid_says_whose_an_object_is() {
        let referred = json!({"metadata": {"ownerReferences": [{"uid": "u"}]}});
        let labelled = json!({"metadata": {"labels": {names::LABEL_OWNER_UID: "u"}}});
        let other = json!({"metadata": {"labels": {names::LABEL_OWNER_UID: "v"}, "ownerReferences": [{"uid": "w"}]}});
        assert!(owner().is_named_by(&referred) && owner().owns(&referred));
        assert!(owner().is_named_by(&labelled) && owner().owns(&labelled));
        assert!(!owner().is_named_by(&other) && !owner().owns(&other));
    }

    #[test]
    fn what_this_operator_applied_stays_its_own_without_the_reference() {
        let ours =
            |references: &Value| object(names::FIELD_MANAGER, "Apply", "system.node", references);
        let none = json!([]);
        assert!(owner().owns(&ours(&none)));
        assert!(!owner().is_named_by(&ours(&none)));
        let before = controller("OtelAgent", "node", "before");
        assert!(owner().owns(&ours(&before)), "of one that was made again");
    }

    #[test]
    fn what_somebody_else_made_or_controls_is_not_taken() {
        let none = json!([]);
        let made = object("kubectl", "Update", "system.node", &none);
        assert!(!owner().owns(&made), "labels alone are anybody's");
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
