//! kubectl, with typed answers and errors that repeat what it said.
//!
//! Knows no object of ours.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};

/// Who applies what this package applies.
const FIELD_MANAGER: &str = "--field-manager=otelagent-demo";

/// A kubectl that speaks to one cluster.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: OsString,
    environment: Vec<(OsString, Option<OsString>)>,
}

impl Kubectl {
    /// From a command that speaks to the cluster, as a bed or a cluster of the test bed makes it.
    pub fn new(command: &Command) -> Self {
        let environment = command.get_envs();
        Self {
            program: command.get_program().to_owned(),
            environment: environment
                .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
                .collect(),
        }
    }

    /// Runs it with these arguments, and returns what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with_input(args, "")
    }

    /// Makes objects be as this YAML says.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            FIELD_MANAGER,
            "--filename=-",
        ];
        self.run_with_input(&args, yaml).map(drop)
    }

    /// Makes objects be as a kustomize directory says.
    pub fn apply_kustomization(&self, directory: &Path) -> Result<()> {
        let directory = directory.display().to_string();
        let args = [
            "apply",
            "--server-side",
            "--force-conflicts",
            FIELD_MANAGER,
            "--kustomize",
            &directory,
        ];
        self.run(&args).map(drop)
    }

    /// Merges a patch into an object, named as in `otelagent/node`.
    pub fn patch(&self, namespace: &str, object: &str, patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        self.run(&[
            "patch",
            object,
            "--namespace",
            namespace,
            "--type=merge",
            "--patch",
            &patch,
        ])
        .map(drop)
    }

    /// `kubectl get`, as JSON.
    pub fn get<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let args = [&["get", "--output=json"], args].concat();
        parse(&args, &self.run(&args)?)
    }

    /// What the API server answers to a `GET` of this path.
    pub fn raw<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let args = ["get", "--raw", path];
        parse(&args, &self.run(&args)?)
    }

    /// Starts it, for what goes on until the other side ends it; standard output is for the caller to read.
    pub fn start(&self, args: &[&str]) -> Result<Child> {
        let mut command = self.command();
        command.args(args).stdin(Stdio::null());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io("run kubectl"))
    }

    /// A `POST` of nothing to this path.
    pub fn post(&self, path: &str) -> Result<()> {
        self.run(&["create", "--raw", path, "--filename=-"])
            .map(drop)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    fn run_with_input(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = self.command();
        let doing = || Error::io("run kubectl");
        let mut child = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(doing())?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that ended before it read everything says why in its output.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().map_err(doing())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Kubectl {
            command: shown(args),
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

fn parse<T: DeserializeOwned>(args: &[&str], answer: &str) -> Result<T> {
    serde_json::from_str(answer).map_err(|source| Error::Answer {
        what: format!("the answer of `kubectl {}`", shown(args)),
        source,
    })
}

fn shown(args: &[&str]) -> String {
    args.join(" ").chars().take(300).collect()
}
