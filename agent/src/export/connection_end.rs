//! Why a connection ended. The task that drives it knows; the calls on it only see that it ended.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use crate::logging::causes;
use crate::tls;

#[derive(Clone, Default)]
pub(super) struct ConnectionEnd(Arc<OnceLock<Reason>>);

struct Reason {
    text: String,
    /// What to change, if TLS tells: some of its alerts come after the handshake.
    advice: Option<&'static str>,
}

impl ConnectionEnd {
    /// Drives a connection in the background until it ends.
    pub(super) fn of<E: Error + 'static>(
        connection: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        let end = Self::default();
        let task_end = end.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let reason = Reason {
                    text: causes(&error),
                    advice: tls::advice(&error),
                };
                let _ = task_end.0.set(reason);
            }
        });
        end
    }

    /// Whether both belong to the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A call's error, with the reason for the connection's end if that adds anything.
    pub(super) fn explain(&self, error: &dyn Error) -> String {
        let text = causes(error);
        match self.0.get() {
            Some(Reason { text: why, .. }) if !text.contains(why) => format!("{text}: {why}"),
            _ => text,
        }
    }

    /// What to change so that the next one does not end so.
    pub(super) fn advice(&self) -> Option<&'static str> {
        self.0.get().and_then(|reason| reason.advice)
    }
}
