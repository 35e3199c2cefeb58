//! The command line: a command, and the options that all of them take.

use clap::Parser;

use crate::args::Options;
use crate::commands::Command;

/// Shows, explains and previews what the otelagent operator does.
#[derive(Debug, Parser)]
#[command(name = "kubectl-otelagent", bin_name = "kubectl otelagent", version)]
#[command(
    after_help = "Exit codes: 0 all is as wished, 1 it is not, 2 wrong use, 3 no connection or a missing right."
)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to reach the cluster, and how to show what it says.
    #[command(flatten)]
    pub options: Options,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;

    #[test]
    fn command_line_is_sound() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_behind_the_command() {
        let read = |words: &[&str]| {
            let words = ["kubectl-otelagent"].iter().chain(words);
            CommandLine::try_parse_from(words).unwrap().options
        };
        let before = read(&["-n", "shop", "-o", "yaml", "status"]);
        let behind = read(&["status", "-n", "shop", "-o", "yaml"]);
        for options in [before, behind] {
            assert_eq!(options.namespace.as_deref(), Some("shop"));
            assert_eq!(options.output, Output::Yaml);
        }
    }
}
