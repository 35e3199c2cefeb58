//! Runs the agent: reloads its configuration on SIGHUP or when its files change, and drains it on SIGTERM.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
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
    let mut signals = Signals::new().map_err(StartError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
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
            () = signals.end() => break,
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
        () = signals.end() => warn!("second signal; ending at once"),
    }
    Ok(())
}

struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
