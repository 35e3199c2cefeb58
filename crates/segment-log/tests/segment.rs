//! Segments, intact and damaged.

// A test says what it does in its name.
#![allow(missing_docs)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use proptest::prelude::*;
use segment_log::{Damage, FileKind, HEADER, SegmentName, header, latest_mark, mark};

const NAME: SegmentName = SegmentName {
    first: 7,
    salt: 0x5a17,
    plain_length: None,
};
const SALT: u32 = NAME.salt;
const FIRST: u64 = NAME.first;

type Kept = (u64, u32, Vec<u8>);

/// A segment of these payloads, and what must come out of it.
fn segment(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<Kept>) {
    let mut bytes = Vec::new();
    let mut records = Vec::new();
    for (payload, sequence) in payloads.iter().zip(FIRST..) {
        let items = u32::try_from(payload.len() % 5).unwrap();
        bytes.extend(header(SALT, sequence, items, payload).unwrap());
        bytes.extend(payload);
        records.push((sequence, items, payload.clone()));
    }
    (bytes, records)
}

/// Reads in pieces of about `piece` bytes.
fn read(bytes: &[u8], piece: usize) -> (Vec<Kept>, Damage) {
    let mut found = Vec::new();
    let damage = support::read(NAME, bytes, piece, |record| {
        found.push((record.sequence, record.items, record.payload.to_vec()));
    });
    (found, damage)
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..12)
}

#[test]
fn forged_record_inside_a_payload_is_not_read() {
    let forged = [
        &header(SALT ^ 1, FIRST + 1, 9, b"forged").unwrap()[..],
        b"forged",
    ]
    .concat();
    let (mut bytes, records) = segment(&[forged, b"second".to_vec()]);
    bytes[4] ^= 1;
    assert_eq!(read(&bytes, 4096).0, records[1..]);
}

#[test]
fn names_encode_age_version_and_format() {
    let name = SegmentName {
        first: 255,
        salt: 0xabc,
        plain_length: None,
    };
    let text = name.to_string();
    assert_eq!(text, "00000000000000ff-00000abc.v1");
    assert_eq!(SegmentName::parse(&text), FileKind::Segment(name));
    let compressed = SegmentName {
        plain_length: Some(0x1234),
        ..name
    };
    let text = compressed.to_string();
    assert_eq!(text, "00000000000000ff-00000abc-0000000000001234.v2");
    assert_eq!(SegmentName::parse(&text), FileKind::Segment(compressed));
    assert_eq!(
        SegmentName::parse(&text.replace("v2", "v3")),
        FileKind::Newer
    );
    for foreign in [
        "mark",
        "lock",
        "ff-abc.v1",
        "00000000000000ff-00000abc.v0",
        "00000000000000ff-00000abc.v2",
        "00000000000000ff-00000abc-ffffffffffffffff.v2",
        ".v1",
    ] {
        assert_eq!(SegmentName::parse(foreign), FileKind::Foreign, "{foreign}");
    }
}

#[test]
fn newest_intact_mark_counts() {
    let mut bytes = vec![0; 64];
    assert_eq!(latest_mark(&bytes), None);
    for (generation, settled) in [(1, 10), (2, 20)] {
        let (content, place) = mark(generation, settled);
        let place = usize::try_from(place).unwrap();
        bytes[place..place + content.len()].copy_from_slice(&content);
    }
    assert_eq!(latest_mark(&bytes), Some((2, 20)));
    let newer = usize::try_from(mark(2, 20).1).unwrap();
    bytes[newer + 20] ^= 4;
    assert_eq!(latest_mark(&bytes), Some((1, 10)));
    assert_eq!(latest_mark(&bytes[..32 - newer]), None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn intact_segment_is_read_whole(payloads in payloads(), piece in 1_usize..600) {
        let (bytes, records) = segment(&payloads);
        prop_assert_eq!(read(&bytes, piece), (records, Damage::default()));
    }

    #[test]
    fn torn_tail_costs_its_record_and_is_not_damage(
        payloads in payloads(),
        piece in 1_usize..600,
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, records) = segment(&payloads);
        bytes.truncate(cut.index(bytes.len()));
        let mut whole = 0;
        let mut end = 0;
        for payload in &payloads {
            end += HEADER + payload.len();
            whole += usize::from(end <= bytes.len());
        }
        prop_assert_eq!(read(&bytes, piece), (records[..whole].to_vec(), Damage::default()));
    }

    #[test]
    fn flipped_bits_cost_only_their_records(
        payloads in payloads(),
        piece in 1_usize..600,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 1..4),
    ) {
        let (mut bytes, records) = segment(&payloads);
        let mut ends = Vec::new();
        for payload in &payloads {
            ends.push(ends.last().unwrap_or(&0) + HEADER + payload.len());
        }
        let whole = bytes.clone();
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let mut begin = 0;
        let mut sound = Vec::new();
        for (record, end) in records.iter().zip(ends) {
            if bytes[begin..end] == whole[begin..end] {
                sound.push(record.clone());
            }
            begin = end;
        }
        let (found, damage) = read(&bytes, piece);
        let missing = (records.len() - sound.len()) as u64;
        prop_assert_eq!(found, sound);
        prop_assert!(damage.records <= missing);
        prop_assert_eq!(damage.records > 0, missing > 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic_or_yield_unwritten_records(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        piece in 1_usize..600,
    ) {
        prop_assert_eq!(read(&bytes, piece).0, vec![]);
    }

    #[test]
    fn removed_and_repeated_parts_never_yield_wrong_records(
        payloads in payloads(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
    ) {
        let (bytes, records) = segment(&payloads);
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        let piece = bytes[from.min(to)..from.max(to)].to_vec();
        let mut mixed = bytes.clone();
        let at = at.index(mixed.len());
        mixed.splice(at..at, piece);
        let (found, _) = read(&mixed, 256);
        prop_assert!(found.is_sorted_by(|a, b| a.0 < b.0));
        prop_assert!(found.iter().all(|record| records.contains(record)));
    }
}
