//! Mends strings that are not UTF-8, so that one bad byte does not cost a whole request (OTEP 257).

use std::ops::Range;

use crate::inspect::below;
use crate::malformed::{MAX_DEPTH, Malformed};
use crate::schema::{Kind, Message};
use crate::signal::Signal;
use crate::wire::{Cursor, Value};

/// Replaces each byte that is not UTF-8 in a string of a request by `?`, in place, and returns the number of
/// such strings. For requests that [`inspect`](crate::inspect()) has refused with [`Malformed::Utf8`]; they
/// must be inspected again.
///
/// # Errors
/// If the bytes are not such a request.
pub fn repair(signal: Signal, request: &mut [u8]) -> Result<usize, Malformed> {
    let mut repaired = 0;
    message(request, signal.request(), MAX_DEPTH, &mut repaired)?;
    Ok(repaired)
}

fn message(
    bytes: &mut [u8],
    schema: &'static Message,
    depth: u32,
    repaired: &mut usize,
) -> Result<(), Malformed> {
    let mut at = 0;
    while at < bytes.len() {
        let mut cursor = Cursor::new(bytes.get(at..).unwrap_or_default());
        let (number, wire_type) = cursor.tag()?;
        let length = match cursor.value(number, wire_type, depth)? {
            Value::Length(content) => content.len(),
            _ => 0,
        };
        at += cursor.position();
        let content = bytes.get_mut(at - length..at).unwrap_or_default();
        match schema.kind(number) {
            Kind::Text => *repaired += usize::from(text(content)),
            Kind::Message(inner) | Kind::Item(inner) => {
                message(content, inner, below(depth)?, repaired)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether something had to be replaced.
fn text(text: &mut [u8]) -> bool {
    let mut at = 0;
    while let Some(bad) = bad_bytes(text, at) {
        at = bad.end;
        text.get_mut(bad).unwrap_or_default().fill(b'?');
    }
    at > 0
}

/// The first bytes from `start` on that are not UTF-8.
pub(crate) fn bad_bytes(text: &[u8], start: usize) -> Option<Range<usize>> {
    let error = std::str::from_utf8(text.get(start..)?).err()?;
    let bad = start + error.valid_up_to();
    let end = error.error_len().map_or(text.len(), |length| bad + length);
    Some(bad..end)
}
