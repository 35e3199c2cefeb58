//! Shutdown on SIGTERM or SIGINT.
//!
//! The whole process has one token, so that controller, lease and servers end in the order that `main`
//! gives.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ProcessError;

/// A token that SIGTERM and SIGINT cancel. Must be called within a runtime.
pub fn on_signals() -> Result<CancellationToken, ProcessError> {
    let token = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(ProcessError::Signals)?;
        let token = token.clone();
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                tracing::info!(signal = kind.as_raw_value(), "shutting down");
                token.cancel();
            }
        });
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn signal_asks_everybody_to_end() {
        let token = on_signals().unwrap();
        let waiting = tokio::spawn(token.clone().cancelled_owned());
        assert!(!token.is_cancelled());
        let me = std::process::id().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args(["-TERM", &me]).status().unwrap().success());
        waiting.await.unwrap();
        assert!(token.is_cancelled());
    }
}
