//! The table: bars, figures, verdicts, all computed from what was measured, and its place in
//! docs/benchmarks.md. Must not know how anything is measured.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::Outcome;
use crate::peers::{Kind, Peer};

fn begin(part: &str) -> String {
    format!("<!-- {part}: written by `make bench-agent`, from here -->")
}

fn end(part: &str) -> String {
    format!("<!-- {part}: to here -->")
}

/// Whether a bar is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Met,
    /// It is not.
    NotMet,
    /// Something it needs was not measured.
    Open,
    /// There is no bar.
    None,
}

impl From<bool> for Verdict {
    fn from(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "**not met**",
            Self::Open => "not measured",
            Self::None => "",
        }
    }
}

/// One measure of all programs.
#[derive(Clone, Debug)]
pub struct Line {
    /// What is measured.
    pub measure: String,
    /// What is asked of the agent.
    pub bar: String,
    /// The figures, as printed.
    pub figures: Vec<(Kind, String)>,
    /// The agent's figure in relation to the peers'.
    pub ratio: String,
    /// Whether the bar is met.
    pub verdict: Verdict,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Report {
    /// The table.
    pub lines: Vec<Line>,
    /// Further tables and remarks, as Markdown.
    pub details: Vec<String>,
    /// What makes the benchmark fail.
    pub failures: Vec<String>,
}

impl Report {
    /// Adds another part.
    pub fn add(&mut self, part: Self) {
        self.lines.extend(part.lines);
        self.details.extend(part.details);
        self.failures.extend(part.failures);
    }

    /// The table alone.
    pub fn table(&self) -> String {
        let mut out = String::from("| measure | bar |");
        for kind in Kind::ALL {
            let _ = write!(out, " {} |", kind.name());
        }
        out.push_str(" ratio | |\n|---|---|---|---|---|---|---|---|\n");
        for line in &self.lines {
            let _ = write!(out, "| {} | {} |", line.measure, line.bar);
            for kind in Kind::ALL {
                let figure = line.figures.iter().find(|(of, _)| *of == kind);
                let _ = write!(out, " {} |", figure.map_or("–", |(_, figure)| figure));
            }
            let _ = writeln!(out, " {} | {} |", line.ratio, line.verdict.word());
        }
        out
    }

    /// The whole section.
    pub fn section(&self, about: &About) -> String {
        let mut out = format!(
            "Command: `{}`\n\nMachine: {}; load average at the beginning: {}. {}.\n\nPrograms:\n\n",
            about.command, about.machine, about.load, about.pinning
        );
        for peer in &about.peers {
            let _ = writeln!(out, "- {}: {}", peer.kind.name(), peer.version);
        }
        for missing in &about.missing {
            let _ = writeln!(out, "- not available: {missing}");
        }
        let _ = write!(out, "\n{}", self.table());
        for detail in &self.details {
            let _ = write!(out, "\n{}\n", detail.trim_end());
        }
        let _ = writeln!(out, "\nTook {} minutes.", about.took.as_secs().div_ceil(60));
        out
    }
}

/// What the report says about the run itself.
#[derive(Clone, Debug)]
pub struct About {
    /// How to do it again.
    pub command: String,
    /// Cores, processor, kernel.
    pub machine: String,
    /// Processes that wanted to run when it began.
    pub load: String,
    /// Which core did what.
    pub pinning: String,
    /// What was measured.
    pub peers: Vec<Peer>,
    /// What could not be.
    pub missing: Vec<String>,
    /// The whole run.
    pub took: Duration,
}

/// Puts the section of a part into a document, in place of the one before it.
pub fn write(document: &Path, part: &str, section: &str) -> Outcome<()> {
    let (begin, end) = (begin(part), end(part));
    let before = fs::read_to_string(document)?;
    let place = before
        .split_once(&begin)
        .and_then(|(head, rest)| Some((head, rest.split_once(&end)?.1)));
    let (head, tail) = place.ok_or_else(|| {
        let name = document.display();
        format!("{name} has no lines `{begin}` and `{end}`")
    })?;
    fs::write(document, format!("{head}{begin}\n\n{section}\n{end}{tail}"))?;
    Ok(())
}

/// The middle one; of an even number, the lower of the two.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or_default()
}

/// `1234567` as `1,234,567`.
pub fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "one decimal is printed")]
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// A duration in milliseconds or microseconds.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds >= 0.01 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds >= 0.001 {
        format!("{:.2} ms", seconds * 1e3)
    } else {
        format!("{:.0} µs", seconds * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    #[test]
    fn section_takes_the_place_of_the_one_before_it() {
        let name = format!("otelagent-bench-{}.md", std::process::id());
        let file = std::env::temp_dir().join(name);
        let (begin, end) = (begin("x"), end("x"));
        fs::write(&file, format!("# A\n{begin}\nold\n{end}\n# B\n")).unwrap();
        write(&file, "x", "new").unwrap();
        write(&file, "x", "newer").unwrap();
        assert!(write(&file, "y", "other").is_err());
        let text = fs::read_to_string(&file).unwrap();
        fs::remove_file(file).unwrap();
        assert_eq!(text, format!("# A\n{begin}\n\nnewer\n{end}\n# B\n"));
    }

    #[test]
    fn figures_are_printed_for_readers() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(123.0), "123");
        assert_eq!(median(&[3.0, 1.0, 2.0]).total_cmp(&2.0), Ordering::Equal);
        assert_eq!(time(Duration::from_micros(1234)), "1.23 ms");
    }
}
