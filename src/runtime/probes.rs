//! Whether the kubelet should wait for the process, or start it anew.
//!
//! `/healthz` says that the process answers at all. `/readyz` says that it has seen the cluster: what it
//! waits for is named, so `kubectl describe pod` shows the reason. Whoever waits for the lease is ready:
//! it could take over at once. Must not know what is waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::http::StatusCode;
use tokio::net::TcpListener;

use super::http::{self, page};

/// What the process waits for before it is ready; clones share the list.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Not ready until each of `parts` is.
    pub fn of(parts: &[&'static str]) -> Self {
        let parts = parts.iter().map(|part| (*part, false)).collect();
        Self(Arc::new(Mutex::new(parts)))
    }

    /// A part is ready.
    pub fn ready(&self, part: &'static str) {
        self.parts().insert(part, true);
    }

    /// A part is not, or no longer, ready.
    pub fn not_ready(&self, part: &'static str) {
        self.parts().insert(part, false);
    }

    /// Parts that are not ready.
    pub fn waiting_for(&self) -> Vec<&'static str> {
        let parts = self.parts();
        let waiting = parts.iter().filter(|(_, ready)| !**ready);
        waiting.map(|(part, _)| *part).collect()
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers `/healthz` and `/readyz` for ever.
pub async fn serve(listener: TcpListener, readiness: Readiness) {
    let text = |status, text| Some(page(status, "text/plain; charset=utf-8", text));
    http::serve(listener, move |path| match path {
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match readiness.waiting_for().as_slice() {
            [] => text(StatusCode::OK, "ok\n".into()),
            parts => {
                let waits = format!("waiting for: {}\n", parts.join(", "));
                text(StatusCode::SERVICE_UNAVAILABLE, waits)
            }
        },
        _ => None,
    })
    .await;
}
