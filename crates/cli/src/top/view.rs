//! The answer of `top` as text.

use super::report::{AgentLoad, SenderLoad, TopReport, WorkloadLoad};
use crate::text::{Column, Line, Page, Span, Table, bad, dim, good, plain, strong, warn};

/// How many agents and workloads are shown without `-o wide`.
const SHOWN: usize = 20;
/// From this share on a queue is nearly full.
const NEARLY_FULL: f64 = 0.8;

/// The text. `is_whole` folds nothing.
pub fn view(report: &TopReport, is_whole: bool) -> Page {
    let mut page = Page::default();
    let since = match report.seconds {
        Some(seconds) => format!("over {seconds} s"),
        None => "since their start".into(),
    };
    page.text([strong("agents"), dim(format!(", rates {since}"))]);
    of_agents(&mut page, &report.items, is_whole);
    if !report.senders.is_empty() {
        page.blank();
        page.text([strong("senders"), dim(", as far as agents name them")]);
        page.table(senders(&report.senders));
    }
    if !report.workloads.is_empty() {
        page.blank();
        page.text([strong("workloads with sidecars")]);
        let count = shown(report.workloads.len(), is_whole);
        page.table(workloads(&report.workloads[..count]));
        rest(&mut page, report.workloads.len() - count);
    }
    for note in &report.notes {
        page.blank();
        page.line(Line::behind("", [warn("! ")], [plain(note)]));
    }
    page
}

fn shown(all: usize, is_whole: bool) -> usize {
    if is_whole { all } else { all.min(SHOWN) }
}

fn of_agents(page: &mut Page, loads: &[AgentLoad], is_whole: bool) {
    let count = shown(loads.len(), is_whole);
    page.table(agents(&loads[..count]));
    rest(page, loads.len() - count);
    for load in &loads[..count] {
        let name = format!("{}/{}", load.namespace, load.pod);
        let text = match &load.unanswered {
            Some(why) => format!("{name} did not answer: {why}"),
            None if load.failing_seconds > 0.0 => format!(
                "{name} has delivered nothing for {:.0} s; kubectl otelagent status says why",
                load.failing_seconds
            ),
            None => continue,
        };
        page.line(Line::behind("  ", [bad("✗ ")], [plain(text)]));
    }
}

fn senders(loads: &[SenderLoad]) -> Table {
    let columns = [
        Column::text("SENDER"),
        Column::number("HELD"),
        Column::number("REFUSED"),
    ];
    let mut table = Table::new("  ", columns);
    for load in loads {
        let held = plain(bytes(load.held_bytes));
        table.row([plain(&load.sender), held, wrong(load.refused_requests)]);
    }
    table
}

fn workloads(loads: &[WorkloadLoad]) -> Table {
    let columns = [
        Column::text("NAMESPACE"),
        Column::text("WORKLOAD"),
        Column::number("SIDECARS"),
        Column::number("ITEMS/S"),
        Column::number("LOST"),
    ];
    let mut table = Table::new("  ", columns);
    for load in loads {
        table.row([
            plain(&load.namespace),
            plain(&load.workload),
            plain(load.sidecars.to_string()),
            plain(number(load.items_per_second)),
            wrong(load.lost),
        ]);
    }
    table
}

fn rest(page: &mut Page, more: usize) {
    if more > 0 {
        page.text([dim(format!("  and {more} more (-o wide shows them)"))]);
    }
}

fn agents(loads: &[AgentLoad]) -> Table {
    let columns = [
        Column::text("AGENT"),
        Column::text("NODE"),
        Column::number("ITEMS/S"),
        Column::number("QUEUE"),
        Column::number("REFUSED"),
        Column::number("LOST"),
        Column::number("CPU"),
        Column::number("MEMORY"),
    ];
    let mut table = Table::new("  ", columns);
    for load in loads {
        let node = plain(load.node.as_deref().unwrap_or("-"));
        let name = plain(format!("{}/{}", load.namespace, load.pod));
        if load.unanswered.is_some() {
            let unknown = std::iter::repeat_n(dim("-"), 6);
            table.row([name, node].into_iter().chain(unknown));
            continue;
        }
        table.row([
            name,
            node,
            plain(number(load.items_per_second)),
            queue(load),
            wrong(load.refused_requests),
            wrong(load.lost),
            plain(format!("{:.0}m", load.cpu * 1000.0)),
            plain(bytes(load.resident_bytes)),
        ]);
    }
    table
}

fn queue(load: &AgentLoad) -> Span {
    let share = load.queued_bytes / load.queue_capacity.max(1.0);
    let text = format!("{:.0}%", share * 100.0);
    if share >= NEARLY_FULL {
        bad(text)
    } else {
        good(text)
    }
}

/// A number that should be zero.
fn wrong(count: f64) -> Span {
    if count > 0.0 {
        bad(number(count))
    } else {
        dim("0")
    }
}

/// A number in four digits at most, with the letter of its power of a thousand.
fn number(value: f64) -> String {
    let units = ["", "k", "M", "G", "T"];
    scaled(value, 1000.0, &units)
}

fn bytes(value: f64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti"];
    scaled(value, 1024.0, &units)
}

fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value, 0);
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(value < 10.0 && value.fract() > 0.049);
    format!("{value:.digits$}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let of = [0.0, 0.12, 7.0, 999.0, 1234.0, 56_000_000.0].map(number);
        assert_eq!(of, ["0", "0.1", "7", "999", "1.2k", "56M"]);
        assert_eq!(
            [512.0, 4096.0, 5.5 * 1024.0 * 1024.0].map(bytes),
            ["512", "4Ki", "5.5Mi"]
        );
    }
}
