//! The work that a log has for the disk, and what becomes of it.

use std::mem::take;

use crate::log::{Log, new_name};
use crate::name::SegmentName;
use crate::segment::Segment;
use crate::writer::{Append, NewRecord, Outcome, Work};

/// The maximum that is written at once; more would hold up the acknowledgement of its first records.
const WRITE_AT_ONCE: u64 = 1024 * 1024;

impl Log {
    /// What the disk is to do next, if there is anything. Its [`Outcome`] must be noted before the next call.
    pub fn work(&mut self) -> Option<Work> {
        let delete = if take(&mut self.due.prune) {
            self.settled_segments()
        } else {
            Vec::new()
        };
        let mark = self.due.mark.take();
        let mark = mark.map(|settled| (self.mark.0 + 1, settled));
        let work = Work {
            directory: self.directory.clone(),
            identity: take(&mut self.due.check).then_some(self.identity),
            is_probe: self.must_probe,
            delete,
            broken: take(&mut self.due.broken),
            mark,
            append: self.next_append(),
            sync: self.limits.fsync,
            close: take(&mut self.due.close),
        };
        (!work.is_empty()).then_some(work)
    }

    /// Segments to delete; what of them is not written yet need not be.
    fn settled_segments(&mut self) -> Vec<SegmentName> {
        let settled = self.closed().filter(|segment| segment.is_settled());
        let settled = settled.filter(|segment| !segment.is_compressing);
        let names: Vec<_> = settled.map(|segment| segment.name).collect();
        for name in &names {
            let end = self.end_of(*name);
            self.pending
                .retain(|record| !(name.first..end).contains(&record.sequence));
        }
        names
    }

    /// The sequence after the last one that a segment can have.
    fn end_of(&self, name: SegmentName) -> u64 {
        let firsts = self.segments.iter().rev().map(|segment| segment.name.first);
        let after = firsts.take_while(|first| *first > name.first);
        after.last().unwrap_or(u64::MAX)
    }

    /// The records to write next, all of one segment.
    fn next_append(&self) -> Option<Append> {
        let first = self.pending.front()?.sequence;
        let segment = self.segment_of(first)?;
        let end = self.end_of(segment.name);
        let mut bytes = 0;
        let records = self.pending.iter().take_while(|record| {
            let fits = record.sequence < end && bytes < WRITE_AT_ONCE;
            bytes += record.length();
            fits
        });
        Some(Append {
            name: segment.name,
            at: segment.written,
            records: records.cloned().collect(),
        })
    }

    /// Notes what has become of some work. After a failure the disk is tested before more is written.
    pub fn done(&mut self, work: &Work, outcome: &Outcome) {
        let deleted = |segment: &Segment| outcome.deleted.contains(&segment.name);
        if !outcome.deleted.is_empty() {
            self.segments.retain(|segment| !deleted(segment));
            self.recount();
        }
        if outcome.is_marked
            && let Some(mark) = work.mark
        {
            self.mark = mark;
            self.due.mark = self.due.mark.filter(|settled| *settled > mark.1);
        }
        if work.is_probe {
            self.must_probe = false;
        }
        if let Some(append) = &work.append {
            self.note_written(append, outcome.written);
            if outcome.error.is_some() {
                self.move_unwritten(append.name);
                self.recount();
            }
        }
        self.must_probe |= outcome.error.is_some();
    }

    fn note_written(&mut self, append: &Append, records: usize) {
        let written = append.records.get(..records).unwrap_or_default();
        let Some(last) = written.last() else { return };
        let same = |segment: &&mut Segment| segment.name == append.name;
        if let Some(segment) = self.segments.iter_mut().rev().find(same) {
            segment.written = append.end_of(records);
        }
        let is_written = |record: &mut NewRecord| record.sequence <= last.sequence;
        while self.pending.pop_front_if(is_written).is_some() {}
    }

    /// Moves the records of a segment that are not on disk to another one, since its file may be broken.
    fn move_unwritten(&mut self, name: SegmentName) {
        let Some(at) = self.segments.iter().position(|of| of.name == name) else {
            return;
        };
        let end = self.end_of(name);
        let Some(segment) = self.segments.get_mut(at) else {
            return;
        };
        let unwritten = |record: &&NewRecord| (name.first..end).contains(&record.sequence);
        let mut moved = self.pending.iter().filter(unwritten).peekable();
        let Some(first) = moved.peek() else { return };
        let mut other = Segment::new(new_name(first.sequence), 0, false);
        for record in moved {
            segment.remove(record);
            other.add(record);
        }
        segment.length = segment.written;
        segment.read_to = segment.read_to.min(segment.length);
        segment.unread_to = segment.unread_to.min(segment.length);
        if segment.length == 0 {
            self.due.broken.push(self.directory.join(name.to_string()));
            *segment = other;
        } else {
            self.segments.insert(at + 1, other);
        }
    }
}
