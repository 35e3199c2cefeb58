//! Ends a bed when the process that started it is gone, even when that was killed.
//!
//! A shell in a session of its own holds one end of a pipe; the kernel closes the other end when
//! the parent dies, of any cause. Then the shell runs the script that ends the bed. It needs no
//! program of ours, so it works from any test binary.

use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};

use crate::command::{command, tail_of};
use crate::error::{Error, Result};
use crate::layout::lock_path;
use crate::options::Record;
use crate::registry::TEARDOWN;

/// Waits for the pipe's end; the word "keep" lets the bed stay.
const WAIT: &str = r#"script=$1 lock=$2; shift 2
read -r word && [ "$word" = keep ] && exit 0
exec flock "$lock" sh -c "$script" teardown "$@""#;

/// The shell that waits.
pub(crate) struct Reaper {
    child: Child,
    pipe: Option<ChildStdin>,
    bed: String,
    log: std::path::PathBuf,
}

impl Reaper {
    /// Starts to watch over a bed; called before anything of the bed is made.
    pub(crate) fn start(record: &Record) -> Result<Self> {
        let log = record.name.log_dir().join("teardown.log");
        let out = fs::File::create(&log).map_err(Error::io(format!("write {}", log.display())))?;
        let err = out
            .try_clone()
            .map_err(Error::io("share the log of the reaper"))?;
        let mut child = command("setsid")
            .args(["sh", "-c", WAIT, "reaper", TEARDOWN])
            .arg(lock_path())
            .arg(record.slot.0.to_string())
            .arg(record.name.dir())
            .arg(&record.token)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(Error::io("start the reaper"))?;
        let pipe = child.stdin.take();
        Ok(Self {
            child,
            pipe,
            bed: record.name.to_string(),
            log,
        })
    }

    /// Ends the bed, and waits until it is gone.
    pub(crate) fn end(&mut self) -> Result<()> {
        drop(self.pipe.take());
        let status = self
            .child
            .wait()
            .map_err(Error::io("wait for the reaper"))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Leftovers {
            bed: self.bed.clone(),
            output: tail_of(&self.log, 20),
        })
    }

    /// Lets the bed stay.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(b"keep\n")
                .map_err(Error::io("dismiss the reaper"))?;
        }
        self.child
            .wait()
            .map(drop)
            .map_err(Error::io("wait for the reaper"))
    }
}
