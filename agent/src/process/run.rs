//! Runs the agent: reloads its configuration on SIGHUP or when its files change, and drains it on SIGTERM.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::agent::{Agent, Options, StartError};
use super::log::Level;
use super::source::ConfigSource;
use crate::config::Config;

/// The interval of checks of the configuration's files.
const POLL: Duration = Duration::from_secs(3);

/// A file that was written just now may be incomplete.
const SETTLE: Duration = Duration::from_millis(100);

/// Runs until SIGTERM or SIGINT.
pub(super) async fn run(
    config: Config,
    mut source: ConfigSource,
    level: Level,
    options: Options,
) -> Result<(), StartError> {
    let on = |kind| signal(kind).map_err(StartError::Signals);
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    let mut hangup = on(SignalKind::hangup())?;
    let mut end = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut agent = Agent::start(config, &options).await?;
    agent.report.metrics.configured(source.fingerprint);
    info!(
        version = env!("CARGO_PKG_VERSION"),
        otlp = agent.otlp,
        "ready"
    );
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = end() => break,
            _ = hangup.recv() => agent.reload(&mut source, &level),
            _ = poll.tick() => if source.has_changed() {
                sleep(SETTLE).await;
                agent.reload(&mut source, &level);
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
