//! The options that every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How to reach the cluster, and how to show what it says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The kubeconfig file. Default: KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// The form of what is shown.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// No colours.
    #[arg(
        long,
        global = true,
        help = "No colours. The variable NO_COLOR says the same"
    )]
    pub no_color: bool,
    /// How many seconds one request may take.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub request_timeout: u64,
}

/// The form of what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people, as wide as the terminal.
    #[default]
    Text,
    /// For people, with nothing cut or folded.
    Wide,
    /// A versioned document.
    Json,
    /// The same as YAML.
    Yaml,
}

impl Output {
    /// Whether it is for people.
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Text | Self::Wide)
    }

    /// What stands between two answers.
    pub fn separator(self) -> &'static str {
        match self {
            Self::Yaml => "---\n",
            Self::Text | Self::Wide | Self::Json => "\n",
        }
    }
}
