//! Decompresses what arrives. The output takes memory from the budget before it is kept, and never exceeds its
//! limit.

use std::cell::RefCell;
use std::io::Read;

use flate2::bufread::{DeflateDecoder, ZlibDecoder};

use crate::budget::Permit;

/// The amount of output that is read from a decoder at once.
const READ_CHUNK: usize = 64 * 1024;

/// The largest zstd window, 8 MiB: RFC 8878 requires no more of a decoder.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The largest block of zstd.
const ZSTD_BLOCK: usize = 128 * 1024;

/// The memory of a zstd decoder beside its buffers, rounded up.
const ZSTD_TABLES: usize = 128 * 1024;

/// The accepted encodings, for `accept-encoding`.
pub(crate) const ACCEPTED: &str = "gzip, zstd, deflate, identity";

/// The same for `grpc-accept-encoding`.
pub(crate) const ACCEPTED_GRPC: &str = "identity,gzip,zstd,deflate";

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Plain bytes.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// RFC 1950, or RFC 1951 without anything around it: what is meant by the name has never been agreed on.
    Deflate,
}

/// Parses a header value; without one a body is plain.
pub(crate) fn parse(name: Option<&[u8]>) -> Option<Encoding> {
    let name = name.unwrap_or_default().trim_ascii();
    let known = [
        ("", Encoding::Identity),
        ("identity", Encoding::Identity),
        ("gzip", Encoding::Gzip),
        // The same by RFC 9110, section 8.4.1.3.
        ("x-gzip", Encoding::Gzip),
        ("zstd", Encoding::Zstd),
        ("deflate", Encoding::Deflate),
        // What a collector calls it.
        ("zlib", Encoding::Deflate),
    ];
    let mut known = known.into_iter();
    let found = known.find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
    found.map(|(_, encoding)| encoding)
}

/// Why a body cannot be decompressed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the body is larger than {0} bytes after decompression")]
    TooLarge(usize),
    #[error("no memory left to decompress the body")]
    Exhausted,
    #[error("the body is not valid {0}")]
    Corrupt(&'static str),
}

/// The size of a body after decompression as it says itself: of the last gzip member (RFC 1952, 2.3.1) or the first
/// zstd frame (RFC 8878, 3.1.1.1). There may be more to it, and it may lie.
pub(crate) fn announced(encoding: Encoding, body: &[u8]) -> usize {
    let announced = match encoding {
        Encoding::Identity => return body.len(),
        Encoding::Deflate => None,
        Encoding::Gzip => body
            .last_chunk()
            .map(|length| u64::from(u32::from_le_bytes(*length))),
        Encoding::Zstd => zstd::zstd_safe::get_frame_content_size(body).unwrap_or_default(),
    };
    usize::try_from(announced.unwrap_or_default()).unwrap_or(usize::MAX)
}

/// Decompresses a whole body to at most `limit` bytes; `permit` grows by the output, and by nothing if that is too
/// large. Gzip may have any number of members (RFC 1952).
pub(crate) fn decode(
    encoding: Encoding,
    body: &[u8],
    limit: usize,
    permit: &mut Permit,
) -> Result<Vec<u8>, DecodeError> {
    // Telemetry compresses about fivefold; a wrong guess costs one more allocation.
    let first = body.len().saturating_mul(6).max(1024);
    match encoding {
        Encoding::Identity => Ok(body.to_vec()),
        Encoding::Gzip => {
            if let Some(message) = one_member(body, limit, permit)? {
                return Ok(message);
            }
            let mut decoder = flate2::read::MultiGzDecoder::new(body);
            read_bounded(&mut decoder, "gzip", limit, first, permit)
        }
        Encoding::Zstd => {
            let memory = zstd_memory(body);
            permit.grow(memory).map_err(|_| DecodeError::Exhausted)?;
            let message = zstd(body, limit, first, permit);
            permit.shrink(memory);
            message
        }
        Encoding::Deflate => {
            let (message, rest) = if has_zlib_header(body) {
                let mut decoder = ZlibDecoder::new(body);
                let message = read_bounded(&mut decoder, "deflate", limit, first, permit)?;
                (message, decoder.into_inner())
            } else {
                let mut decoder = DeflateDecoder::new(body);
                let message = read_bounded(&mut decoder, "deflate", limit, first, permit)?;
                (message, decoder.into_inner())
            };
            if rest.is_empty() {
                Ok(message)
            } else {
                Err(DecodeError::Corrupt("deflate"))
            }
        }
    }
}

fn zstd(
    body: &[u8],
    limit: usize,
    first: usize,
    permit: &mut Permit,
) -> Result<Vec<u8>, DecodeError> {
    let corrupt = |_| DecodeError::Corrupt("zstd");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(corrupt)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(corrupt)?;
    read_bounded(&mut decoder, "zstd", limit, first, permit)
}

