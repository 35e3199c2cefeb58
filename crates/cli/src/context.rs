//! What every command is given, and what it finds.

use crate::args::Options;
use crate::cluster::Cluster;
use crate::error::CliError;
use crate::output::Terminal;

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is as wished.
    AsWished,
    /// It is not.
    NotAsWished,
}

impl Verdict {
    /// By whether all is as wished.
    pub fn of(is_as_wished: bool) -> Self {
        if is_as_wished {
            Self::AsWished
        } else {
            Self::NotAsWished
        }
    }
}

/// What every command is given.
pub struct Context {
    /// The options that all commands have.
    pub options: Options,
    /// Where answers go.
    pub terminal: Terminal,
    /// Describes the command line.
    pub program: fn() -> clap::Command,
}

impl Context {
    /// The cluster.
    ///
    /// # Errors
    /// If the kubeconfig cannot be used.
    pub async fn cluster(&self) -> Result<Cluster, CliError> {
        Cluster::of(&self.options).await
    }
}
