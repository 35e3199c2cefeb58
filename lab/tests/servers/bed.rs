//! A control plane of one release, and kubectl on it.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testbed::{Bed, KubernetesVersion};

/// Ends when it is dropped.
pub(super) struct ReleaseServer {
    bed: Bed,
}

impl ReleaseServer {
    pub(super) fn start(release: KubernetesVersion) -> Self {
        let name = format!(
            "server-{}-{}",
            release.minor().replace('.', "-"),
            std::process::id()
        );
        let bed = Bed::builder().name(name).kubernetes(release).start();
        Self {
            bed: bed.expect("a control plane"),
        }
    }

    fn kubectl(&self, words: &[&str]) -> Command {
        let mut command = self.bed.kubectl();
        command.args(words).current_dir(demo::repository());
        command
    }

    /// What kubectl says, in the repository.
    pub(super) fn must(&self, words: &[&str]) -> String {
        let output = self.kubectl(words).output().expect("kubectl runs");
        said(&output).unwrap_or_else(|said| panic!("kubectl {words:?}: {said}"))
    }

    pub(super) fn get(&self, words: &[&str]) -> Value {
        let words = [&["get", "--output=json"], words].concat();
        serde_json::from_str(&self.must(&words)).expect("JSON")
    }

    /// What the server warns of, where kubectl must succeed.
    pub(super) fn warnings(&self, words: &[&str]) -> String {
        let output = self.kubectl(words).output().expect("kubectl runs");
        assert!(output.status.success(), "kubectl {words:?}: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Creates an object as dry run; every field must be known. What the server would keep, or what it said.
    pub(super) fn create(&self, object: &Value) -> Result<Value, String> {
        self.create_with(&["--dry-run=server"], object)
    }

    /// Creates an object for good.
    pub(super) fn keep(&self, object: &Value) {
        if let Err(said) = self.create_with(&[], object) {
            panic!("{object}: {said}");
        }
    }

    fn create_with(&self, options: &[&str], object: &Value) -> Result<Value, String> {
        let words = [
            "create",
            "--validate=strict",
            "--output=json",
            "--filename=-",
        ];
        let words = [&words, options].concat();
        let mut child = self
            .kubectl(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(object.to_string().as_bytes())
            .expect("kubectl reads");
        drop(stdin);
        let kept = said(&child.wait_with_output().expect("kubectl ends"))?;
        Ok(serde_json::from_str(&kept).expect("JSON"))
    }
}

fn said(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stdout) + &text(&output.stderr))
    }
}
