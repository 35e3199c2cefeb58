//! Reads request bodies within their limits, and discards refused ones.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection_state::{Arriving, ConnectionState, InFlight};
use super::refusal::Refusal;
use crate::budget::Permit;
use crate::senders::Sender;

/// The time limit for a whole body.
const BODY: Duration = Duration::from_secs(30);

/// The limits for the rest of a refused body.
const DISCARD_BYTES: usize = 32 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// The number of bodies discarded at a time; each uses a few kilobytes that no budget counts.
static DISCARDS: Semaphore = Semaphore::const_new(1024);

/// A request body. A background task reads the rest of a refused one and discards it: HTTP/2 closes a
/// connection after a thousand reset streams, so resets would cost an overloaded agent its connections.
/// The number of such tasks is limited; beyond it streams are reset.
pub(super) struct RequestBody {
    body: Option<(Incoming, Arriving)>,
    state: Arc<ConnectionState>,
    /// Whether its connection has memory for it.
    pub(super) is_paid: bool,
}

impl RequestBody {
    pub(super) fn new(body: Incoming, of: &InFlight) -> Self {
        Self {
            body: Some((body, Arriving::new(&of.state))),
            state: Arc::clone(&of.state),
            is_paid: of.is_paid,
        }
    }

    /// Whose request it is.
    pub(super) fn sender(&self) -> &Arc<Sender> {
        &self.state.sender
    }

    /// The announced length; 0 if there is none.
    pub(super) fn announced(&self) -> usize {
        let length = self
            .body
            .as_ref()
            .and_then(|(body, _)| body.size_hint().exact());
        usize::try_from(length.unwrap_or_default()).unwrap_or(usize::MAX)
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Refusal> {
        while let Some((body, _)) = &mut self.body {
            match body.frame().await {
                None => self.body = None,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(_)) => {
                    self.body = None;
                    return Err(Refusal::Disconnected);
                }
            }
        }
        Ok(None)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|(body, _)| !body.is_end_stream());
        let Some((body, arriving)) = unread else {
            return;
        };
        if let (Ok(permit), Ok(runtime)) = (DISCARDS.try_acquire(), Handle::try_current()) {
            // The HTTP/2 stream is still open, so it counts as in flight.
            let in_flight = self.state.go_on();
            runtime.spawn(async move {
                let _ = timeout(DISCARD_TIME, discard(body)).await;
                drop((permit, arriving, in_flight));
            });
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        // After the answer, hyper reports the end of an HTTP/1.1 body of known length only with the next
        // request; until then its client must not count as slow.
        if read > DISCARD_BYTES || body.is_end_stream() {
            return;
        }
    }
}

/// The bytes of a body that are reserved before it arrives; its announced length may be wrong.
pub(super) const ADVANCE: usize = 16 * 1024;

/// Reads a body of at most `limit` bytes and reserves memory for each before it keeps it. `permit` already
/// covers [`ADVANCE`] or the announced length, whichever is less. `length` reads the total length from the
/// first chunk, for bodies that begin with it.
pub(super) async fn collect(
    mut body: RequestBody,
    limit: usize,
    permit: &mut Permit,
    length: impl Fn(&[u8]) -> usize,
) -> Result<Vec<u8>, Refusal> {
    let read = async {
        let mut expected = body.announced();
        let mut paid = expected.min(ADVANCE);
        let mut collected = Vec::with_capacity(paid);
        while let Some(data) = body.frame().await? {
            if collected.is_empty() {
                expected = expected.max(length(&data));
            }
            let needed = collected.len() + data.len();
            if needed.max(expected) > limit {
                return Err(Refusal::TooLarge(limit));
            }
            if needed > paid {
                // Twice what has arrived, but no more than expected: few copies, and a client cannot
                // reserve memory by announcing much and sending little.
                let most = if expected >= needed { expected } else { limit };
                let capacity = (needed * 2).min(most);
                permit
                    .grow(capacity - paid)
                    .map_err(|_| Refusal::MemoryLimit)?;
                collected.reserve_exact(capacity - collected.len());
                paid = capacity;
            }
            collected.extend_from_slice(&data);
        }
        Ok(collected)
    };
    timeout(BODY, read).await.unwrap_or(Err(Refusal::TooSlow))
}
