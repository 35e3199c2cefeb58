//! What is wrong with a configuration, collected while several sections are open.

use std::cell::RefCell;
use std::fmt;

/// One mistake in a configuration: where it is, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the setting, `exporters.otlp_grpc.compression`; empty for the whole document.
    pub path: String,
    /// What is wrong with its value, and what is allowed.
    pub message: String,
}

impl Problem {
    pub(super) fn new(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.path, self.message)
        }
    }
}

/// Collects problems, and warnings about what is accepted all the same.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: RefCell<Vec<Problem>>,
    pub(super) warnings: RefCell<Vec<String>>,
}

impl Findings {
    pub(super) fn problem(&self, path: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem::new(path, message));
    }

    pub(super) fn warn(&self, path: &str, message: &str) {
        let warning = format!("{path}: {message}");
        self.warnings.borrow_mut().push(warning);
    }
}
