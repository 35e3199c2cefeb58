//! Tables of switches and updates, as Markdown, and their place in a document.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::account::Account;
use crate::error::{Error, Result};
use crate::steps::Topology;

/// What became of the telemetry during one switch or update.
#[derive(Clone, Debug)]
pub struct Row {
    /// Before.
    pub from: Topology,
    /// After; the same for an update.
    pub to: Topology,
    /// Sent, lost and the rest.
    pub account: Account,
    /// The longest time without an arrival of any one pod with the SDK for Rust.
    pub gap_rust: Duration,
    /// The same with the SDK for Go.
    pub gap_go: Duration,
    /// From the patch until pods created from then on are served.
    pub serving: Duration,
    /// From the patch until the old agents' last pod is gone.
    pub gone: Duration,
}

impl Row {
    /// Its numbers, in the order of the tables' columns.
    pub fn cells(&self) -> Vec<String> {
        let account = &self.account;
        let mut cells = vec![self.from.to_string(), self.to.to_string()];
        cells.extend(
            [
                account.sent,
                account.lost,
                account.unacknowledged,
                account.duplicates,
                account.counters_short,
            ]
            .map(|count| count.to_string()),
        );
        let times = [self.gap_rust, self.gap_go, self.serving, self.gone];
        cells.extend(times.map(|time| format!("{:.1} s", time.as_secs_f64())));
        cells
    }

    /// Losses of what an agent had acknowledged.
    pub fn unexplained(&self) -> u64 {
        self.account
            .lost
            .saturating_sub(self.account.unacknowledged)
    }
}

/// How it was measured.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Items of each signal per second and pod.
    pub rate: u32,
    /// Nodes.
    pub nodes: usize,
    /// Application pods.
    pub pods: usize,
    /// How often SDKs export.
    pub export_interval_ms: u32,
}

const COUNTS: &str = "sent | lost | never acknowledged | twice | counters short";
const GAPS: &str = "longest gap, gRPC (Rust) | longest gap, HTTP (Go)";

/// The table of switches.
pub fn switches(setting: &Setting, rows: &[Row]) -> String {
    let Setting {
        rate,
        nodes,
        pods,
        export_interval_ms,
    } = setting;
    let about = format!(
        "{pods} pods on {nodes} nodes, each making {rate} spans, {rate} log records and {rate} counts per second, \
         exported every {export_interval_ms} ms:\n\n"
    );
    let header = format!(
        "| from | to | {COUNTS} | {GAPS} | new route ready after | old route gone after |\n"
    );
    let lines = rows.iter().map(|row| line(&row.cells()));
    about + &header + &rule(11) + &lines.collect::<String>()
}

/// The table of updates.
pub fn updates(rows: &[Row]) -> String {
    let header =
        format!("| mode | {COUNTS} | {GAPS} | new agents ready after | old agents gone after |\n");
    let lines = rows.iter().map(|row| line(&row.cells()[1..]));
    header + &rule(10) + &lines.collect::<String>()
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

fn rule(columns: usize) -> String {
    format!("|{}\n", "---|".repeat(columns))
}

/// Puts tables between their markers in a document.
pub fn write(document: &Path, tables: &[(&str, String)]) -> Result<()> {
    let shown = document.display();
    let mut text = fs::read_to_string(document).map_err(Error::io(format!("read {shown}")))?;
    for (name, table) in tables {
        text = replace(&text, name, table).ok_or_else(|| Error::Markers {
            document: shown.to_string(),
            table: (*name).to_owned(),
        })?;
    }
    fs::write(document, text).map_err(Error::io(format!("write {shown}")))
}

/// The document with this table; `None` where it has no place for it.
fn replace(text: &str, name: &str, table: &str) -> Option<String> {
    let begin = format!("<!-- {name}: written by `make switch-matrix`, from here -->\n");
    let end = format!("<!-- {name}: to here -->");
    let (head, rest) = text.split_once(&begin)?;
    let (_, tail) = rest.split_once(&end)?;
    Some(format!("{head}{begin}\n{table}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            from: Topology::HostPort,
            to: Topology::Sidecar,
            account: Account {
                sent: 100,
                lost: 3,
                unacknowledged: 2,
                ..Account::default()
            },
            gap_rust: Duration::from_millis(700),
            gap_go: Duration::from_millis(1240),
            serving: Duration::from_secs(4),
            gone: Duration::from_secs(20),
        }
    }

    #[test]
    fn table_has_a_cell_for_each_column() {
        let setting = Setting {
            rate: 200,
            nodes: 2,
            pods: 4,
            export_interval_ms: 500,
        };
        for table in [switches(&setting, &[row()]), updates(&[row()])] {
            let lines = table.lines().filter(|line| line.starts_with('|'));
            let columns: Vec<usize> = lines.map(|line| line.matches('|').count()).collect();
            assert_eq!(columns.len(), 3);
            assert!(columns.iter().all(|count| *count == columns[0]), "{table}");
        }
        assert_eq!(row().cells().last().map(String::as_str), Some("20.0 s"));
    }

    #[test]
    fn items_that_were_never_acknowledged_are_no_loss_of_agents() {
        assert_eq!(row().unexplained(), 1);
    }

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let begin = "<!-- t: written by `make switch-matrix`, from here -->\n";
        let text = format!("before\n{begin}old\n<!-- t: to here -->\nafter\n");
        let new = replace(&text, "t", "new\n").unwrap();
        assert!(new.starts_with("before\n") && new.ends_with("\nafter\n"));
        assert!(new.contains("\nnew\n") && !new.contains("old"));
        assert_eq!(replace("nothing", "t", "new"), None);
    }
}