/// The memory of a decoder for a body: its tables, and the largest window of all frames with three blocks beside it.
fn zstd_memory(body: &[u8]) -> usize {
    let mut rest = body;
    let mut window = 0;
    while !rest.is_empty() {
        window = window.max(zstd_window(rest));
        // What follows a frame that is not whole is not read.
        let length = zstd::zstd_safe::find_frame_compressed_size(rest)
            .unwrap_or(usize::MAX)
            .max(1);
        rest = rest.get(length..).unwrap_or_default();
    }
    ZSTD_TABLES + window + 3 * window.min(ZSTD_BLOCK)
}

/// The window of the first frame (RFC 8878, 3.1.1.1), 0 if there is none; a decoder refuses a larger one than we allow.
fn zstd_window(frame: &[u8]) -> usize {
    let Some([0x28, 0xb5, 0x2f, 0xfd, descriptor, window]) = frame.first_chunk::<6>() else {
        return 0;
    };
    let is_single_segment = descriptor & 0x20 != 0;
    let window = if is_single_segment {
        u64::try_from(announced(Encoding::Zstd, frame)).unwrap_or(u64::MAX)
    } else {
        let base = 1 << (10 + (window >> 3));
        base + base / 8 * u64::from(window & 7)
    };
    let most = 1 << ZSTD_WINDOW_LOG;
    usize::try_from(window).unwrap_or(most).min(most)
}

/// Whether a body begins as RFC 1950 says. What RFC 1951 describes does not: its first three bits would announce a
/// block that is stored, and the next ones are zero then.
fn has_zlib_header(body: &[u8]) -> bool {
    let Some(header) = body.first_chunk::<2>() else {
        return false;
    };
    let [method, _] = *header;
    method & 0x8f == 8 && u16::from_be_bytes(*header).is_multiple_of(31)
}

/// The maximum output of a byte of deflate (RFC 1951: 258 bytes for 2 bits).
const MOST_PER_BYTE: usize = 1032;

/// Decompresses a gzip body of one member, whose last four bytes tell the length of its output. This takes
/// half as long as a stream, which must keep its window. `None` for any other body, which the stream then
/// handles.
fn one_member(
    body: &[u8],
    limit: usize,
    permit: &mut Permit,
) -> Result<Option<Vec<u8>>, DecodeError> {
    thread_local! {
        static DECOMPRESSOR: RefCell<libdeflater::Decompressor> = RefCell::default();
    }
    let Some((before, length)) = body.split_last_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    let is_possible = length <= limit && length / MOST_PER_BYTE <= body.len();
    if !is_possible || length == 0 || has_another_member(body) {
        return Ok(None);
    }
    permit.grow(length).map_err(|_| DecodeError::Exhausted)?;
    let mut message = vec![0; length];
    let written = DECOMPRESSOR.with_borrow_mut(|gzip| gzip.gzip_decompress(body, &mut message));
    // The member must be the whole body. The decompressor does not tell where it ended, but the body must
    // end with the checksum of the output.
    let checksum = crc32fast::hash(&message).to_le_bytes();
    if written == Ok(length) && before.ends_with(&checksum) {
        return Ok(Some(message));
    }
    permit.shrink(length);
    Ok(None)
}

/// Whether a second member may begin somewhere; a false alarm for one body in thousands.
fn has_another_member(body: &[u8]) -> bool {
    let (first, second, third) = (body.get(1..), body.get(2..), body.get(3..));
    let (Some(first), Some(second), Some(third)) = (first, second, third) else {
        return false;
    };
    let windows = first.iter().zip(second).zip(third);
    // Without branches, so that the compiler vectorizes the loop.
    let differences =
        windows.map(|((first, second), third)| (first ^ 0x1f) | (second ^ 0x8b) | (third ^ 8));
    differences.fold(u8::MAX, u8::min) == 0
}

/// Reads one byte more than the limit, to tell too large from exactly full.
fn read_bounded(
    decoder: &mut impl Read,
    name: &'static str,
    limit: usize,
    first: usize,
    permit: &mut Permit,
) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    let mut room = 0;
    loop {
        if out.len() > limit {
            permit.shrink(room);
            return Err(DecodeError::TooLarge(limit));
        }
        if out.len() == room {
            let larger = (room * 2).max(first).min(limit + 1);
            permit
                .grow(larger - room)
                .map_err(|_| DecodeError::Exhausted)?;
            out.reserve_exact(larger - out.len());
            room = larger;
        }
        let filled = out.len();
        out.resize(room.min(filled + READ_CHUNK), 0);
        let read = out
            .get_mut(filled..)
            .map_or(Ok(0), |space| decoder.read(space))
            .map_err(|_| DecodeError::Corrupt(name))?;
        out.truncate(filled + read);
        if read == 0 {
            return Ok(out);
        }
    }
}
