//! Compressed segments, intact and damaged.

// A test says what it does in its name.
#![allow(missing_docs)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::ops::Range;

use proptest::prelude::*;
use segment_log::{BlockWriter, Damage, Record, SegmentName, plain_length, records, unpack};

const NAME: SegmentName = SegmentName {
    first: 7,
    salt: 0x5a17,
    plain_length: Some(1000),
};

type Kept = (u64, u32, Vec<u8>);

/// Where a block is, and its records.
type Block = (Range<usize>, Vec<Kept>);

/// A compressed segment with these payloads in each block; the place and the records of each block.
fn segment(blocks: &[Vec<Vec<u8>>]) -> (Vec<u8>, Vec<Block>) {
    let mut writer = BlockWriter::new(NAME.salt).unwrap();
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    let mut sequence = NAME.first;
    for payloads in blocks {
        let mut block = Vec::new();
        for payload in payloads {
            let items = u32::try_from(payload.len() % 5).unwrap();
            let record = Record {
                sequence,
                items,
                payload,
            };
            writer.add(&record).unwrap();
            block.push((sequence, items, payload.clone()));
            sequence += 1;
        }
        let begin = bytes.len();
        let (header, frame) = writer.finish().unwrap();
        bytes.extend(header);
        bytes.extend(frame);
        expected.push((begin..bytes.len(), block));
    }
    (bytes, expected)
}

/// Reads in pieces of about `piece` bytes.
fn read(bytes: &[u8], piece: usize) -> (Vec<Kept>, Damage) {
    let mut found = Vec::new();
    let damage = support::read(NAME, bytes, piece, |block| {
        let length = plain_length(block.payload).unwrap();
        let plain = unpack(block.payload, length).unwrap();
        let records = records(block.sequence, &plain);
        found.extend(records.map(|of| (of.sequence, of.items, of.payload.to_vec())));
    });
    (found, damage)
}

/// The records of the blocks that are as they were.
fn intact(expected: &[Block], is_intact: impl Fn(&Range<usize>) -> bool) -> Vec<Kept> {
    let blocks = expected.iter().filter(|(place, _)| is_intact(place));
    blocks.flat_map(|(_, records)| records.clone()).collect()
}

fn blocks() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    prop::collection::vec(prop::collection::vec(payload, 1..6), 1..6)
}

#[test]
fn damage_in_any_byte_costs_only_its_block() {
    let payload = |number: u8| vec![number; 40 + usize::from(number)];
    let blocks: Vec<Vec<_>> = (0..4)
        .map(|block| (0..3).map(|record| payload(block * 3 + record)).collect())
        .collect();
    let (bytes, expected) = segment(&blocks);
    for at in 0..bytes.len() {
        for change in [1, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= change;
            let (found, damage) = read(&damaged, 100);
            let sound = intact(&expected, |place| !place.contains(&at));
            assert_eq!(found, sound, "byte {at}");
            // The last block does not say how many records it had if its header is damaged.
            let is_last = expected[3].0.start <= at;
            assert!(
                damage.records == 3 || (is_last && damage.records == 1),
                "{at}: {damage:?}"
            );
            assert!(damage.bytes > 0);
        }
    }
}

#[test]
fn missing_end_costs_its_blocks_and_counts_as_damage() {
    let (bytes, expected) = segment(&[vec![vec![1; 90]; 2], vec![vec![2; 90]; 2]]);
    let second = expected[1].0.clone();
    for end in second.start + 1..second.end {
        let (found, damage) = read(&bytes[..end], 4096);
        assert_eq!(found, expected[0].1);
        assert_eq!(
            damage,
            Damage {
                records: 1,
                bytes: (end - second.start) as u64
            }
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn intact_segment_is_read_whole(blocks in blocks(), piece in 1_usize..600) {
        let (bytes, expected) = segment(&blocks);
        prop_assert_eq!(read(&bytes, piece), (intact(&expected, |_| true), Damage::default()));
    }

    #[test]
    fn flipped_bits_cost_only_their_blocks(
        blocks in blocks(),
        piece in 1_usize..600,
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u32..8), 1..4),
    ) {
        let (bytes, expected) = segment(&blocks);
        let mut damaged = bytes.clone();
        for (at, bit) in flips {
            damaged[at.index(bytes.len())] ^= 1 << bit;
        }
        let sound = intact(&expected, |place| damaged[place.clone()] == bytes[place.clone()]);
        let (found, damage) = read(&damaged, piece);
        prop_assert_eq!(damage.records > 0, damaged != bytes);
        prop_assert_eq!(found, sound);
    }

    #[test]
    fn arbitrary_bytes_never_yield_records(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        piece in 1_usize..600,
    ) {
        prop_assert_eq!(read(&bytes, piece).0, vec![]);
    }

    #[test]
    fn records_of_arbitrary_bytes_stay_within_them(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let total: usize = records(1, &bytes).map(|record| record.payload.len() + 8).sum();
        prop_assert!(total <= bytes.len());
    }
}
