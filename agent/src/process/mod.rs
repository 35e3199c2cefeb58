//! The process: arguments, environment, logging, exit codes. Must not know telemetry.

mod args;
mod probe;
mod run;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tracing::{error, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use self::args::Command;
use self::run::Options;
use crate::config::{self, Config, LogEncoding, LogLevel, Problem, Resolve, Telemetry};

/// Bad arguments or configuration.
const USAGE_ERROR: u8 = 2;

/// Threads that resolve names; nothing else blocks.
const BLOCKING_THREADS: usize = 2;

/// The environment and file system of this process.
struct Process;

impl Resolve for Process {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run {
            config,
            grace,
            lame_duck,
        }) => run(&config, grace, lame_duck),
        Ok(Command::Check(file)) => check(&file),
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

fn read(file: &Path) -> Result<Config, ExitCode> {
    let yaml = std::fs::read_to_string(file).map_err(|error| {
        eprintln!("cannot read {}: {error}", file.display());
        ExitCode::from(USAGE_ERROR)
    })?;
    config::load(&yaml, &Process).map_err(|problems| {
        print_problems(file, &problems);
        ExitCode::from(USAGE_ERROR)
    })
}

fn print_problems(file: &Path, problems: &[Problem]) {
    for problem in problems {
        eprintln!("{}: {problem}", file.display());
    }
}

fn check(file: &Path) -> ExitCode {
    match read(file) {
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
    let config = match read(file) {
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
    log_to_stderr(&config.telemetry);
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
    let result = runtime.block_on(run::run(config, options));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    match result {
        // Losses were told and counted; to restart for them would help nobody.
        Ok(_) => ExitCode::SUCCESS,
        Err(start) => {
            let mut causes = String::new();
            let mut source = std::error::Error::source(&start);
            while let Some(cause) = source {
                causes = format!("{causes}: {cause}");
                source = cause.source();
            }
            error!(reason = start.reason(), "{start}{causes}");
            ExitCode::FAILURE
        }
    }
}

/// Flags win over the environment.
fn options(grace: Option<OsString>, lame_duck: Option<OsString>) -> Result<Options, String> {
    let grace = grace.or_else(|| std::env::var_os("OTELAGENT_SHUTDOWN_GRACE"));
    let lame_duck = lame_duck.or_else(|| std::env::var_os("OTELAGENT_LAME_DUCK"));
    Ok(Options {
        grace: seconds(grace, "shutdown grace", 20)?,
        lame_duck: seconds(lame_duck, "lame duck", 0)?,
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

fn log_to_stderr(telemetry: &Telemetry) {
    let level = match telemetry.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // Our own lines only: a client that breaks HTTP/2 could fill the log with those of its library.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr);
    match telemetry.log_encoding {
        LogEncoding::Json => builder
            .json()
            .flatten_event(true)
            .finish()
            .with(ours)
            .init(),
        LogEncoding::Console => builder.finish().with(ours).init(),
    }
}
