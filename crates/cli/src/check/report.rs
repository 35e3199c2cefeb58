//! The answer of `check`, as `-o json` and `-o yaml` show it. docs/cli.md describes the fields.

use serde::Serialize;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// What was checked.
    pub items: Vec<CheckLine>,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckLine {
    /// What it belongs to.
    pub topic: &'static str,
    /// How it is.
    pub state: State,
    /// What was found.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, and is to be looked at.
    Warning,
    /// It keeps otelagent from working.
    Failed,
    /// It could not be looked at.
    Unknown,
}

impl CheckReport {
    /// Whether nothing failed.
    pub fn is_as_wished(&self) -> bool {
        self.items.iter().all(|line| line.state != State::Failed)
    }
}

/// Lines of one topic, as they are found.
pub(super) struct Lines {
    topic: &'static str,
    pub(super) found: Vec<CheckLine>,
}

impl Lines {
    pub(super) fn of(topic: &'static str) -> Self {
        Self {
            topic,
            found: Vec::new(),
        }
    }

    fn line(&mut self, state: State, text: String, next: Option<String>) {
        self.found.push(CheckLine {
            topic: self.topic,
            state,
            text,
            next,
        });
    }

    pub(super) fn ok(&mut self, text: impl Into<String>) {
        self.line(State::Ok, text.into(), None);
    }

    pub(super) fn warning(&mut self, text: impl Into<String>, next: impl Into<String>) {
        self.line(State::Warning, text.into(), Some(next.into()));
    }

    pub(super) fn failed(&mut self, text: impl Into<String>, next: impl Into<String>) {
        self.line(State::Failed, text.into(), Some(next.into()));
    }

    pub(super) fn unknown(&mut self, text: impl Into<String>, next: impl Into<String>) {
        self.line(State::Unknown, text.into(), Some(next.into()));
    }
}
