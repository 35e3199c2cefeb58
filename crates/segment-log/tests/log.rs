//! A log and its files.

// A test says what it does in its name.
#![allow(missing_docs)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use segment_log::{Log, LogError, LogLimits, Position, Writer};

const LIMITS: LogLimits = LogLimits {
    segment: 1000,
    total: u64::MAX,
    fsync: false,
    directory_mode: 0o700,
};

/// A directory that is removed with the value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("segment-log-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn segments(&self) -> usize {
        let entries = fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".v")).count()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does everything that is to be done, or fails.
fn work(log: &mut Log, writer: &mut Writer) -> Result<(), LogError> {
    while let Some(work) = log.work() {
        let outcome = writer.run(&work);
        log.done(&work, &outcome);
        if let Some(error) = outcome.error {
            return Err(error);
        }
    }
    Ok(())
}

fn append(log: &mut Log, records: Range<u8>, in_memory: bool) -> Vec<Position> {
    let payload = |number| Bytes::from(vec![number; 100]);
    let positions = records.map(|number| log.append(1, &payload(number), in_memory));
    positions.map(Option::unwrap).collect()
}

/// The first bytes of all records that can be read.
fn read(log: &mut Log) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(job) = log.read_job(300) {
        let chunk = job.run(&mut |_| true);
        assert_eq!(chunk.damage.records, 0);
        assert!(chunk.failed.is_none());
        found.extend(chunk.records.iter().map(|record| record.payload[0]));
        assert_eq!(log.record_read(&chunk).lost, (0, 0));
    }
    found
}

#[test]
fn record_is_read_only_once_it_is_written() {
    let directory = Directory::new("written");
    let mut log = Log::open(&directory.0, LIMITS).unwrap();
    let mut writer = Writer::default();
    append(&mut log, 0..3, true);
    append(&mut log, 3..20, false);
    assert_eq!(log.written_below(), 1);
    assert!(log.read_job(300).is_none() && !log.is_read());
    work(&mut log, &mut writer).unwrap();
    assert_eq!(log.written_below(), log.next_sequence());
    assert_eq!(read(&mut log), (3..20).collect::<Vec<_>>());
    assert!(log.is_read());
    assert_eq!(log.unread(), (0, 0));
}

#[test]
fn forgotten_records_are_read_again_and_settled_ones_are_not() {
    let directory = Directory::new("forgotten");
    let mut log = Log::open(&directory.0, LIMITS).unwrap();
    let mut writer = Writer::default();
    let positions = append(&mut log, 0..30, true);
    let all = 1..31;
    assert!(!log.can_forget(&all), "nothing is written");
    work(&mut log, &mut writer).unwrap();
    // The first eleven are settled or in flight; what follows is given up in two parts, the later one first.
    for part in [20..30, 11..20] {
        let sequences = part.start as u64 + 1..part.end as u64 + 1;
        assert!(log.can_forget(&sequences));
        assert!(!log.can_forget(&(sequences.start..sequences.end - 1)));
        let records = positions[part].iter().map(|position| (*position, 1, 100));
        log.forget(records);
    }
    assert_eq!(log.first_unread(), Some(12));
    assert_eq!(log.unread(), (19, 1900));
    append(&mut log, 30..32, false);
    work(&mut log, &mut writer).unwrap();
    assert_eq!(read(&mut log), (11..32).collect::<Vec<_>>());
    log.settle(&(1..33));
    log.rest();
    log.rest();
    work(&mut log, &mut writer).unwrap();
    assert_eq!(directory.segments(), 0);
}

#[test]
fn recalled_records_are_written_and_not_read_again() {
    let directory = Directory::new("recalled");
    let mut log = Log::open(&directory.0, LIMITS).unwrap();
    let mut writer = Writer::default();
    append(&mut log, 0..5, false);
    work(&mut log, &mut writer).unwrap();
    append(&mut log, 5..20, false);
    // The disk is at work and does not answer.
    let under_way = log.work().unwrap();
    log.recall();
    assert_eq!(log.unread(), (5, 500));
    log.settle(&(6..8));
    let outcome = writer.run(&under_way);
    log.done(&under_way, &outcome);
    // Later ones are in memory, too.
    append(&mut log, 20..23, true);
    work(&mut log, &mut writer).unwrap();
    assert_eq!(log.first_unread(), Some(1));
    assert_eq!(read(&mut log), (0..5).collect::<Vec<_>>());
    let mut next = Log::open(&directory.0, LIMITS).unwrap();
    assert_eq!(read(&mut next), (0..23).collect::<Vec<_>>());
    log.settle(&(1..6));
    log.settle(&(8..24));
    log.rest();
    log.rest();
    work(&mut log, &mut writer).unwrap();
    assert_eq!(directory.segments(), 0);
}

#[test]
fn records_of_a_failed_write_go_to_another_segment_once_the_disk_works() {
    let directory = Directory::new("failed");
    let mut log = Log::open(&directory.0, LIMITS).unwrap();
    let mut writer = Writer::default();
    append(&mut log, 0..3, true);
    work(&mut log, &mut writer).unwrap();
    append(&mut log, 3..20, true);
    // Settled before it is written: of no use to the next process, but its place in the order is kept.
    log.settle(&(4..5));
    let mut closed = Writer::default();
    let saved = directory.0.with_extension("saved");
    fs::rename(&directory.0, &saved).unwrap();
    assert!(work(&mut log, &mut closed).is_err());
    assert!(log.is_behind() && log.written_below() == 4);
    append(&mut log, 20..22, false);
    fs::rename(&saved, &directory.0).unwrap();
    work(&mut log, &mut closed).unwrap();
    assert_eq!(read(&mut log), [20, 21]);
    let mut next = Log::open(&directory.0, LIMITS).unwrap();
    assert_eq!(read(&mut next), (0..22).collect::<Vec<_>>());
    log.settle(&(1..4));
    log.settle(&(5..23));
    log.rest();
    log.rest();
    work(&mut log, &mut closed).unwrap();
    assert_eq!(directory.segments(), 0);
}

#[test]
fn removed_directory_is_noticed() {
    let directory = Directory::new("removed");
    let mut log = Log::open(&directory.0, LIMITS).unwrap();
    let mut writer = Writer::default();
    append(&mut log, 0..3, true);
    work(&mut log, &mut writer).unwrap();
    fs::remove_dir_all(&directory.0).unwrap();
    fs::create_dir(&directory.0).unwrap();
    log.rest();
    let error = work(&mut log, &mut writer).unwrap_err();
    assert_eq!(error.reason(), "vanished");
}

#[test]
fn settled_segments_count_as_free_and_need_not_be_written() {
    let directory = Directory::new("room");
    let limits = LogLimits {
        total: 2000,
        ..LIMITS
    };
    let mut log = Log::open(&directory.0, limits).unwrap();
    append(&mut log, 0..14, true);
    assert!(!log.has_room(400));
    log.settle(&(1..9));
    assert!(log.has_room(400));
    let mut writer = Writer::default();
    log.prune();
    work(&mut log, &mut writer).unwrap();
    assert_eq!(directory.segments(), 1);
}
