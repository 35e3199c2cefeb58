//! Which encoding of requests an upstream takes: the configured one, or a plainer one for a while once that was refused.

use std::sync::Mutex;
use std::time::Duration;

use otelagent_flow::Outcome;
use tokio::time::Instant;

use super::answer::UpstreamAnswer;
use crate::config::Compression;
use crate::lock::lock;

/// After this the configured encoding is tried again.
pub(super) const REMEMBERED: Duration = Duration::from_hours(1);

/// The encodings of one upstream.
pub(super) struct Fallback {
    configured: Compression,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A plainer encoding, and until when.
    plainer: Option<(Compression, Instant)>,
    /// Whether the upstream has taken a request in the configured encoding.
    is_proven: bool,
}

impl Fallback {
    pub(super) fn new(configured: Compression) -> Self {
        Self {
            configured,
            state: Mutex::default(),
        }
    }

    /// The encoding of an attempt that begins now.
    pub(super) fn current(&self) -> Compression {
        let mut state = lock(&self.state);
        match state.plainer {
            Some((plainer, until)) if Instant::now() < until => return plainer,
            Some(_) => *state = State::default(),
            None => {}
        }
        self.configured
    }

    /// The encoding to try at once after this answer, if that may be to blame. Servers that do not look at the encoding
    /// refuse zstd as bad data, so until it was taken once that is doubted.
    pub(super) fn plainer(
        &self,
        used: Compression,
        answer: &UpstreamAnswer,
    ) -> Option<Compression> {
        let is_doubted = || answer.outcome == Outcome::BadData && !lock(&self.state).is_proven;
        match used {
            Compression::Zstd if answer.refuses_encoding || is_doubted() => Some(Compression::Gzip),
            Compression::Gzip if answer.refuses_encoding => Some(Compression::None),
            _ => None,
        }
    }

    /// The upstream took a request in this encoding.
    pub(super) fn taken(&self, used: Compression) {
        if used == self.configured {
            lock(&self.state).is_proven = true;
        }
    }

    /// Uses a plainer encoding from now on; returns whether that is news.
    pub(super) fn remember(&self, plainer: Compression) -> bool {
        let mut state = lock(&self.state);
        let before = state
            .plainer
            .replace((plainer, Instant::now() + REMEMBERED));
        before.is_none_or(|(before, _)| before != plainer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn answer(outcome: Outcome, refuses_encoding: bool) -> UpstreamAnswer {
        UpstreamAnswer {
            outcome,
            refuses_encoding,
            ..UpstreamAnswer::unreachable("")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn plainer_encoding_is_remembered_for_an_hour() {
        let fallback = Fallback::new(Compression::Zstd);
        assert_eq!(fallback.current(), Compression::Zstd);
        assert!(fallback.remember(Compression::Gzip));
        assert!(!fallback.remember(Compression::Gzip));
        assert_eq!(fallback.current(), Compression::Gzip);
        advance(REMEMBERED).await;
        assert_eq!(fallback.current(), Compression::Zstd);
    }

    #[test]
    fn bad_data_is_doubted_until_zstd_was_taken_once() {
        let fallback = Fallback::new(Compression::Zstd);
        let bad = answer(Outcome::BadData, false);
        let gzip = Some(Compression::Gzip);
        assert_eq!(fallback.plainer(Compression::Zstd, &bad), gzip);
        assert_eq!(fallback.plainer(Compression::Gzip, &bad), None);
        fallback.taken(Compression::Zstd);
        assert_eq!(fallback.plainer(Compression::Zstd, &bad), None);
        let unknown = answer(Outcome::Denied, true);
        assert_eq!(fallback.plainer(Compression::Zstd, &unknown), gzip);
        let none = Some(Compression::None);
        assert_eq!(fallback.plainer(Compression::Gzip, &unknown), none);
        assert_eq!(fallback.plainer(Compression::None, &unknown), None);
    }
}
