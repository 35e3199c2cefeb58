//! Whether the kubelet should wait for the process, or start it anew.
//!
//! `/healthz` says that the process answers at all. `/readyz` says that it has seen the cluster: what it
//! waits for is named, so `kubectl describe pod` shows the reason. Whoever waits for the lease is ready:
//! it could take over at once. Must not know what is waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpListener;

use super::http::{self, Page};

const TEXT: &str = "text/plain; charset=utf-8";

/// What the process waits for before it is ready; clones share the list.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Not ready until each of `parts` is.
    pub fn of(parts: &[&'static str]) -> Self {
        Self(Arc::new(Mutex::new(
            parts.iter().map(|part| (*part, false)).collect(),
        )))
    }

    /// A part is ready.
    pub fn ready(&self, part: &'static str) {
        self.set(part, true);
    }

    /// A part is not, or no longer, ready.
    pub fn not_ready(&self, part: &'static str) {
        self.set(part, false);
    }

    /// Parts that are not ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(part, _)| *part)
            .collect()
    }

    fn set(&self, part: &'static str, ready: bool) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(part, ready);
    }
}

/// Answers `/healthz` and `/readyz` for ever.
pub async fn serve(listener: TcpListener, readiness: Readiness) {
    http::serve(listener, move |path| match path {
        "/healthz" => Some(Page::ok(TEXT, "ok\n".into())),
        "/readyz" => Some(match readiness.waiting_for().as_slice() {
            [] => Page::ok(TEXT, "ok\n".into()),
            parts => Page::unavailable(TEXT, format!("waiting for: {}\n", parts.join(", "))),
        }),
        _ => None,
    })
    .await;
}
