//! Runs the agent: reloads its configuration on SIGHUP or when its files change, and drains it on SIGTERM.

use std::pin::pin;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing::{info, warn};

use super::agent::{Agent, Options, StartError};
use super::log::Log;
use super::source::{ConfigSource, ConfigWatch};
use crate::config::Config;

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(
    config: Config,
    source: ConfigSource,
    log: &Log,
    options: Options,
) -> Result<(), StartError> {
    let on = |kind| signal(kind).map_err(StartError::Signals);
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let hangup = on(SignalKind::hangup())?;
    let mut end = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut agent = Agent::start(config, &options).await?;
    agent.report.metrics.configured(source.fingerprint);
    // With a host port, the agent logs that it is ready when that port leads to it.
    let how_far = options.node_port.map_or("ready", |_| "started");
    info!(
        version = env!("CARGO_PKG_VERSION"),
        otlp = agent.otlp,
        "{how_far}"
    );
    let watch = ConfigWatch { source, hangup };
    let mut change = pin!(watch.next(agent.preparation()));
    loop {
        tokio::select! {
            biased;
            () = end() => break,
            (watch, prepared) = &mut change => {
                agent.reload(prepared, watch.source.fingerprint, log);
                change.set(watch.next(agent.preparation()));
            }
        }
    }
    let deadline = Instant::now() + options.grace;
    tokio::select! {
        () = agent.drain(options.lame_duck, deadline) => {}
        () = end() => warn!("second signal; ending at once"),
    }
    Ok(())
}
