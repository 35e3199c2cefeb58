//! The demo's voice: short lines, the time each step took, colour on terminals only.

use std::io::{IsTerminal, stdout};
use std::time::Instant;

use demo::routes::Route;
use demo::tally::Tally;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// Speaks.
pub(crate) struct Show {
    begun: Instant,
    colour: bool,
}

impl Show {
    /// Starts the clock.
    pub(crate) fn new() -> Self {
        let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            begun: Instant::now(),
            colour,
        }
    }

    /// A headline.
    pub(crate) fn chapter(&self, title: &str) {
        println!("\n{}", self.paint(BOLD, &format!("== {title}")));
    }

    /// What is about to be seen, in words.
    pub(crate) fn remark(&self, text: &str) {
        println!("   {}", self.paint(DIM, text));
    }

    /// Something to read as it is.
    pub(crate) fn plain(text: &str) {
        for line in text.trim_end().lines() {
            println!("   {line}");
        }
    }

    /// Does something, and says how long it took.
    pub(crate) fn step<T>(
        &self,
        what: &str,
        work: impl FnOnce() -> demo::Result<T>,
    ) -> demo::Result<T> {
        let begun = Instant::now();
        let result = work();
        let (mark, colour) = if result.is_ok() {
            ("ok", GREEN)
        } else {
            ("failed", RED)
        };
        let mark = self.paint(colour, &format!("{mark:>6}"));
        println!(
            " {mark}  {what:<58} {:>6.1} s",
            begun.elapsed().as_secs_f64()
        );
        result
    }

    /// Which agent each pod's newest spans came through.
    pub(crate) fn routes(&self, routes: &[Route]) {
        let width = routes
            .iter()
            .map(|route| route.from.name.len())
            .max()
            .unwrap_or_default();
        for route in routes {
            let from = format!("{:<width$} on {}", route.from.name, route.from.node);
            let Some(via) = route.newest() else {
                println!("   {from} -> {}", self.paint(RED, "nothing arrived"));
                continue;
            };
            let place = match (via.pod == route.from.name, via.node == route.from.node) {
                (true, _) => self.paint(GREEN, "own pod"),
                (_, true) => self.paint(GREEN, "own node"),
                _ => self.paint(BOLD, "another node"),
            };
            println!("   {from} -> {} on {} ({place})", via.pod, via.node);
        }
    }

    /// Sent, received, lost.
    pub(crate) fn tally(&self, tally: &Tally) {
        let lost = self.paint(
            if tally.lost == 0 { GREEN } else { RED },
            &format!("{} lost", tally.lost),
        );
        let again = match tally.duplicates {
            0 => String::new(),
            count => format!(", {count} arrived twice"),
        };
        println!(
            "   spans so far: {} sent, {} received, {lost}{again}",
            tally.sent, tally.received
        );
        for loser in &tally.losers {
            let why = match loser.unacknowledged {
                0 => String::new(),
                count => format!(", {count} of them never acknowledged"),
            };
            let text = format!("{} lost {}{why}", loser.run, loser.lost);
            println!("   {}", self.paint(RED, &text));
        }
        for run in &tally.unfinished {
            let text =
                format!("{run} ended and its last span did not arrive: it may have lost more");
            println!("   {}", self.paint(RED, &text));
        }
    }

    /// Seconds since the start.
    pub(crate) fn elapsed(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
