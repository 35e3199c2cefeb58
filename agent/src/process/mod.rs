//! The process: arguments, environment, logging, exit codes.

mod agent;
mod allocator;
mod args;
mod drain;
mod log;
mod node_port;
mod probe;
mod push;
mod reload;
mod run;
mod source;
mod wait;

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tracing::{error, warn};

use self::agent::Options;
use self::args::Command;
use self::log::Log;
use self::probe::Place;
use self::source::ConfigSource;
use crate::config::{Config, Problem};
use crate::logging::causes;
use crate::receive::PortOwner;

/// Bad arguments or configuration.
const USAGE_ERROR: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    let done = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run {
            config,
            grace,
            lame_duck,
        }) => run(&config, grace, lame_duck),
        Ok(Command::Check(file)) => check(&file),
        Ok(Command::Ready(address)) => ready(address),
        Ok(Command::Wait(args)) => {
            // `eprintln!` panics if standard error is closed.
            let _ = writeln!(std::io::stderr(), "{}", wait::wait(&args));
            Ok(())
        }
        Ok(Command::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Err(message) => Err(usage(&format!("{message}\n\n{}", args::USAGE.trim_end()))),
    };
    done.err().unwrap_or(ExitCode::SUCCESS)
}

/// Ends the program because of its arguments or configuration.
fn usage(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(USAGE_ERROR)
}

fn usable(read: Result<Config, Vec<Problem>>, file: &Path) -> Result<Config, ExitCode> {
    read.map_err(|problems| {
        for problem in problems {
            eprintln!("{}: {problem}", file.display());
        }
        ExitCode::from(USAGE_ERROR)
    })
}

fn check(file: &Path) -> Result<(), ExitCode> {
    let config = usable(ConfigSource::new(file).load(), file)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    print!("{config}");
    Ok(())
}

fn ready(address: Option<String>) -> Result<(), ExitCode> {
    let socket = || std::env::var_os("OTELAGENT_HEALTH_SOCKET");
    let place = match address {
        Some(address) => Some(Place::Address(address)),
        None => socket().map(|socket| Place::Socket(socket.into())),
    };
    let place = place
        .ok_or_else(|| usage("OTELAGENT_HEALTH_SOCKET is not set, and no address is given"))?;
    match place.lacks() {
        Ok(None) => return Ok(()),
        Ok(Some(why)) => eprintln!("{why}"),
        Err(error) => eprintln!("no answer: {error}"),
    }
    Err(ExitCode::FAILURE)
}

fn run(file: &Path, grace: Option<OsString>, lame_duck: Option<OsString>) -> Result<(), ExitCode> {
    allocator::settle();
    let mut source = ConfigSource::new(file);
    let config = usable(source.load_at_start(), file)?;
    let options = options(grace, lame_duck).map_err(|message| usage(&message))?;
    let log = log::start(&config.telemetry);
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let ended = serve(config, source, &log, options);
    log.end();
    ended
}

fn serve(
    config: Config,
    source: ConfigSource,
    log: &Log,
    options: Options,
) -> Result<(), ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        error!(%error, "cannot start the runtime");
        ExitCode::FAILURE
    })?;
    let result = runtime.block_on(run::run(config, source, log, options));
    // Nothing that is still under way must delay the end.
    runtime.shutdown_background();
    // Losses were logged and counted; a restart would not help.
    result.map_err(|start| {
        error!(reason = start.reason(), "{}", causes(&start));
        ExitCode::FAILURE
    })
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
        port_owner: port_owner(std::env::var_os("OTELAGENT_REUSE_PORT"))?,
        health_socket: std::env::var_os("OTELAGENT_HEALTH_SOCKET").map(Into::into),
        node_port: node_port(
            std::env::var_os("OTELAGENT_HOST_IP"),
            std::env::var_os("OTELAGENT_NODE_PORT"),
        )?,
    })
}

/// The port of the node that must lead to this agent; none if unset.
fn node_port(host: Option<OsString>, port: Option<OsString>) -> Result<Option<SocketAddr>, String> {
    let Some(port) = port.filter(|port| !port.is_empty()) else {
        return Ok(None);
    };
    let (host, port) = (
        host.unwrap_or_default(),
        port.to_string_lossy().into_owned(),
    );
    let host = host.to_string_lossy();
    let number = port.parse().ok().filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| format!("OTELAGENT_NODE_PORT: `{port}` is not a port number"))?;
    let host: IpAddr = host.parse().map_err(|_| {
        format!("OTELAGENT_NODE_PORT needs the node's address in OTELAGENT_HOST_IP, not `{host}`")
    })?;
    Ok(Some(SocketAddr::new(host, number)))
}

/// The name of those that may share the ports; none if unset or `false`.
fn port_owner(text: Option<OsString>) -> Result<Option<PortOwner>, String> {
    let text = text.unwrap_or_default();
    let text = text.to_string_lossy();
    if text.is_empty() || text == "false" {
        return Ok(None);
    }
    let owner = PortOwner::parse(&text).ok_or_else(|| {
        format!("OTELAGENT_REUSE_PORT: `{text}` is not a name of up to 63 letters, digits, `-`, `_` and `.`")
    })?;
    Ok(Some(owner))
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
