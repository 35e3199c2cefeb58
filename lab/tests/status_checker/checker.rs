//! Collects mismatches.

use std::fmt;

use serde_json::Value;

use super::quotes::{self, Quote};
use super::read::text;
use super::view::ClusterView;

/// A field of the status that contradicts the documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The field, as a path below `status`.
    pub(crate) field: String,
    /// What the documentation asks for.
    pub(crate) expected: String,
    /// What the status says.
    pub(crate) found: String,
    /// The sentence of the documentation that decides.
    pub(crate) why: Quote,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            expected,
            found,
            why,
        } = self;
        write!(f, "status.{field} is {found}, not {expected} ({why})")
    }
}

/// A count, or the counts that the documentation allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    least: usize,
    most: usize,
}

impl Allowed {
    pub(super) fn exactly(count: usize) -> Self {
        Self::between(count, count)
    }

    pub(super) fn between(least: usize, most: usize) -> Self {
        Self { least, most }
    }

    /// Whether this count is certainly as large as another.
    pub(super) fn covers(self, other: Self) -> bool {
        self.least >= other.most
    }

    pub(super) fn at_least(least: usize) -> Self {
        Self::between(least, usize::MAX)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (least, most) if least == most => write!(f, "{least}"),
            (least, usize::MAX) => write!(f, "at least {least}"),
            (least, most) => write!(f, "{least} to {most}"),
        }
    }
}

/// Compares the status of one `OtelAgent` with the cluster's objects.
pub(super) struct StatusChecker<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) status: &'a Value,
    pub(super) found: Vec<Mismatch>,
}

impl<'a> StatusChecker<'a> {
    pub(super) fn new(view: &'a ClusterView) -> Self {
        Self {
            view,
            status: &view.agent["status"],
            found: Vec::new(),
        }
    }

    /// The status describes the present spec.
    pub(super) fn generation(&mut self) {
        let generation = &self.view.agent["metadata"]["generation"];
        self.equals("observedGeneration", generation, quotes::OF_GENERATION);
    }

    /// Reports the field unless `holds`.
    pub(super) fn require(
        &mut self,
        holds: bool,
        field: &str,
        expected: impl Into<String>,
        why: Quote,
    ) {
        if !holds {
            let found = self.field(field);
            self.report(field, expected, found.to_string(), why);
        }
    }

    pub(super) fn report(
        &mut self,
        field: &str,
        expected: impl Into<String>,
        found: String,
        why: Quote,
    ) {
        self.found.push(Mismatch {
            field: field.to_owned(),
            expected: expected.into(),
            found,
            why,
        });
    }

    pub(super) fn equals(&mut self, field: &str, expected: &Value, why: Quote) {
        let holds = self.field(field) == expected;
        self.require(holds, field, expected.to_string(), why);
    }

    pub(super) fn count(&mut self, field: &str, expected: Allowed, why: Quote) {
        let holds = self
            .number(field)
            .is_some_and(|found| (expected.least..=expected.most).contains(&found));
        self.require(holds, field, expected.to_string(), why);
    }

    /// A number of the status, if there is one.
    pub(super) fn number(&self, field: &str) -> Option<usize> {
        let number = self.field(field).as_u64();
        number.and_then(|number| usize::try_from(number).ok())
    }

    /// A field of the status, by its path.
    pub(super) fn field(&self, field: &str) -> &'a Value {
        let pointer = format!("/{}", field.replace('.', "/"));
        self.status.pointer(&pointer).unwrap_or(&Value::Null)
    }

    /// The serving mode, as the status gives it.
    pub(super) fn mode(&self) -> Option<&'a str> {
        self.status["mode"].as_str()
    }

    pub(super) fn condition(&self, kind: &str) -> &'a Value {
        condition(self.status, kind)
    }

    pub(super) fn is(&self, kind: &str, status: &str) -> bool {
        self.condition(kind)["status"] == status
    }

    pub(super) fn has_reason(&self, kind: &str, reason: &str) -> bool {
        self.condition(kind)["reason"] == reason
    }

    /// Reports a condition unless `holds`.
    pub(super) fn require_condition(
        &mut self,
        holds: bool,
        kind: &str,
        expected: impl Into<String>,
        why: Quote,
    ) {
        if !holds {
            let condition = self.condition(kind);
            let found = if condition.is_null() {
                "absent".to_owned()
            } else {
                let [status, reason, message] =
                    ["/status", "/reason", "/message"].map(|key| text(condition, key));
                format!("{status} ({reason}: {message})")
            };
            self.report(&format!("conditions.{kind}"), expected, found, why);
        }
    }
}

/// One condition of a status; `Null` if there is none.
pub(super) fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let all = status["conditions"].as_array().into_iter().flatten();
    let mut found = all.filter(|condition| condition["type"] == kind);
    found.next().unwrap_or(&Value::Null)
}
