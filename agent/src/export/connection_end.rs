//! Why a connection ended. The task that drives it knows; the calls on it only see that it ended.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use crate::logging::causes;

#[derive(Clone, Default)]
pub(super) struct ConnectionEnd(Arc<OnceLock<String>>);

impl ConnectionEnd {
    /// Drives a connection in the background until it ends.
    pub(super) fn of<E: Error>(
        connection: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        let end = Self::default();
        let task_end = end.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let _ = task_end.0.set(causes(&error));
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
            Some(why) if !text.contains(why) => format!("{text}: {why}"),
            _ => text,
        }
    }
}
