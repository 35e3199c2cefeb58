//! Building a Go program from its directory, as tests do with applications.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use testbed::go_build_static;

#[test]
fn go_build_makes_a_static_binary_or_reports_compiler_errors() {
    let dir = std::env::temp_dir().join(format!("testbed-go-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("go.mod"), "module hello\n\ngo 1.26\n").unwrap();
    fs::write(
        dir.join("main.go"),
        "package main\n\nimport _ \"net\"\n\nfunc main() { println(\"hello\") }\n",
    )
    .unwrap();
    let out = dir.join("bin/hello");
    go_build_static(&dir, &out).unwrap();
    let said = Command::new(&out).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stderr), "hello\n");
    // A dynamic program names its interpreter.
    let bytes = fs::read(&out).unwrap();
    assert!(!bytes.windows(8).any(|window| window == b"ld-linux"));

    fs::write(
        dir.join("main.go"),
        "package main\n\nfunc main() { nonsense() }\n",
    )
    .unwrap();
    let error = go_build_static(&dir, &out).unwrap_err();
    assert_eq!(error.reason(), "BuildFailed");
    assert!(error.to_string().contains("undefined: nonsense"), "{error}");
    fs::remove_dir_all(dir).unwrap();
}
