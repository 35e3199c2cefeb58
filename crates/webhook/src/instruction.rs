//! The controller's instruction to the webhook for one `OtelAgent`, and the URL path that names it.
//!
//! Only the controller decides what is active; the webhook applies it. So the recipe is an annotation of
//! the webhook configuration that makes the API server call, and the webhook never reads a spec. The
//! webhook refuses an instruction that does not serialize to the same text again, so replicas and
//! controllers of different versions cannot silently disagree.

use serde::{Deserialize, Serialize};

use otelagent_core::inject::cel::printable;
use otelagent_core::inject::{Recipe, Selection};

/// First part of the URL path.
const INJECT: &str = "inject";

/// What the webhook does for one `OtelAgent`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instruction {
    /// The recipe.
    pub recipe: Recipe,
    /// Pods that belong to older `OtelAgent`s. The API server already filters most of them, but not those
    /// selected by labels of their namespace.
    pub exclusions: Vec<Selection>,
    /// The canary namespace, in which no exclusion applies.
    pub canary_namespace: String,
}

impl Instruction {
    /// The instruction as the text of an annotation. Equal instructions give equal bytes.
    pub fn to_text(&self) -> String {
        printable(&serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads an instruction; `None` if this version does not understand all of it.
    pub fn parse(text: &str) -> Option<Self> {
        let instruction: Self = serde_json::from_str(text).ok()?;
        (instruction.to_text() == text).then_some(instruction)
    }
}

/// The instruction that a call names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the `OtelAgent`.
    pub namespace: String,
    /// Name of the `OtelAgent`.
    pub name: String,
    /// Hash of the webhook configuration behind the call.
    pub hash: String,
}

impl Target {
    /// As the path of a webhook's URL: `/inject/<namespace>/<name>/<hash>`.
    pub fn path(&self) -> String {
        format!("/{INJECT}/{}/{}/{}", self.namespace, self.name, self.hash)
    }

    /// Reads a URL path; `None` if it has another form.
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        match parts.as_slice() {
            [INJECT, namespace, name, hash] if parts.iter().all(|part| !part.is_empty()) => {
                Some(Self {
                    namespace: (*namespace).to_owned(),
                    name: (*name).to_owned(),
                    hash: (*hash).to_owned(),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_reads_back_and_others_are_refused() {
        let target = Target {
            namespace: "shop".into(),
            name: "node".into(),
            hash: "0123456789".into(),
        };
        assert_eq!(target.path(), "/inject/shop/node/0123456789");
        assert_eq!(Target::parse(&target.path()), Some(target));
        for other in [
            "",
            "/",
            "/inject",
            "/inject/a/b",
            "/inject/a//c",
            "/inject/a/b/c/d",
            "/x/a/b/c",
        ] {
            assert_eq!(Target::parse(other), None, "{other}");
        }
    }
}
