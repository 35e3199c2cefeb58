//! The end, asked for by SIGTERM or SIGINT, or by a task that cannot go on.
//!
//! One token for the whole process, so that controller, lease and servers end in the order `main` says
//! and nothing else takes over the signals.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::ProcessError;

/// A token that says whether the process should end.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A token that SIGTERM and SIGINT trigger. Must be called within a runtime.
    pub fn on_signals() -> Result<Self, ProcessError> {
        let token = Self::default();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let mut signals = signal(kind).map_err(ProcessError::Signals)?;
            let token = token.clone();
            tokio::spawn(async move {
                if signals.recv().await.is_some() {
                    tracing::info!(signal = kind.as_raw_value(), "asked to end");
                    token.request();
                }
            });
        }
        Ok(token)
    }

    /// Asks the process to end.
    pub fn request(&self) {
        self.0.cancel();
    }

    /// Whether the process should end.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the process should end. Owns what it needs, so it fits `graceful_shutdown_on`.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        self.0.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_of_a_request() {
        let token = Shutdown::default();
        let waiting = tokio::spawn(token.requested());
        assert!(!token.is_requested());
        token.clone().request();
        waiting.await.unwrap();
        assert!(token.is_requested());
    }

    #[tokio::test]
    async fn a_signal_is_a_request() {
        let token = Shutdown::on_signals().unwrap();
        let me = std::process::id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-TERM", &me])
                .status()
                .unwrap()
                .success()
        );
        token.requested().await;
    }
}
