//! What is sent in one call.

/// A batch, or a part of one.
pub trait Piece: Sized {
    /// The size in uncompressed bytes.
    fn bytes(&self) -> usize;

    /// The bytes of the queue that it takes up: a cut divides them, while [`Piece::bytes`] may grow by what both
    /// parts need.
    fn queued_bytes(&self) -> usize {
        self.bytes()
    }

    /// The number of senders' requests in it; a part of a single request counts as one.
    fn requests(&self) -> usize;

    /// Splits off the second half: half of the requests, or half of a single request. `None` if it cannot be
    /// cut.
    fn split(&mut self) -> Option<Self>;
}
