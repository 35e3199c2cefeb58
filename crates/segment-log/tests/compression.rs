//! Segments of a log are compressed while they wait.

// A test says what it does in its name.
#![allow(missing_docs)]
// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use segment_log::{Compressed, Log, LogLimits, Writer, leftovers};

/// A record and its header.
const RECORD: u64 = 1032;

/// Segments of twenty records.
const LIMITS: LogLimits = LogLimits {
    segment: 20 * RECORD,
    total: u64::MAX,
    fsync: false,
    directory_mode: 0o700,
};

/// A directory that is removed with the value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("segment-log-compression-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    /// The names of all segments and their lengths, oldest first.
    fn segments(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(&self.0).unwrap();
        let entries = entries.map(|entry| {
            let entry = entry.unwrap();
            let length = entry.metadata().unwrap().len();
            (entry.file_name().into_string().unwrap(), length)
        });
        let mut segments: Vec<_> = entries.filter(|(name, _)| name.contains(".v")).collect();
        segments.sort();
        segments
    }

    fn size(&self) -> u64 {
        self.segments().iter().map(|(_, length)| length).sum()
    }

    fn is_compressed(&self) -> Vec<bool> {
        let segments = self.segments().into_iter();
        segments.map(|(name, _)| name.contains(".v2")).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Directory) -> Log {
    Log::open(&directory.0, LIMITS).unwrap()
}

fn work(log: &mut Log, writer: &mut Writer) {
    while let Some(work) = log.work() {
        let outcome = writer.run(&work);
        log.done(&work, &outcome);
        assert!(outcome.error.is_none(), "{outcome:?}");
    }
}

/// The payload of a record: its number, and text that can be compressed to a third.
fn payload(number: u32) -> Bytes {
    let random = fastrand::Rng::with_seed(number.into()).u128(..);
    let text = format!("{number:08} {random:x} ").repeat(40);
    Bytes::from(text.into_bytes()[..1000].to_vec())
}

/// A log with so many records that are only on disk.
fn filled(directory: &Directory, records: u32) -> (Log, Writer) {
    let (mut log, mut writer) = (open(directory), Writer::default());
    for number in 0..records {
        log.append(1, &payload(number), false).unwrap();
    }
    work(&mut log, &mut writer);
    (log, writer)
}

/// Compresses the next segment; returns whether there is one.
fn compress(log: &mut Log, soon: usize) -> bool {
    let Some(job) = log.compress_job(soon) else {
        return false;
    };
    let outcome = job.run(&mut |_| true);
    assert!(matches!(outcome, Ok(Compressed::Done(..))), "{outcome:?}");
    let unneeded = log.compressed(&job, &outcome, false);
    job.remove(unneeded.unwrap());
    true
}

/// The numbers of all records that can be read.
fn read(log: &mut Log) -> Vec<u32> {
    let mut found = Vec::new();
    while let Some(job) = log.read_job(3000) {
        let chunk = job.run(&mut |_| true);
        assert!(
            chunk.failed.is_none() && chunk.damage.records == 0,
            "{chunk:?}"
        );
        for record in &chunk.records {
            let number = std::str::from_utf8(&record.payload[..8]).unwrap();
            let number = number.parse().unwrap();
            assert_eq!((record.items, &record.payload), (1, &payload(number)));
            found.push(number);
        }
        assert_eq!(log.record_read(&chunk).lost, (0, 0));
    }
    assert!(log.is_read());
    found
}

fn all(records: u32) -> Vec<u32> {
    (0..records).collect()
}

#[test]
fn waiting_segments_are_compressed_and_read_back_in_order() {
    let directory = Directory::new("waiting");
    let (mut log, mut writer) = filled(&directory, 110);
    let before = directory.size();
    assert_eq!(log.saved(), 0);
    while compress(&mut log, 2) {}
    // Neither those that are read next, nor the one that the thread still writes.
    let expected = [false, false, true, true, true, false];
    assert_eq!(directory.is_compressed(), expected);
    assert_eq!(before - directory.size(), log.saved() + 60 * 32);
    assert!(directory.size() < before * 3 / 4, "{}", directory.size());
    assert_eq!(log.unread(), (110, 110_000));
    assert_eq!(read(&mut log), all(110));
    assert_eq!((log.unread(), log.saved()), ((0, 0), 0));
    log.settle(&(1..111));
    log.rest();
    log.rest();
    work(&mut log, &mut writer);
    assert_eq!(directory.segments(), []);
}

