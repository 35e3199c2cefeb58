//! Which versions of everything the bed is made of.
//!
//! Each pin is a go.mod and go.sum under `parts/`, embedded so that the command works from any
//! directory. Knows nothing of how they are built.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The two files of a directory under `parts/`.
macro_rules! pinned {
    ($dir:literal) => {
        (
            include_str!(concat!("../parts/", $dir, "/go.mod")),
            include_str!(concat!("../parts/", $dir, "/go.sum")),
        )
    };
}

/// A Kubernetes release the bed can run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum KubernetesVersion {
    /// 1.33: no `MutatingAdmissionPolicy`, and the first with native sidecars for all.
    #[serde(rename = "1.33")]
    V1_33,
    /// 1.35: the last without `MutatingAdmissionPolicy` unless a gate is opened.
    #[serde(rename = "1.35")]
    V1_35,
    /// 1.36: the first with `MutatingAdmissionPolicy`.
    #[serde(rename = "1.36")]
    V1_36,
    /// 1.37
    #[default]
    #[serde(rename = "1.37")]
    V1_37,
}

impl KubernetesVersion {
    /// All of them, oldest first.
    pub const ALL: &'static [Self] = &[Self::V1_33, Self::V1_35, Self::V1_36, Self::V1_37];

    /// The minor release, as in `1.37`.
    pub fn minor(self) -> &'static str {
        match self {
            Self::V1_33 => "1.33",
            Self::V1_35 => "1.35",
            Self::V1_36 => "1.36",
            Self::V1_37 => "1.37",
        }
    }

    /// The exact release, as in `v1.37.2`.
    pub fn release(self) -> &'static str {
        match self {
            Self::V1_33 => "v1.33.13",
            Self::V1_35 => "v1.35.4",
            Self::V1_36 => "v1.36.3",
            Self::V1_37 => "v1.37.2",
        }
    }

    /// Whether a bed of this release can have nodes. Of older releases only the API server is built,
    /// because every program of every release takes its minutes on a fresh machine, and a newer
    /// scheduler waits for kinds that an older server does not have.
    pub fn has_nodes(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn module(self) -> GoModule {
        let (go_mod, go_sum) = match self {
            Self::V1_33 => pinned!("kubernetes-1.33"),
            Self::V1_35 => pinned!("kubernetes-1.35"),
            Self::V1_36 => pinned!("kubernetes-1.36"),
            Self::V1_37 => pinned!("kubernetes-1.37"),
        };
        GoModule {
            name: "kubernetes",
            version: self.release(),
            go_mod,
            go_sum,
            main_go: "",
        }
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.minor())
    }
}

impl FromStr for KubernetesVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = || {
            Self::ALL
                .iter()
                .map(|version| version.minor())
                .collect::<Vec<_>>()
                .join(", ")
        };
        Self::ALL
            .iter()
            .copied()
            .find(|version| text == version.minor() || text == version.release())
            .ok_or_else(|| {
                Error::Invalid(format!(
                    "Kubernetes {text} is not pinned here; known: {}",
                    known()
                ))
            })
    }
}

/// A pinned set of Go modules.
#[derive(Clone, Copy)]
pub(crate) struct GoModule {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) go_mod: &'static str,
    pub(crate) go_sum: &'static str,
    /// A main package of ours, where the module's own would link too much.
    pub(crate) main_go: &'static str,
}

macro_rules! module {
    ($name:literal, $version:literal) => {
        GoModule {
            name: $name,
            version: $version,
            go_mod: include_str!(concat!("../parts/", $name, "/go.mod")),
            go_sum: include_str!(concat!("../parts/", $name, "/go.sum")),
            main_go: "",
        }
    };
}

pub(crate) const ETCD: GoModule = module!("etcd", "v3.7.3");
pub(crate) const CONTAINERD: GoModule = module!("containerd", "v2.3.7");
pub(crate) const CNI: GoModule = module!("cni", "v1.9.1");
pub(crate) const COREDNS: GoModule = GoModule {
    main_go: include_str!("../parts/coredns/main.go"),
    ..module!("coredns", "v1.15.0")
};
pub(crate) const KWOK: GoModule = module!("kwok", "v0.8.0");
/// The commit of release 2.6.0, whose tag the Go command cannot name: its go.mod says no /v2.
pub(crate) const H2SPEC: GoModule = module!("h2spec", "v0.0.0-20200804131034-70ac22940108");
pub(crate) const ARGO_ROLLOUTS: GoModule = module!("argo-rollouts", "v1.8.3");
/// Security flaws are reported for this release, and there was no newer one to be had. It runs on the bed only, and of it
/// only what enforces network policies.
pub(crate) const KUBE_ROUTER: GoModule = module!("kube-router", "v2.1.0");
pub(crate) const REGISTRY: GoModule = GoModule {
    main_go: include_str!("../parts/registry/main.go"),
    ..module!("registry", "v3.0.0")
};
/// The collector's builder; what it generates is pinned by [`COLLECTOR`].
pub(crate) const COLLECTOR_BUILDER: GoModule = module!("otelcol", "v0.162.0");
pub(crate) const COLLECTOR: GoModule = GoModule {
    name: "otelcol",
    version: "v0.162.0",
    go_mod: include_str!("../parts/otelcol/collector.mod"),
    go_sum: include_str!("../parts/otelcol/collector.sum"),
    main_go: "",
};
/// The list of components the collector is built of.
pub(crate) const COLLECTOR_COMPONENTS: &str = include_str!("../parts/otelcol/builder-config.yaml");
