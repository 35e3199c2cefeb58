//! Building Go programs: static, reproducible, and ended when the caller dies.
//!
//! Knows how to call the Go command, not what is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{command, find_program, make_dir, tail};
use crate::error::{Error, Result};
use crate::progress::Step;

/// The linker leaves out what debuggers read, so the compiler need not write it: an eighth of a build.
const NO_DWARF: &str = "-gcflags=all=-dwarf=false";

/// One `go build`.
pub(crate) struct GoBuild<'a> {
    /// What it is called in messages.
    pub(crate) label: String,
    /// The directory with the go.mod.
    pub(crate) dir: &'a Path,
    /// The package to build.
    pub(crate) package: &'a str,
    /// Build tags, space separated.
    pub(crate) tags: &'a str,
    /// Variables to stamp: (name, value).
    pub(crate) stamps: &'a [(String, String)],
    /// Where the binary goes.
    pub(crate) out: &'a Path,
}

impl GoBuild<'_> {
    /// Builds, and puts the binary in place in one step so that no process sees half of it.
    pub(crate) fn run(&self) -> Result<()> {
        let step = Step::long(format!("build {}", self.label));
        if let Some(parent) = self.out.parent() {
            make_dir(parent)?;
        }
        let fresh = self
            .out
            .with_extension(format!("building-{}", std::process::id()));
        let mut flags = vec!["-s -w".to_owned()];
        flags.extend(
            self.stamps
                .iter()
                .map(|(name, value)| format!("-X {name}={value}")),
        );
        let mut go = go_command(self.dir)?;
        go.args(["build", "-trimpath", NO_DWARF, "-ldflags", &flags.join(" ")]);
        if !self.tags.is_empty() {
            go.args(["-tags", self.tags]);
        }
        go.arg("-o").arg(&fresh).arg(self.package);
        run_build(&self.label, &mut go)?;
        std::fs::rename(&fresh, self.out)
            .map_err(Error::io(format!("rename {}", fresh.display())))?;
        step.finish();
        Ok(())
    }
}

/// Builds the main package in `dir` (a module of its own) into the static binary `out`.
pub fn go_build_static(dir: &Path, out: &Path) -> Result<()> {
    let label = dir.file_name().map_or_else(
        || dir.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    let out = absolute(out)?;
    GoBuild {
        label,
        dir,
        package: ".",
        tags: "",
        stamps: &[],
        out: &out,
    }
    .run()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::io(format!("resolve {}", path.display())))
}

/// The go command in a module's directory.
pub(crate) fn go_command(dir: &Path) -> Result<Command> {
    let go = find_program("go")
        .or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.is_file()));
    let Some(go) = go else {
        return Err(Error::Missing {
            what: "the Go toolchain".to_owned(),
            remedy: "install Go 1.26 or newer and put it on the PATH (Debian's golang package is too old)".to_owned(),
        });
    };
    let mut go = bound_to_caller(&go);
    go.current_dir(dir)
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        // The compiler collects garbage only once it holds much: another tenth of a build.
        .env("GOGC", "off")
        .env("GOMEMLIMIT", "2GiB");
    Ok(go)
}

/// A long build must not outlive a killed caller; the kernel sees to that.
pub(crate) fn bound_to_caller(program: &Path) -> Command {
    if find_program("setpriv").is_some() {
        let mut bound = command("setpriv");
        bound.args(["--pdeathsig", "TERM"]).arg(program);
        return bound;
    }
    command(program)
}

/// Runs a build; its output is shown only when it fails.
pub(crate) fn run_build(label: &str, build: &mut Command) -> Result<()> {
    let output = build
        .output()
        .map_err(Error::io(format!("start the build of {label}")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Err(Error::Build {
        part: label.to_owned(),
        tail: tail(&text, 25),
    })
}
