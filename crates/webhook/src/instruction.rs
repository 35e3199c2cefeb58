//! The controller's instruction to the webhook for one `OtelAgent`, and the path that names it.
//!
//! The controller alone decides what is active; the webhook applies it. So the recipe travels as data, in
//! an annotation of the very object that makes the API server call, and the webhook never reads a spec.
//! Replicas, and a controller of another version, cannot silently disagree: an instruction that does not
//! read back to the same text is refused.

use serde::{Deserialize, Serialize};

use otelagent_core::inject::cel::printable;
use otelagent_core::inject::{Recipe, Selection};

/// First part of the path that the API server calls.
const INJECT: &str = "inject";

/// What the webhook does for one `OtelAgent`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instruction {
    /// What is injected.
    pub recipe: Recipe,
    /// Pods that belong to older `OtelAgent`s. The API server keeps most of them away; those known by the
    /// labels of their namespace it cannot.
    pub exclusions: Vec<Selection>,
    /// Where injection is verified; no exclusion holds there.
    pub canary_namespace: String,
}

impl Instruction {
    /// The instruction as the text of an annotation. Equal instructions give equal bytes.
    pub fn to_text(&self) -> String {
        printable(&serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads an instruction; `None` where this version does not understand all of it.
    pub fn parse(text: &str) -> Option<Self> {
        let instruction: Self = serde_json::from_str(text).ok()?;
        (instruction.to_text() == text).then_some(instruction)
    }
}

/// Which instruction the API server asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the `OtelAgent`.
    pub namespace: String,
    /// Name of the `OtelAgent`.
    pub name: String,
    /// Hash of the webhook configuration that made the API server call.
    pub hash: String,
}

impl Target {
    /// As the path of a webhook's URL: `/inject/<namespace>/<name>/<hash>`.
    pub fn path(&self) -> String {
        format!("/{INJECT}/{}/{}/{}", self.namespace, self.name, self.hash)
    }

    /// Reads a path; `None` where it is not one of ours.
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
