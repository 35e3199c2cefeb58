//! One line per step: what is done, and how long it took.
//!
//! On a terminal the seconds tick; elsewhere long steps say once a minute that they still run.

use std::io::{IsTerminal, Write, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Only one step ticks at a time: a terminal has one last line.
static TICKING: AtomicBool = AtomicBool::new(false);

/// A running step; reports its end when dropped or finished.
pub(crate) struct Step {
    what: String,
    begun: Instant,
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
    done: bool,
}

/// Says one line.
pub(crate) fn say(line: &str) {
    // Over the line of a step that ticks.
    let begin = if stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    let _ = writeln!(stderr(), "{begin}testbed: {line}");
}

impl Step {
    /// Announces a short step: only its end is printed.
    pub(crate) fn short(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            begun: Instant::now(),
            ticker: None,
            done: false,
        }
    }

    /// Announces a step that may take minutes, and keeps saying so.
    pub(crate) fn long(what: impl Into<String>) -> Self {
        let what = what.into();
        let begun = Instant::now();
        let (stop, stopped) = channel::<()>();
        let terminal = stderr().is_terminal() && !TICKING.swap(true, Ordering::Relaxed);
        let period = Duration::from_secs(if terminal { 1 } else { 60 });
        if !terminal {
            say(&format!("{what} ..."));
        }
        let label = what.clone();
        let ticker = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
                let seconds = begun.elapsed().as_secs();
                if terminal {
                    let _ = write!(stderr(), "\rtestbed: {label} ... {seconds} s ");
                } else {
                    say(&format!("{label} ... {seconds} s"));
                }
            }
            if terminal {
                let _ = write!(stderr(), "\r\x1b[K");
                TICKING.store(false, Ordering::Relaxed);
            }
        });
        Self {
            what,
            begun,
            ticker: Some((stop, ticker)),
            done: false,
        }
    }

    /// Ends the step well.
    pub(crate) fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some((stop, ticker)) = self.ticker.take() {
            drop(stop);
            let _ = ticker.join();
        }
        let outcome = if self.done { "" } else { "failed after " };
        say(&format!(
            "{}: {outcome}{:.1} s",
            self.what,
            self.begun.elapsed().as_secs_f64()
        ));
    }
}
