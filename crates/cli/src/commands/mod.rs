//! The commands. A new one is its file here, and its line in `commands!`.

mod check;
mod completion;
mod diff;
mod explain;
mod render;
mod status;
mod top;
mod version;

use clap::Subcommand;

use crate::context::{Context, Verdict};
use crate::error::CliError;

/// Makes the enumeration of the commands and the function that runs one.
macro_rules! commands {
    ($($(#[$about:meta])* $name:ident($arguments:ty),)*) => {
        /// What to do.
        #[derive(Debug, Subcommand)]
        pub enum Command {
            $($(#[$about])* $name($arguments),)*
        }

        impl Command {
            /// Runs it.
            ///
            /// # Errors
            /// If it has no answer.
            pub async fn run(self, context: &Context) -> Result<Verdict, CliError> {
                match self {
                    $(Self::$name(arguments) => Box::pin(arguments.run(context)).await,)*
                }
            }
        }
    };
}

commands! {
    /// Show what became of OtelAgents: their agents node by node, the workloads that use them, what is not as wished.
    Status(status::StatusCommand),
    /// Say of a pod, or of a manifest, why it is injected or not, rule by rule, and what injection adds.
    Explain(explain::ExplainCommand),
    /// Render the objects, policies and agent configuration of OtelAgents, without a cluster.
    Render(render::RenderCommand),
    /// Compare what the operator would write for OtelAgents with the cluster.
    Diff(diff::DiffCommand),
    /// Check whether the cluster can have otelagent (--pre), and whether an installation is whole.
    Check(check::CheckCommand),
    /// Show agents by load and losses, who sends to them, and workloads by the telemetry of their sidecars.
    Top(top::TopCommand),
    /// Show the versions of this program, the operator, the agents and Kubernetes.
    Version(version::VersionCommand),
    /// Print a script that completes commands, options and names of objects in a shell.
    Completion(completion::CompletionCommand),
    /// Answer such a script.
    #[command(name = "__complete", hide = true)]
    Complete(completion::CompleteCommand),
}
