//! How tests read segments.

use segment_log::{Damage, Record, SegmentName, SegmentScan};

/// Reads a segment in pieces of about `piece` bytes, as a file is read.
pub(crate) fn read(
    name: SegmentName,
    bytes: &[u8],
    piece: usize,
    mut take: impl FnMut(Record<'_>),
) -> Damage {
    let mut scan = SegmentScan::new(name);
    let (mut at, mut wanted) = (0, piece);
    while at < bytes.len() {
        let end = (at + wanted).min(bytes.len());
        let (used, needed) = scan.read(&bytes[at..end], end == bytes.len(), |record| {
            take(record);
            true
        });
        assert!(used > 0 || needed > end - at, "the reader makes headway");
        at += used;
        wanted = piece.max(needed);
    }
    scan.damage()
}
