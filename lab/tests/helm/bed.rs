//! A control plane on which Helm installs the chart.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::Bed;

use super::program::{Helm, objects};

/// The longest time to wait for any result.
pub(super) const PATIENCE: Duration = Duration::from_mins(4);

pub(super) struct HelmBed {
    pub(super) bed: Bed,
    pub(super) helm: Helm,
}

/// A release's name and namespace.
#[derive(Clone, Copy)]
pub(super) struct Release {
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
}

impl HelmBed {
    pub(super) fn start(what: &str, helm: Helm) -> Self {
        Self::start_with_nodes(what, helm, 0)
    }

    pub(super) fn start_with_nodes(what: &str, helm: Helm, nodes: u8) -> Self {
        let name = format!("{what}-{:?}-{}", helm.part, std::process::id()).to_lowercase();
        let bed = Bed::builder().name(name).nodes(nodes).start();
        Self {
            bed: bed.expect("a cluster"),
            helm,
        }
    }

    /// Helm on this cluster, for a release.
    pub(super) fn helm(&self, release: Release, words: &[&str]) -> String {
        let namespace = ["--namespace", release.namespace];
        let output = self.helm.run(
            Some(self.bed.kubeconfig()),
            &[words, &namespace[..]].concat(),
        );
        output.unwrap_or_else(|why| panic!("helm {words:?}: {why}"))
    }

    /// Installs or upgrades a release with the chart in a directory.
    pub(super) fn install(&self, release: Release, chart: &str, options: &[&str]) -> String {
        let words = [
            "upgrade",
            "--install",
            "--create-namespace",
            release.name,
            chart,
        ];
        self.helm(release, &[&words, options].concat())
    }

    /// The output of kubectl, also where it fails.
    pub(super) fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        let output = self.bed.kubectl().args(words).output();
        let output = output.expect("kubectl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    pub(super) fn must(&self, words: &[&str]) -> String {
        let output = self.kubectl(words);
        output.unwrap_or_else(|why| panic!("kubectl {words:?}: {why}"))
    }

    /// Applies an object.
    pub(super) fn apply(&self, object: &Value) {
        let file = self.helm.directory().join("object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        self.must(&["apply", "-f", &file.to_string_lossy()]);
    }

    /// An object, if it exists; `what` is as in `deployment/name`.
    pub(super) fn find(&self, namespace: &str, what: &str) -> Option<Value> {
        let words = ["get", what, "--namespace", namespace, "--output=json"];
        let found = self.must(&[&words[..], &["--ignore-not-found"]].concat());
        (!found.trim().is_empty()).then(|| serde_json::from_str(&found).unwrap())
    }

    /// Objects of a release as they are in the cluster; those that are not there are null.
    pub(super) fn live(&self, manifest: &[Value]) -> Vec<(String, Value)> {
        let find = |object: &Value| {
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let (kind, group) = (text("/kind").unwrap(), text("/apiVersion").unwrap());
            let name = text("/metadata/name").unwrap();
            let kind = match group.split_once('/') {
                Some((group, version)) => format!("{kind}.{version}.{group}"),
                None => kind.to_owned(),
            };
            let what = format!("{kind}/{name}");
            let namespace = text("/metadata/namespace").unwrap_or("default");
            let found = self.find(namespace, &what).unwrap_or_default();
            (format!("{what} in {namespace}"), found)
        };
        manifest.iter().map(find).collect()
    }

    /// What Helm has installed for a release.
    pub(super) fn manifest(&self, release: Release) -> Vec<Value> {
        objects(&self.helm(release, &["get", "manifest", release.name]))
    }

    /// A kubeconfig with the token of a `ServiceAccount`.
    pub(super) fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.must(&["create", "token", account, "--namespace", namespace]);
        let text = std::fs::read_to_string(self.bed.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let file = self.helm.directory().join(format!("{namespace}-{account}"));
        std::fs::write(&file, config.to_string()).unwrap();
        file
    }

    pub(super) fn end(self) {
        self.bed.stop().expect("the end of the bed");
    }
}

/// Repeats until it succeeds.
pub(super) fn until<T>(what: &str, attempt: impl Fn() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(why) => assert!(begun.elapsed() < PATIENCE, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Copies a chart, and changes files of the copy.
pub(super) fn copy_chart(from: &str, to: &Path) {
    let output = std::process::Command::new("cp")
        .arg("-r")
        .args([Path::new(from), to])
        .output();
    assert!(output.unwrap().status.success());
}
