//! Compresses what is sent, at level 1. The process has one compressor, which it reuses for every batch, on a
//! thread of its own.

use std::io;

use bytes::Bytes;
use flate2::{Compress, FlushCompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use crate::config::Compression;

/// The size of output chunks, so that a large batch needs no second contiguous buffer.
const OUTPUT_CHUNK: usize = 64 * 1024;

/// A window of 128 KiB. The level's own, 512 KiB, does not stay in the cache beside the input: that takes a sixth more
/// time for 3 % fewer bytes.
const ZSTD_WINDOW_LOG: u32 = 17;

/// The memory of an encoder at level 1, rounded up: for zstd twice its window, blocks and tables, 953 KiB in all.
pub(crate) fn context(compression: Compression) -> usize {
    match compression {
        Compression::None => 0,
        Compression::Gzip => 384 * 1024,
        Compression::Zstd => 1024 * 1024,
    }
}

/// Compresses one batch at a time. Two at once would need twice the memory. Encoders are created when first needed.
#[derive(Default)]
pub(crate) struct Compressor {
    gzip: Option<Compress>,
    zstd: Option<CCtx<'static>>,
}

/// An encoder with a batch in it.
enum Encoder<'a> {
    Gzip(&'a mut Compress),
    Zstd(&'a mut CCtx<'static>),
}

impl Compressor {
    /// Compresses the parts of one request as one stream.
    ///
    /// # Errors
    /// If an encoder cannot be set up.
    pub(crate) fn encode(
        &mut self,
        compression: Compression,
        parts: &[Bytes],
    ) -> io::Result<Vec<Bytes>> {
        let total = parts.iter().map(Bytes::len).sum();
        let Some(mut encoder) = self.prepare(compression, total)? else {
            return Ok(parts.to_vec());
        };
        let mut chunks = OutputChunks::default();
        for part in parts {
            let mut input = part.as_ref();
            while !input.is_empty() {
                let (taken, _) = encoder.step(input, chunks.space(), false)?;
                input = input.get(taken..).unwrap_or_default();
            }
        }
        while !encoder.step(&[], chunks.space(), true)?.1 {}
        Ok(chunks.into_inner())
    }

    /// An encoder without remains of an abandoned batch; `None` for plain bytes.
    fn prepare(
        &mut self,
        compression: Compression,
        total: usize,
    ) -> io::Result<Option<Encoder<'_>>> {
        match compression {
            Compression::None => Ok(None),
            Compression::Gzip => {
                let new = || Compress::new_gzip(flate2::Compression::new(1), 15);
                let gzip = self.gzip.get_or_insert_with(new);
                gzip.reset();
                Ok(Some(Encoder::Gzip(gzip)))
            }
            Compression::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(zstd_context()?),
                };
                zstd.reset(ResetDirective::SessionOnly)
                    .map_err(zstd_error)?;
                // Lets the upstream allocate once, and keeps tables of small batches small.
                zstd.set_pledged_src_size(Some(total as u64))
                    .map_err(zstd_error)?;
                Ok(Some(Encoder::Zstd(zstd)))
            }
        }
    }
}

impl Encoder<'_> {
    /// Compresses as much of the input as fits into the space, or with `end` writes the rest. Returns how much
    /// of the input was taken, and whether nothing is left to write.
    fn step(&mut self, input: &[u8], space: &mut Vec<u8>, end: bool) -> io::Result<(usize, bool)> {
        match self {
            Self::Gzip(gzip) => {
                let flush = if end {
                    FlushCompress::Finish
                } else {
                    FlushCompress::None
                };
                let before = gzip.total_in();
                let status = gzip.compress_vec(input, space, flush)?;
                let taken = usize::try_from(gzip.total_in() - before).unwrap_or(input.len());
                Ok((taken, status == Status::StreamEnd))
            }
            Self::Zstd(zstd) => {
                let directive = if end {
                    ZSTD_EndDirective::ZSTD_e_end
                } else {
                    ZSTD_EndDirective::ZSTD_e_continue
                };
                let mut from = InBuffer::around(input);
                let filled = space.len();
                let mut to = OutBuffer::around_pos(space, filled);
                let left = zstd.compress_stream2(&mut to, &mut from, directive);
                Ok((from.pos(), left.map_err(zstd_error)? == 0))
            }
        }
    }
}

fn zstd_context() -> io::Result<CCtx<'static>> {
    let mut context = CCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    for parameter in [
        CParameter::CompressionLevel(1),
        CParameter::WindowLog(ZSTD_WINDOW_LOG),
    ] {
        context.set_parameter(parameter).map_err(zstd_error)?;
    }
    Ok(context)
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// The growing output.
#[derive(Default)]
struct OutputChunks {
    full: Vec<Bytes>,
    last: Vec<u8>,
}

impl OutputChunks {
    /// A buffer with space left.
    fn space(&mut self) -> &mut Vec<u8> {
        if self.last.len() == self.last.capacity() {
            let next = Vec::with_capacity(OUTPUT_CHUNK);
            let full = std::mem::replace(&mut self.last, next);
            if !full.is_empty() {
                self.full.push(Bytes::from(full));
            }
        }
        &mut self.last
    }

    /// All chunks, without unused capacity.
    fn into_inner(mut self) -> Vec<Bytes> {
        self.full.push(Bytes::from(self.last.into_boxed_slice()));
        self.full
    }
}
