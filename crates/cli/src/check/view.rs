//! The answer of `check` as text.

use super::report::{CheckReport, State};
use crate::text::{Line, Page, bad, dim, good, plain, strong, warn};

/// The text.
pub fn view(report: &CheckReport) -> Page {
    let mut page = Page::default();
    let mut topic = "";
    for line in &report.items {
        if line.topic != topic {
            if !topic.is_empty() {
                page.blank();
            }
            topic = line.topic;
            page.text([strong(topic)]);
        }
        let sign = match line.state {
            State::Ok => good("✓ "),
            State::Warning => warn("! "),
            State::Failed => bad("✗ "),
            State::Unknown => dim("? "),
        };
        page.line(Line::behind("  ", [sign], [plain(&line.text)]));
        if let Some(next) = &line.next {
            page.line(Line::behind("    ", [dim("→ ")], [plain(next)]));
        }
    }
    let count = |state: State| {
        report
            .items
            .iter()
            .filter(|line| line.state == state)
            .count()
    };
    page.blank();
    let (failed, warnings) = (count(State::Failed), count(State::Warning));
    let summary = format!(
        "{} checked: {failed} failed, {warnings} to be looked at",
        report.items.len()
    );
    page.text([if failed > 0 {
        bad(summary)
    } else {
        good(summary)
    }]);
    page
}
