//! Why a connection ended. The task that drives it knows, the calls on it learn only that it did. Must
//! not know what was spoken on it.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use crate::live::causes;

/// The end of one connection, once it has come.
#[derive(Clone, Default)]
pub(super) struct Ending(Arc<OnceLock<String>>);

impl Ending {
    /// Drives a connection in the background until it ends.
    pub(super) fn of<E: Error>(
        connection: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        let ending = Self::default();
        let told = ending.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let _ = told.0.set(causes(&error));
            }
        });
        ending
    }

    /// Whether both are the end of the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What a call failed of, with what the connection ended of where that says more.
    pub(super) fn explain(&self, error: &dyn Error) -> String {
        let text = causes(error);
        match self.0.get() {
            Some(why) if !text.contains(why) => format!("{text}: {why}"),
            _ => text,
        }
    }
}
