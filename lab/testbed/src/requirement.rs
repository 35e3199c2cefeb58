//! Whether a test that needs a bed can run here, and saying so when it cannot.
//!
//! In CI nothing is skipped: there the test runs and fails.

use std::env;
use std::io::{Write, stderr};

/// The line that `make test` collects.
const MARK: &str = "otelagent-skip:";

/// True when this machine can run beds. Otherwise prints `otelagent-skip: <what>: <why>`, which
/// also goes to the file named by `OTELAGENT_SKIP_LOG` if that is set, and returns false; unless
/// `CI` is `true`, where it returns true so that the test fails by itself.
pub fn skip_unless_possible(what: &str) -> bool {
    obstacle().is_none_or(|why| !skip(what, why))
}

/// Notes that something is not tried here and why, and returns true; in CI it notes nothing and returns
/// false.
pub fn skip(what: &str, why: &str) -> bool {
    if env::var("CI").is_ok_and(|ci| ci == "true") {
        return false;
    }
    let line = format!("{MARK} {what}: {why}");
    let _ = writeln!(stderr(), "{line}");
    if let Some(path) = env::var_os("OTELAGENT_SKIP_LOG") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        let _ = file.and_then(|mut file| writeln!(file, "{line}"));
    }
    true
}

fn obstacle() -> Option<&'static str> {
    if !cfg!(target_os = "linux") {
        return Some("a bed needs Linux");
    }
    (!rustix::process::geteuid().is_root()).then_some("a bed needs root")
}
