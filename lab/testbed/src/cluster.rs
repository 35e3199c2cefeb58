//! The cluster a test or the demo runs on: a bed of ours, or the one that `KUBECONFIG` names.
//!
//! An external cluster is only ever spoken to by its API: its nodes are never touched.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::bed::Bed;
use crate::builder::Builder;
use crate::command::{command, run};
use crate::error::{Error, Result};
use crate::parts::{Part, ensure};
use crate::progress::say;

fn named() -> Option<PathBuf> {
    let named = env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    named.map(PathBuf::from)
}

/// Where to run.
pub enum Cluster {
    /// Ours, to do with as one likes.
    Bed(Box<Bed>),
    /// An external one.
    External {
        /// How to enter it.
        kubeconfig: PathBuf,
    },
}

impl Cluster {
    /// The cluster that `KUBECONFIG` names if it is set and not empty, else a new bed.
    pub fn from_env_or_bed(builder: Builder) -> Result<Self> {
        let Some(kubeconfig) = named() else {
            return builder.start().map(|bed| Self::Bed(Box::new(bed)));
        };
        if !kubeconfig.is_file() {
            return Err(Error::Invalid(format!(
                "KUBECONFIG names {}, which is no file; name one file, or unset it to use a bed",
                kubeconfig.display()
            )));
        }
        say(&format!(
            "use the cluster of {} because KUBECONFIG is set",
            kubeconfig.display()
        ));
        Ok(Self::External { kubeconfig })
    }

    /// Whether `KUBECONFIG` names a cluster.
    pub fn is_named() -> bool {
        named().is_some()
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        match self {
            Self::Bed(bed) => bed.kubeconfig(),
            Self::External { kubeconfig } => kubeconfig,
        }
    }

    /// A kubectl that speaks to the cluster.
    pub fn kubectl(&self) -> Result<Command> {
        match self {
            Self::Bed(bed) => Ok(bed.kubectl()),
            Self::External { kubeconfig } => {
                let mut kubectl = command(ensure(Part::Kubectl)?);
                kubectl.env("KUBECONFIG", kubeconfig);
                Ok(kubectl)
            }
        }
    }

    /// The names of the nodes that take any pod. Of a cluster that is not ours these are those without taints: its
    /// control plane may be nodes, too.
    pub fn node_names(&self) -> Result<Vec<String>> {
        match self {
            Self::Bed(bed) => Ok(bed.node_names()),
            Self::External { .. } => {
                let answer = run(self.kubectl()?.args(["get", "nodes", "--output=json"]))?;
                let nodes: Value = serde_json::from_str(&answer)?;
                let nodes = nodes["items"].as_array().into_iter().flatten();
                let open = nodes.filter(|node| node["spec"].get("taints").is_none());
                let names = open.filter_map(|node| node["metadata"]["name"].as_str());
                Ok(names.map(str::to_owned).collect())
            }
        }
    }

    /// Gives an image to every node.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        self.bed("loading an image")?.load_image(tar)
    }

    /// The bed, for what can only be done to one; `doing` says what, for the message.
    pub fn bed(&self, doing: &'static str) -> Result<&Bed> {
        match self {
            Self::Bed(bed) => Ok(bed),
            Self::External { .. } => Err(Error::External(doing)),
        }
    }
}
