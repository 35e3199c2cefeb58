//! Where a request that is too large for the upstream can be cut.

use crate::wire::fields;

/// The point between two entries nearest to the middle; both halves are requests. `None` for a single
/// entry, and for requests with other top-level fields, which may belong to all entries.
pub fn split_point(request: &[u8]) -> Option<usize> {
    let half = request.len() / 2;
    let mut best: Option<usize> = None;
    let mut at = 0;
    for field in fields(request) {
        let field = field.ok()?;
        if field.number != 1 {
            return None;
        }
        at += field.raw.len();
        if at < request.len() && best.is_none_or(|best| at.abs_diff(half) < best.abs_diff(half)) {
            best = Some(at);
        }
    }
    best
}
