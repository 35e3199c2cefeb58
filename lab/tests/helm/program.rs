//! Runs Helm.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use testbed::KubernetesVersion;
use testbed::parts::{self, Part};

use crate::test_scale::is_full;

/// Helm, with files of its own.
pub(super) struct Helm {
    program: PathBuf,
    home: PathBuf,
    pub(super) part: Part,
}

/// Helm 4 and Helm 3, with `make test-full`: they take minutes to build.
pub(super) fn each(test: &str) -> Vec<Helm> {
    if !is_full() || !testbed::skip_unless_possible(test) {
        return Vec::new();
    }
    [Part::Helm, Part::Helm3].map(Helm::new).into()
}

/// The chart in the repository.
pub(super) fn chart() -> String {
    demo::repository()
        .join("charts/otelagent")
        .display()
        .to_string()
}

/// The chart's version.
pub(super) fn version() -> String {
    let text = std::fs::read_to_string(format!("{}/Chart.yaml", chart())).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    chart["version"].as_str().unwrap().to_owned()
}

impl Helm {
    fn new(part: Part) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("otelagent-helm-{}-{number}", std::process::id());
        let home = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&home).unwrap();
        Self {
            program: parts::ensure(part).expect("Helm"),
            home,
            part,
        }
    }

    /// A directory that ends with this Helm.
    pub(super) fn directory(&self) -> &Path {
        &self.home
    }

    /// What Helm prints, or what it says when it fails.
    pub(super) fn run(&self, kubeconfig: Option<&Path>, words: &[&str]) -> Result<String, String> {
        let none = self.home.join("no-cluster");
        let output = Command::new(&self.program)
            .args(words)
            .env("HELM_CACHE_HOME", self.home.join("cache"))
            .env("HELM_CONFIG_HOME", self.home.join("config"))
            .env("HELM_DATA_HOME", self.home.join("data"))
            .env("KUBECONFIG", kubeconfig.unwrap_or(&none))
            // A proxy of this machine does not know beds.
            .env("NO_PROXY", "*")
            .env("no_proxy", "*")
            .output()
            .expect("Helm runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&[output.stderr, output.stdout].concat()))
        }
    }

    /// The objects that the chart renders for a release with these options.
    pub(super) fn template(
        &self,
        release: &str,
        namespace: &str,
        options: &[&str],
    ) -> Result<Vec<Value>, String> {
        let chart = chart();
        let version = KubernetesVersion::default().release();
        let words = [
            "template",
            release,
            &chart,
            "--namespace",
            namespace,
            "--kube-version",
            version,
        ];
        let rendered = self.run(None, &[&words, options].concat())?;
        Ok(objects(&rendered))
    }
}

impl Drop for Helm {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// The objects of a text with several documents; those of comments alone are none.
pub(super) fn objects(text: &str) -> Vec<Value> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        match documents.last_mut().filter(|_| line != "---") {
            Some(document) => document.extend([line, "\n"]),
            None => documents.push(String::new()),
        }
    }
    let is_empty = |line: &str| line.trim().is_empty() || line.starts_with('#');
    documents.retain(|document| !document.lines().all(is_empty));
    let parsed = documents.iter().map(|document| {
        serde_saphyr::from_str(document).unwrap_or_else(|why| panic!("{why}: {document}"))
    });
    parsed.collect()
}
