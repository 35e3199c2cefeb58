//! What comes of an attempt.

use std::time::Duration;

/// What the end of an attempt says about the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took the piece.
    Delivered,
    /// The size: it may take smaller ones.
    TooLarge,
    /// The data: it will never take the same bytes.
    BadData,
    /// The way: credentials, path or protocol are refused, whatever the data.
    Denied,
    /// The load: it may take the piece later, and asks for a wait or not.
    Busy(Option<Duration>),
    /// The load, by a status that the OTLP specification calls final: a quota is exhausted, and no wait named.
    Exhausted,
    /// There was no answer in time.
    TimedOut,
    /// The connection ended before the answer.
    Broken,
    /// There was no connection, so nothing was sent.
    Unreachable,
}

impl Outcome {
    /// Whether the attempt failed for a reason that may pass.
    pub fn is_retryable(self) -> bool {
        !matches!(self, Self::Delivered | Self::TooLarge | Self::BadData)
    }
}

/// Why a piece is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The upstream will never take it.
    Permanent,
    /// It is larger than the upstream takes and cannot be cut.
    TooLarge,
    /// Its time is up, retries are switched off, or it stops others that the upstream takes.
    GivenUp,
}

/// A piece that is settled.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled<P> {
    /// Delivered.
    Delivered(P),
    /// Lost.
    Lost(P, Loss),
}

/// Something to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A piece of so many bytes was too large and was cut.
    Cut(usize),
    /// A piece of so many requests holds data that the upstream refuses, and was halved to find it.
    Isolating(usize),
    /// The calls for finding refused data are used up for now, so a piece of so many requests is lost whole.
    IsolationSpent(usize),
    /// The upstream asked for a longer wait than it gets.
    WaitBounded {
        /// What it asked for.
        asked: Duration,
        /// What it gets.
        granted: Duration,
    },
}

/// What came of an attempt. A piece that is not settled waits in the flow, whole or in halves.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished<P> {
    /// The piece, if this was its end.
    pub settled: Option<Settled<P>>,
    /// Something to log.
    pub note: Option<Note>,
}
