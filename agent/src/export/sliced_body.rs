//! A request body of several slices, sent without joining them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};

use super::progress::SendProgress;

/// Smaller slices are joined: a frame or an iovec for each would cost more.
const SMALL: usize = 16 * 1024;

/// Larger slices leave piece by piece, so that progress shows.
const LARGE: usize = 64 * 1024;

/// The slices still to be sent.
pub(super) struct SlicedBody {
    parts: VecDeque<Bytes>,
    left: u64,
    progress: SendProgress,
}

impl SlicedBody {
    pub(super) fn new(parts: impl IntoIterator<Item = Bytes>, progress: SendProgress) -> Self {
        let parts: VecDeque<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let left = parts.iter().map(|part| part.len() as u64).sum();
        Self {
            parts,
            left,
            progress,
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let mut first = self.parts.pop_front()?;
        if first.len() > LARGE {
            self.parts.push_front(first.split_off(LARGE));
            return Some(first);
        }
        let next_is_small = |parts: &VecDeque<Bytes>, room: usize| {
            parts.front().is_some_and(|next| next.len() <= room)
        };
        if first.len() >= SMALL || !next_is_small(&self.parts, SMALL - first.len()) {
            return Some(first);
        }
        let mut joined = BytesMut::with_capacity(SMALL);
        joined.extend_from_slice(&first);
        while next_is_small(&self.parts, SMALL - joined.len()) {
            if let Some(next) = self.parts.pop_front() {
                joined.extend_from_slice(&next);
            }
        }
        Some(joined.freeze())
    }
}

impl Body for SlicedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.pop();
        if let Some(part) = &part {
            self.left -= part.len() as u64;
            self.progress.made();
        }
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