#[test]
fn settled_part_of_a_compressed_segment_is_not_read_again() {
    let directory = Directory::new("settled");
    let (mut log, mut writer) = filled(&directory, 110);
    while compress(&mut log, 0) {}
    log.mark(51);
    work(&mut log, &mut writer);
    let next = log.next_sequence();
    let mut log = open(&directory);
    assert!(log.next_sequence() >= next, "sequences are not used twice");
    assert_eq!(read(&mut log), (50..110).collect::<Vec<_>>());
}

#[test]
fn forgotten_records_of_a_compressed_segment_are_read_again() {
    let directory = Directory::new("forgotten");
    let (mut log, _) = filled(&directory, 60);
    while compress(&mut log, 0) {}
    let mut positions = Vec::new();
    while let Some(job) = log.read_job(3000) {
        let chunk = job.run(&mut |_| true);
        positions.extend(chunk.records.iter().map(|record| record.sequence));
        log.record_read(&chunk);
    }
    log.settle(&(1..8));
    let kept = positions.into_iter().skip(7);
    let records = kept.map(|sequence| (segment_log::Position { sequence }, 1, 1000));
    assert!(log.can_forget(&(8..61)));
    log.forget(records);
    assert!(log.saved() > 0);
    assert_eq!(read(&mut log), (7..60).collect::<Vec<_>>());
}

/// What may be left of a segment and its compressed copy if the process ends in between.
fn leave(directory: &Path, plain: &[u8], name: &str, copy: Option<(&str, &[u8])>) {
    fs::create_dir_all(directory).unwrap();
    if !plain.is_empty() {
        fs::write(directory.join(name), plain).unwrap();
    }
    if let Some((name, bytes)) = copy {
        fs::write(directory.join(name), bytes).unwrap();
    }
}

#[test]
fn crash_at_any_step_leaves_each_record_once() {
    let source = Directory::new("crash-source");
    let (mut log, _) = filled(&source, 50);
    let (name, _) = source.segments()[0].clone();
    let plain = fs::read(source.0.join(&name)).unwrap();
    let job = log.compress_job(0).unwrap();
    let Ok(Compressed::Done(compressed, _)) = job.run(&mut |_| true) else {
        panic!("not compressed");
    };
    let compressed = compressed.to_string();
    let copy = fs::read(source.0.join(&compressed)).unwrap();
    let half = &copy[..copy.len() / 2];
    let states = [
        ("before", &plain[..], None),
        ("created", &plain, Some(("compressing", &[][..]))),
        ("half written", &plain, Some(("compressing", half))),
        ("written", &plain, Some(("compressing", &copy))),
        ("renamed", &plain, Some((&compressed, &copy))),
        ("renamed, not synced", &plain, Some((&compressed, &[]))),
        ("done", &[], Some((&compressed, &copy))),
    ];
    for (step, plain, copy) in states {
        let directory = Directory::new("crash");
        leave(&directory.0, plain, &name, copy);
        let mut log = open(&directory);
        assert_eq!(log.foreign, Vec::<String>::new(), "{step}");
        assert_eq!(read(&mut log), all(20), "{step}");
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "{step}");
        drop(log);
        // Another process adopts the same.
        let adopted = Directory::new("crash-adopted");
        leave(&adopted.0, plain, &name, copy);
        let mut found = 0;
        for segment in leftovers(&adopted.0, 3000).unwrap() {
            let mut job = Some(segment.clone());
            while let Some(next) = job {
                let chunk = next.run(&mut |_| true);
                job = segment.after(&chunk);
                found += chunk.records.len();
            }
            segment.remove_segment().unwrap();
        }
        assert_eq!(found, 20, "{step}");
        assert_eq!(fs::read_dir(&adopted.0).unwrap().count(), 0, "{step}");
    }
}

#[test]
fn reader_that_arrives_meanwhile_keeps_the_segment_as_it_is() {
    for is_done in [true, false] {
        let directory = Directory::new("meanwhile");
        let (mut log, mut writer) = filled(&directory, 50);
        let job = log.compress_job(0).unwrap();
        let reading = log.read_job(3000).unwrap();
        let outcome = job.run(&mut |_| true);
        let chunk = reading.run(&mut |_| true);
        if is_done {
            log.record_read(&chunk);
        }
        let unneeded = log.compressed(&job, &outcome, !is_done).unwrap();
        assert!(unneeded.plain_length.is_some(), "{unneeded}");
        job.remove(unneeded);
        if !is_done {
            log.record_read(&chunk);
        }
        assert_eq!(directory.is_compressed(), [false; 3]);
        let first = chunk.records.len();
        assert_eq!(read(&mut log).len() + first, 50);
        assert!(log.compress_job(0).is_none());
        work(&mut log, &mut writer);
    }
}

