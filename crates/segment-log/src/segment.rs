//! One segment of a log: which part of it is on disk, which in memory, and which both.

use crate::name::SegmentName;
use crate::scan::SegmentScan;
use crate::writer::NewRecord;

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) name: SegmentName,
    /// The length of whole records, or of a file of an earlier process.
    pub(crate) length: u64,
    /// The part of `length` that is on disk.
    pub(crate) written: u64,
    /// The end of the part that needs no reading.
    pub(crate) read_to: u64,
    /// The end of the part that needs it; what follows is in memory.
    pub(crate) unread_to: u64,
    pub(crate) scan: SegmentScan,
    /// Records below this sequence are not to be read again.
    pub(crate) skip_below: u64,
    /// Unsettled records in memory.
    pub(crate) live: u64,
    /// Items and payload bytes of this process that are only on disk.
    pub(crate) unread: (u64, usize),
    /// Whether an earlier process wrote the segment.
    pub(crate) leftover: bool,
    /// Whether the segment is compressed now, and so must stay.
    pub(crate) is_compressing: bool,
    /// Whether it stays as it is, since it could not be compressed.
    pub(crate) stays_plain: bool,
}

impl Segment {
    pub(crate) fn new(name: SegmentName, length: u64, leftover: bool) -> Self {
        Self {
            name,
            length,
            written: length,
            read_to: 0,
            unread_to: length,
            scan: SegmentScan::new(name),
            skip_below: 0,
            live: 0,
            unread: (0, 0),
            leftover,
            is_compressing: false,
            stays_plain: false,
        }
    }

    pub(crate) fn is_read(&self) -> bool {
        self.read_to >= self.unread_to
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.live == 0 && self.is_read()
    }

    /// Whether all of it is only on disk, and has not been read since.
    pub(crate) fn is_untouched(&self) -> bool {
        let is_unread = self.read_to == 0 && self.unread_to == self.length;
        is_unread && self.live == 0 && self.written == self.length
    }

    /// The bytes that compression saves of what this process has only on disk.
    pub(crate) fn saved(&self) -> u64 {
        match self.name.plain_length {
            Some(_) => (self.unread.1 as u64).saturating_sub(self.length),
            None => 0,
        }
    }

    /// Takes a record at the end. One that is also in memory must not follow one that is not.
    pub(crate) fn add(&mut self, record: &NewRecord) {
        self.length += record.length();
        self.unread_to = self.length;
        if record.in_memory {
            self.read_to = self.length;
            self.scan = SegmentScan::at(self.name, record.sequence + 1);
            self.live += u64::from(!record.settled);
        } else {
            self.unread.0 += u64::from(record.items);
            self.unread.1 += record.payload.len();
        }
    }

    /// Gives up what was added for a record that is not on disk.
    pub(crate) fn remove(&mut self, record: &NewRecord) {
        if record.in_memory {
            self.live = self.live.saturating_sub(u64::from(!record.settled));
        } else {
            self.forget_unread(record.items.into(), record.payload.len());
        }
    }

    /// Keeps a record in memory after all that is not known to be on disk, and all later ones of the segment.
    pub(crate) fn recall(&mut self, record: &NewRecord) {
        self.unread_to = self.unread_to.min(self.written);
        self.live += u64::from(!record.settled);
        self.forget_unread(record.items.into(), record.payload.len());
    }

    /// Notes that so much is not only on disk any more.
    pub(crate) fn forget_unread(&mut self, items: u64, bytes: usize) {
        self.unread.0 = self.unread.0.saturating_sub(items);
        self.unread.1 = self.unread.1.saturating_sub(bytes);
    }

    /// Starts reading at the beginning again, but leaves out what precedes `sequence`.
    pub(crate) fn read_again(&mut self, sequence: u64) {
        if self.is_read() {
            self.unread_to = self.length;
        }
        self.read_to = 0;
        self.scan = SegmentScan::new(self.name);
        self.skip_below = sequence;
    }
}
