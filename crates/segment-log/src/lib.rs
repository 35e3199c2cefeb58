//! A durable log in segment files, which survives the end of its process and damage to its files.
//!
//! A directory holds slots, one per process; a slot holds logs. Records are appended to the newest segment
//! of a log. A segment is deleted whole once all its records are settled. The crate does no I/O but files.
//!
//! ```text
//! <directory>/slot-0/lock                                 locked by the process that owns the slot
//!                   /otlp_grpc.traces/0000…01-9f86d081.v1 segments
//!                                    /mark                the sequence below which all is settled
//! ```
//!
//! A segment holds records with ascending sequences without gaps. Its name carries the format version and a
//! salt, where no flipped bit can reach them. A record is [`HEADER`] bytes and its payload; all numbers are
//! little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 0..4 | `OTAR` |
//! | 4..8 | length of the payload |
//! | 8..16 | sequence |
//! | 16..20 | items |
//! | 20..24 | CRC-32 of the payload |
//! | 24..28 | 0 |
//! | 28..32 | CRC-32 of the 28 bytes before, seeded with the salt |
//!
//! A segment that waits behind others is compressed: its records go into blocks of some 128 KiB, each compressed by
//! itself, in a file whose name ends in the segment's length before and `.v2`. A block has a header like a record's,
//! with `OTAZ`, the sequence of its first record and the number of its records, and then a zstd frame. In the frame,
//! a record is its length, its items and its payload. The file is written under another name, and the segment is
//! deleted after it has its own; while both are there, the segment counts.
//!
//! Because of the salt no client can send a payload that passes for a record when the reader searches for
//! the next one after damage.

mod block;
mod compress;
mod error;
mod files;
mod log;
mod log_work;
mod mark;
mod name;
mod read;
mod record;
mod scan;
mod segment;
mod slot;
mod writer;

pub use block::{BlockWriter, plain_length, records, unpack};
pub use compress::{CompressJob, Compressed};
pub use error::LogError;
pub use files::remove_empty;
pub use log::{Log, LogLimits, Position, ReadResult};
pub use mark::{MARKS, latest_mark, mark};
pub use name::{FileKind, LAST, SegmentName};
pub use read::{Chunk, Grant, ReadJob, StoredRecord, leftovers};
pub use record::{HEADER, header};
pub use scan::{Damage, Record, SegmentScan};
pub use slot::{Slot, SlotDirectory};
pub use writer::{Outcome, Work, Writer};
