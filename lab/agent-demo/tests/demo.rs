//! The demo runs, shows rates, and loses nothing.

use std::path::Path;
use std::process::Command;

/// The agent's binary, next to the demo's; built where only the demo was.
fn agent() -> std::path::PathBuf {
    let demo = Path::new(env!("CARGO_BIN_EXE_agent-demo"));
    let agent = demo.with_file_name("otelagent-agent");
    if !agent.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked"])
            .args(["--package", "otelagent-agent"])
            .status();
        assert!(built.is_ok_and(|status| status.success()));
    }
    agent
}

#[test]
fn demo_ends_by_itself_and_everything_acknowledged_arrived() {
    let output = Command::new(env!("CARGO_BIN_EXE_agent-demo"))
        .arg("--agent")
        .arg(agent())
        .args(["--seconds", "3", "--rate", "2000"])
        .output();
    let Ok(output) = output else {
        unreachable!("the demo cannot be started");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() >= 3, "{text}");
    for what in [
        "spans in",
        "spans out",
        "batches out",
        "MiB resident",
        "% of one core",
        "unaccounted 0",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(what)),
            "{what} in {text}"
        );
    }
    assert!(text.contains("acknowledged"), "{text}");
}
