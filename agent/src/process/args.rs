//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::schema;

/// What `--help` prints.
pub(super) const USAGE: &str = "\
usage: otelagent-agent --config FILE [--shutdown-grace SECONDS] [--lame-duck SECONDS]
       otelagent-agent check FILE    print the effective configuration, or every problem in it
       otelagent-agent reference     print every configuration field the agent knows, as Markdown
       otelagent-agent ready [HOST:PORT]
                                     exit 0 if the agent that serves health there, or behind
                                     $OTELAGENT_HEALTH_SOCKET, is ready; else say why it is not
       otelagent-agent wait DURATION URL
                                     end once an agent at this http:// URL takes telemetry by OTLP/gRPC, or after
                                     this time; exit 0 in any case, so that what comes next starts
       otelagent-agent --version

environment:
  OTELAGENT_SHUTDOWN_GRACE   seconds to deliver what is held after SIGTERM (default 20)
  OTELAGENT_LAME_DUCK        seconds to go on accepting connections after SIGTERM (default 0)
  OTELAGENT_UPSTREAM_CONNECTION_AGE
                             seconds a connection to the upstream lives at most (default 600)
  OTELAGENT_HEALTH_SOCKET    Unix socket that also serves health
  OTELAGENT_NODE_PORT        port of the node at $OTELAGENT_HOST_IP that must lead to the agent before it is ready
  OTELAGENT_REUSE_PORT       a name: agents with the same name may listen on the same ports (SO_REUSEPORT)
";

const VERSION: &str = concat!("otelagent-agent ", env!("CARGO_PKG_VERSION"), "\n");

/// The command to execute.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Run {
        config: PathBuf,
        grace: Option<OsString>,
        lame_duck: Option<OsString>,
    },
    Check(PathBuf),
    Ready(Option<String>),
    Wait(Vec<String>),
    Print(String),
}

pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut args = args;
    let mut config = None;
    let mut grace = None;
    let mut lame_duck = None;
    while let Some(arg) = args.next() {
        let mut value = |name: &str| args.next().ok_or_else(|| format!("{name} needs a value"));
        match arg.to_str() {
            Some("--version" | "-V") => return Ok(Command::Print(VERSION.to_owned())),
            Some("--help" | "-h") => return Ok(Command::Print(USAGE.to_owned())),
            Some("reference") => return Ok(Command::Print(schema::reference())),
            Some("ready") => {
                let address = args.next();
                return Ok(Command::Ready(
                    address.map(|text| text.to_string_lossy().into()),
                ));
            }
            // Nothing that follows is an error here: a wait ends well.
            Some("wait") => {
                let rest = args.map(|text| text.to_string_lossy().into());
                return Ok(Command::Wait(rest.collect()));
            }
            Some("check") => return Ok(Command::Check(value("check")?.into())),
            Some("--config") => config = Some(value("--config")?.into()),
            Some("--shutdown-grace") => grace = Some(value("--shutdown-grace")?),
            Some("--lame-duck") => lame_duck = Some(value("--lame-duck")?),
            _ => {
                // The collector's spelling, so that images are interchangeable.
                let text = arg.to_string_lossy();
                match text.strip_prefix("--config=") {
                    Some(path) => config = Some(path.strip_prefix("file:").unwrap_or(path).into()),
                    None => return Err(format!("unknown argument `{text}`")),
                }
            }
        }
    }
    Ok(Command::Run {
        config: config.ok_or("--config FILE is missing")?,
        grace,
        lame_duck,
    })
}
