//! The queue on disk: segments of arbitrary records with arbitrary damage, plain and compressed.

use std::ops::Range;

use segment_log::{
    BlockWriter, HEADER, Record, SegmentName, SegmentScan, header, plain_length, records, unpack,
};

const NAME: SegmentName = SegmentName {
    first: 7,
    salt: 0x5a17,
    plain_length: None,
};

/// How many records a block has.
const BLOCK: usize = 3;

/// A sequence and a payload.
type Written<'a> = (u64, &'a [u8]);

/// The first byte says where the file is cut, and the second how many of the next pairs flip a byte each;
/// what follows are records, a length and its bytes. What is read is what was written, in order; only
/// records that were hit are missing, and of a compressed segment those of the same block.
pub fn segment(bytes: &[u8]) {
    let [cut, flips, rest @ ..] = bytes else {
        return;
    };
    let Some((flips, mut rest)) = rest.split_at_checked(usize::from(flips % 4) * 2) else {
        return;
    };
    let mut written: Vec<Written<'_>> = Vec::new();
    while let [length, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        written.push((NAME.first + written.len() as u64, payload));
        rest = after;
    }
    check(plain(&written), NAME, &written, *cut, flips);
    let name = SegmentName {
        plain_length: Some(0),
        ..NAME
    };
    check(compressed(&written), name, &written, *cut, flips);
}

/// A file, and where each record is, or the block with it.
type Segment = (Vec<u8>, Vec<Range<usize>>);

fn plain(written: &[Written<'_>]) -> Segment {
    let (mut file, mut places) = (Vec::new(), Vec::new());
    for (sequence, payload) in written {
        let begin = file.len();
        file.extend(header(NAME.salt, *sequence, payload.len() as u32, payload).expect("short"));
        file.extend(*payload);
        places.push(begin..file.len());
    }
    (file, places)
}

fn compressed(written: &[Written<'_>]) -> Segment {
    let mut writer = BlockWriter::new(NAME.salt).expect("memory");
    let (mut file, mut places) = (Vec::new(), Vec::new());
    for block in written.chunks(BLOCK) {
        for (sequence, payload) in block {
            let record = Record {
                sequence: *sequence,
                items: payload.len() as u32,
                payload,
            };
            writer.add(&record).expect("short");
        }
        let begin = file.len();
        let (header, frame) = writer.finish().expect("memory");
        file.extend(header);
        file.extend(frame);
        places.extend(block.iter().map(|_| begin..file.len()));
    }
    (file, places)
}

fn check(segment: Segment, name: SegmentName, written: &[Written<'_>], cut: u8, flips: &[u8]) {
    let (mut file, places) = segment;
    let mut hit = Vec::new();
    for pair in flips.chunks_exact(2) {
        let at = usize::from(pair[0]) * 3;
        if let Some(byte) = file.get_mut(at).filter(|_| pair[1] != 0) {
            *byte ^= pair[1];
            hit.push(at);
        }
    }
    let end = file.len() * (256 - usize::from(cut)) / 256;
    file.truncate(end);
    let mut scan = SegmentScan::new(name);
    let mut read = Vec::new();
    let (used, _) = scan.read(&file, true, |record| {
        if name.plain_length.is_none() {
            assert_eq!(record.items, record.payload.len() as u32);
            read.push((record.sequence, record.payload.to_vec()));
            return true;
        }
        let length = plain_length(record.payload).expect("an intact frame");
        let block = unpack(record.payload, length).expect("an intact frame");
        let records = records(record.sequence, &block);
        let before = read.len();
        read.extend(records.map(|record| (record.sequence, record.payload.to_vec())));
        assert_eq!(read.len() - before, record.items as usize);
        true
    });
    assert_eq!(used, file.len());
    // A byte that is flipped twice is as it was.
    let known = |(sequence, payload): &(u64, Vec<u8>)| {
        let record = written.get((sequence - NAME.first) as usize);
        record.is_some_and(|(_, written)| written == payload)
    };
    assert!(read.iter().all(known) && read.is_sorted_by_key(|(sequence, _)| *sequence));
    let sound = written
        .iter()
        .zip(places)
        .filter(|(_, place)| place.end <= end && !hit.iter().any(|at| place.contains(at)));
    for ((sequence, _), _) in sound {
        let found = read.binary_search_by_key(sequence, |(sequence, _)| *sequence);
        assert!(found.is_ok(), "{sequence} is lost");
    }
    assert!(scan.damage().bytes <= file.len() as u64 + HEADER as u64);
}
