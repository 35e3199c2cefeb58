//! The queue on disk: segments of arbitrary records with arbitrary damage.

use segment_log::{HEADER, SegmentScan, header};

const SALT: u32 = 0x5a17;
const FIRST: u64 = 7;

/// The first byte says where the file is cut, and the second how many of the next pairs flip a byte each;
/// what follows are records, a length and its bytes. What is read is what was written, in order; only
/// records that were hit are missing.
pub fn segment(bytes: &[u8]) {
    let [cut, flips, rest @ ..] = bytes else {
        return;
    };
    let Some((flips, mut rest)) = rest.split_at_checked(usize::from(flips % 4) * 2) else {
        return;
    };
    let (mut file, mut records) = (Vec::new(), Vec::new());
    while let [length, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        let sequence = FIRST + records.len() as u64;
        let begin = file.len();
        let items = payload.len() as u32;
        file.extend(header(SALT, sequence, items, payload).expect("short"));
        file.extend(payload);
        records.push((sequence, payload, begin..file.len()));
        rest = after;
    }
    let mut hit = Vec::new();
    for pair in flips.chunks_exact(2) {
        let at = usize::from(pair[0]) * 3;
        if let Some(byte) = file.get_mut(at).filter(|_| pair[1] != 0) {
            *byte ^= pair[1];
            hit.push(at);
        }
    }
    let end = file.len() * (256 - usize::from(*cut)) / 256;
    file.truncate(end);
    let mut scan = SegmentScan::new(SALT, FIRST);
    let mut read = Vec::new();
    let (used, _) = scan.read(&file, true, |record| {
        assert_eq!(record.items, record.payload.len() as u32);
        read.push((record.sequence, record.payload));
    });
    assert_eq!(used, file.len());
    let sound = records
        .iter()
        .filter(|(_, _, place)| place.end <= end && !hit.iter().any(|at| place.contains(at)));
    // A byte that is flipped twice is as it was.
    let known = |(sequence, payload): &(u64, &[u8])| {
        let record = records.get((sequence - FIRST) as usize);
        record.is_some_and(|(_, written, _)| written == payload)
    };
    assert!(read.iter().all(known) && read.is_sorted_by_key(|(sequence, _)| *sequence));
    for (sequence, payload, _) in sound {
        assert!(read.contains(&(*sequence, payload)), "{sequence} is lost");
    }
    assert!(scan.damage().bytes <= file.len() as u64 + HEADER as u64);
}