#[test]
fn segment_stays_until_it_is_compressed_even_if_all_is_settled() {
    let directory = Directory::new("stays");
    let (mut log, mut writer) = filled(&directory, 50);
    let job = log.compress_job(0).unwrap();
    read(&mut log);
    log.settle(&(1..51));
    log.prune();
    work(&mut log, &mut writer);
    assert_eq!(
        directory.segments().len(),
        2,
        "the one in work, and the last"
    );
    let outcome = job.run(&mut |_| true);
    job.remove(log.compressed(&job, &outcome, false).unwrap());
    work(&mut log, &mut writer);
    assert_eq!(directory.segments().len(), 1);
}

#[test]
fn failing_disk_damage_and_short_memory_leave_the_segment_as_it_is() {
    let directory = Directory::new("fails");
    let (mut log, _) = filled(&directory, 70);
    let segments = directory.segments();
    // Short memory is no reason not to try again.
    for _ in 0..2 {
        let job = log.compress_job(0).unwrap();
        let outcome = job.run(&mut |_| false);
        assert!(matches!(outcome, Ok(Compressed::Refused)));
        assert_eq!(log.compressed(&job, &outcome, false), None);
    }
    // Where the copy belongs is a directory.
    let blocked = directory.0.join("compressing");
    fs::create_dir(&blocked).unwrap();
    let job = log.compress_job(0).unwrap();
    let outcome = job.run(&mut |_| true);
    assert!(outcome.is_err());
    assert_eq!(log.compressed(&job, &outcome, false), None);
    fs::remove_dir(&blocked).unwrap();
    // The next one is damaged.
    let second = directory.0.join(&segments[1].0);
    let mut bytes = fs::read(&second).unwrap();
    bytes[5000] ^= 1;
    fs::write(&second, &bytes).unwrap();
    let job = log.compress_job(0).unwrap();
    let outcome = job.run(&mut |_| true);
    assert!(matches!(outcome, Ok(Compressed::Useless)), "{outcome:?}");
    assert_eq!(log.compressed(&job, &outcome, false), None);
    assert!(compress(&mut log, 0));
    assert!(!compress(&mut log, 0));
    assert_eq!(directory.is_compressed(), [false, false, true, false]);
}

#[test]
fn compression_makes_room_and_never_needs_more_than_the_limit() {
    let directory = Directory::new("room");
    let limits = LogLimits {
        total: 130 * RECORD,
        ..LIMITS
    };
    let mut log = Log::open(&directory.0, limits).unwrap();
    let mut writer = Writer::default();
    let mut taken = 0;
    while log.has_room(1000) {
        log.append(1, &payload(taken), false).unwrap();
        taken += 1;
        work(&mut log, &mut writer);
        if let Some(job) = log.compress_job(1) {
            // Before the copy is written.
            let free = (130 * RECORD).saturating_sub(directory.size());
            let outcome = job.run(&mut |_| true);
            assert!(directory.size() <= 130 * RECORD, "{free} were free");
            job.remove(log.compressed(&job, &outcome, false).unwrap());
        }
        assert!(directory.size() <= 130 * RECORD);
    }
    assert!(taken > 160, "{taken}");
    assert_eq!(read(&mut log), all(taken));
}

#[test]
fn read_asks_for_memory_first_and_goes_on_when_there_is_some() {
    let directory = Directory::new("memory");
    let (mut log, _) = filled(&directory, 110);
    while compress(&mut log, 2) {}
    let mut found = 0;
    while let Some(job) = log.read_job(3000) {
        let chunk = job.clone().run(&mut |_| false);
        assert!(chunk.is_refused && chunk.records.is_empty());
        log.record_read(&chunk);
        let mut granted = 0;
        let chunk = job.run(&mut |bytes| {
            granted += bytes;
            true
        });
        assert!(granted >= chunk.sum().1, "{granted} for {:?}", chunk.sum());
        found += chunk.records.len();
        log.record_read(&chunk);
    }
    assert_eq!(found, 110);
}
