//! Compression of what is sent, level 1: one compressor for the whole process, kept from batch to
//! batch, that stops often enough for others to be answered. Must not know HTTP or gRPC.

use std::io;

use bytes::Bytes;
use flate2::{Compress, FlushCompress, Status};
use tokio::sync::Mutex;
use tokio::task::yield_now;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::config::Compression;

/// Input that is compressed before other tasks may run, about 0.2 ms of gzip.
const TURN: usize = 64 * 1024;

/// Output comes in pieces of this size, so that a large batch needs no second contiguous buffer.
const PIECE: usize = 64 * 1024;

/// Bytes a compressor allocates at level 1, rounded up: for zstd its window of 512 KiB, blocks and
/// tables.
pub(crate) fn context(compression: Compression) -> usize {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 384 * 1024,
        Compression::Zstd => 1536 * 1024,
    }
}

/// What compresses, one batch at a time: two at once would take as long, need twice the memory, and
/// let twice as much time pass before a client is answered. Batches wait in order of arrival.
#[derive(Default)]
pub(crate) struct Compressor(Mutex<Machines>);

/// Made when first needed.
#[derive(Default)]
struct Machines {
    gzip: Option<Compress>,
    zstd: Option<CCtx<'static>>,
}

/// A compressor with one batch in it.
enum Machine<'a> {
    Gzip(&'a mut Compress),
    Zstd(&'a mut CCtx<'static>),
}

/// A turn at the compressor.
pub(crate) struct Turn<'a>(tokio::sync::MutexGuard<'a, Machines>);

impl Compressor {
    /// Waits until nobody else compresses.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn(self.0.lock().await)
    }
}

impl Turn<'_> {
    /// Compresses the parts of one request as one stream.
    ///
    /// # Errors
    /// Only where a compressor cannot be set up.
    pub(crate) async fn encode(
        mut self,
        compression: Compression,
        parts: &[Bytes],
    ) -> io::Result<Vec<Bytes>> {
        let total = parts.iter().map(Bytes::len).sum();
        let Some(mut machine) = self.0.prepare(compression, total)? else {
            return Ok(parts.to_vec());
        };
        let mut pieces = Pieces::default();
        let mut since_yield = 0;
        for part in parts {
            for mut input in part.chunks(TURN) {
                since_yield += input.len();
                while !input.is_empty() {
                    let taken = machine.take(input, pieces.space())?;
                    input = input.get(taken..).unwrap_or_default();
                }
                if since_yield >= TURN {
                    since_yield = 0;
                    yield_now().await;
                }
            }
        }
        while !machine.finish(pieces.space())? {}
        Ok(pieces.into_inner())
    }
}

impl Machines {
    /// What compresses, emptied of whatever an abandoned batch left in it; nothing for plain bytes.
    fn prepare(
        &mut self,
        compression: Compression,
        total: usize,
    ) -> io::Result<Option<Machine<'_>>> {
        match compression {
            Compression::None => Ok(None),
            Compression::Gzip => {
                let level = flate2::Compression::new(1);
                let gzip = self
                    .gzip
                    .get_or_insert_with(|| Compress::new_gzip(level, 15));
                gzip.reset();
                Ok(Some(Machine::Gzip(gzip)))
            }
            Compression::Zstd => {
                if self.zstd.is_none() {
                    let none = || io::Error::from(io::ErrorKind::OutOfMemory);
                    let mut fresh = CCtx::try_create().ok_or_else(none)?;
                    let level = CParameter::CompressionLevel(1);
                    fresh.set_parameter(level).map_err(zstd_error)?;
                    self.zstd = Some(fresh);
                }
                let Some(zstd) = &mut self.zstd else {
                    return Ok(None);
                };
                zstd.reset(ResetDirective::SessionOnly)
                    .map_err(zstd_error)?;
                // Lets the upstream allocate once, and small batches do with small tables.
                zstd.set_pledged_src_size(Some(total as u64))
                    .map_err(zstd_error)?;
                Ok(Some(Machine::Zstd(zstd)))
            }
        }
    }
}

impl Machine<'_> {
    /// Compresses as much of the input as there is space for; how much that was.
    fn take(&mut self, input: &[u8], space: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Gzip(gzip) => {
                let before = gzip.total_in();
                gzip.compress_vec(input, space, FlushCompress::None)?;
                Ok(usize::try_from(gzip.total_in() - before).unwrap_or(input.len()))
            }
            Self::Zstd(zstd) => {
                let mut from = InBuffer::around(input);
                let filled = space.len();
                let mut to = OutBuffer::around_pos(space, filled);
                zstd.compress_stream2(&mut to, &mut from, ZSTD_EndDirective::ZSTD_e_continue)
                    .map_err(zstd_error)?;
                Ok(from.pos())
            }
        }
    }

    /// Writes what is left; whether that was all.
    fn finish(&mut self, space: &mut Vec<u8>) -> io::Result<bool> {
        match self {
            Self::Gzip(gzip) => {
                let status = gzip.compress_vec(&[], space, FlushCompress::Finish)?;
                Ok(status == Status::StreamEnd)
            }
            Self::Zstd(zstd) => {
                let mut from = InBuffer::around(&[]);
                let filled = space.len();
                let mut to = OutBuffer::around_pos(space, filled);
                let left = zstd
                    .compress_stream2(&mut to, &mut from, ZSTD_EndDirective::ZSTD_e_end)
                    .map_err(zstd_error)?;
                Ok(left == 0)
            }
        }
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// Output as it grows.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl Pieces {
    /// A buffer that has room.
    fn space(&mut self) -> &mut Vec<u8> {
        if self.last.len() == self.last.capacity() {
            let next = Vec::with_capacity(PIECE);
            let full = std::mem::replace(&mut self.last, next);
            if !full.is_empty() {
                self.full.push(Bytes::from(full));
            }
        }
        &mut self.last
    }

    /// Everything, no allocation larger than what it holds.
    fn into_inner(mut self) -> Vec<Bytes> {
        self.full.push(Bytes::from(self.last.into_boxed_slice()));
        self.full
    }
}
