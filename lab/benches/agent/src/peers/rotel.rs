//! rotel's binary out of its Python package, kept outside of the repository. Must not know how it is
//! run.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Outcome;

/// The newest one that is published as a binary.
pub(super) const VERSION: &str = "0.0.1a15";

/// Where the binary is, fetched on first use.
pub(super) fn ensure() -> Outcome<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let dir = base
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?
        .join(format!("otelagent-tools/rotel-{VERSION}"));
    let program = dir.join("rotel/rotel-agent");
    if !program.is_file() {
        std::fs::create_dir_all(&dir)?;
        let platform = format!("manylinux_2_34_{}", std::env::consts::ARCH);
        let wheel = format!("rotel-{VERSION}-cp311-cp311-{platform}.whl");
        let mut pip = Command::new("timeout");
        pip.args([
            "300",
            "python3",
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
        ])
        .args(["--only-binary=:all:", "--python-version=3.11", "--platform"])
        .arg(&platform)
        .arg("--dest")
        .arg(&dir)
        .arg(format!("rotel=={VERSION}"));
        run(pip)?;
        let mut unpack = Command::new("python3");
        unpack
            .args(["-m", "zipfile", "-e"])
            .arg(dir.join(wheel))
            .arg(&dir);
        run(unpack)?;
    }
    // Wheels carry no modes.
    std::fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

fn run(mut command: Command) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().display();
    Err(format!("{program}: {}", said.trim()).into())
}
