//! The end, asked for by SIGTERM or SIGINT.
//!
//! One token for the whole process, so that controller, lease and servers end in the order `main` says
//! and nothing else takes over the signals.

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
                tracing::info!(signal = kind.as_raw_value(), "asked to end");
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
    async fn a_signal_asks_everybody_to_end() {
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
