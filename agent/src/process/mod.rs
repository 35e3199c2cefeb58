//! The process: arguments, environment, logging, exit codes.

mod agent;
mod args;
mod drain;
mod log;
mod probe;
mod reload;
mod run;
mod source;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tracing::{error, warn};

use self::agent::Options;
use self::args::Command;
use self::source::ConfigSource;
use crate::config::{Config, fields};
use crate::logging::causes;

/// Bad arguments or configuration.
const USAGE_ERROR: u8 = 2;

/// The maximum number of threads that resolve names, read queues from disk and sync them.
const BLOCKING_THREADS: usize = 4;

/// The whole program.
pub fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run {
            config,
            grace,
            lame_duck,
        }) => run(&config, grace, lame_duck),
        Ok(Command::Check(file)) => check(&file),
        Ok(Command::Reference) => {
            print!("{}", fields::reference());
            ExitCode::SUCCESS
        }
        Ok(Command::Ready) => ready(),
        Ok(Command::Version) => {
            println!("otelagent-agent {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Help) => {
            print!("{}", args::USAGE);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprint!("{message}\n\n{}", args::USAGE);
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn read(source: &mut ConfigSource, file: &Path) -> Result<Config, ExitCode> {
    source.load().map_err(|problems| {
        for problem in problems {
            eprintln!("{}: {problem}", file.display());
        }
        ExitCode::from(USAGE_ERROR)
    })
}

fn check(file: &Path) -> ExitCode {
    match read(&mut ConfigSource::new(file), file) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("warning: {warning}");
            }
            print!("{config}");
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn ready() -> ExitCode {
    let Some(socket) = std::env::var_os("OTELAGENT_HEALTH_SOCKET") else {
        eprintln!("OTELAGENT_HEALTH_SOCKET is not set");
        return ExitCode::from(USAGE_ERROR);
    };
    match probe::is_ready(Path::new(&socket)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("not ready");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&socket).display());
            ExitCode::FAILURE
        }
    }
}

fn run(file: &Path, grace: Option<OsString>, lame_duck: Option<OsString>) -> ExitCode {
    let mut source = ConfigSource::new(file);
    let config = match read(&mut source, file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let options = match options(grace, lame_duck) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    let level = log::start(&config.telemetry);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run::run(config, source, level, options));
    // A pending name resolution must not delay the end.
    runtime.shutdown_background();
    match result {
        // Losses were logged and counted; a restart would not help.
        Ok(_) => ExitCode::SUCCESS,
        Err(start) => {
            error!(reason = start.reason(), "{}", causes(&start));
            ExitCode::FAILURE
        }
    }
}

/// Flags take precedence over the environment.
fn options(grace: Option<OsString>, lame_duck: Option<OsString>) -> Result<Options, String> {
    let grace = grace.or_else(|| std::env::var_os("OTELAGENT_SHUTDOWN_GRACE"));
    let lame_duck = lame_duck.or_else(|| std::env::var_os("OTELAGENT_LAME_DUCK"));
    Ok(Options {
        grace: seconds(grace, "shutdown grace", 20)?,
        lame_duck: seconds(lame_duck, "lame duck", 0)?,
        upstream_age: seconds(
            std::env::var_os("OTELAGENT_UPSTREAM_CONNECTION_AGE"),
            "upstream connection age",
            600,
        )?,
        reuse_port: std::env::var_os("OTELAGENT_REUSE_PORT").is_some_and(|value| value == "true"),
        health_socket: std::env::var_os("OTELAGENT_HEALTH_SOCKET").map(Into::into),
    })
}

/// `20` or `20s`, up to a day.
fn seconds(text: Option<OsString>, name: &str, default: u64) -> Result<Duration, String> {
    let Some(text) = text else {
        return Ok(Duration::from_secs(default));
    };
    let text = text.to_string_lossy();
    text.strip_suffix('s')
        .unwrap_or(&text)
        .parse()
        .ok()
        .filter(|seconds| *seconds <= 86_400)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{name}: `{text}` is not a number of seconds up to 86400"))
}
