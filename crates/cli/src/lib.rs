//! `kubectl otelagent`: shows, explains and previews what the operator does.
//!
//! It decides nothing. The functions of `otelagent-core` by which the operator decides say here what it has decided and
//! why, so that the two cannot disagree.
//!
//! - [`commands`]: one file per command: what to read, what to show.
//! - [`cluster`]: the cluster with the user's own rights; all I/O is here and in [`output`].
//! - [`mod@status`], [`explain`], [`render`], [`check`], [`top`]: the answers of commands as values, and their text.
//! - [`text`]: lines, tables, colours; nothing from a cluster steers the terminal.

pub mod args;
pub mod check;
pub mod cluster;
pub mod command_line;
pub mod commands;
pub mod complete;
pub mod context;
pub mod error;
pub mod explain;
pub mod installation;
pub mod manifest;
pub mod output;
pub mod overlaps;
pub mod render;
pub mod screen;
pub mod snapshot;
pub mod status;
pub mod text;
pub mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::command_line::CommandLine;
use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::output::Terminal;
use crate::text::escape;

/// The words of the command line. Those that are being typed are taken as they are.
fn words() -> Vec<OsString> {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == "__complete") {
        words.insert(2, "--".into());
    }
    words
}

/// Reads the command line, runs its command and says how that ended.
pub fn main() -> ExitCode {
    let CommandLine { command, options } = CommandLine::parse_from(words());
    let context = Context {
        terminal: Terminal::of(&options),
        program: CommandLine::command,
        options,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(command.run(&context)),
        Err(error) => Err(CliError::Internal(format!("no runtime: {error}"))),
    };
    match outcome {
        Ok(Verdict::AsWished) => ExitCode::SUCCESS,
        Ok(Verdict::NotAsWished) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {}", escape(&error.to_string()));
            ExitCode::from(error.exit_code())
        }
    }
}
