//! Mends strings of a document that are not UTF-8.

use crate::repair::bad_bytes;

/// Replaces each byte that is not UTF-8 by `?`, in place, and returns the number of strings that had some. For
/// texts that [`transcode`](super::transcode()) has refused with [`Error::Utf8`](super::Error::Utf8). Outside of
/// strings a `?` is as wrong as the byte was.
pub fn repair(text: &mut [u8]) -> usize {
    let mut strings = 0;
    let mut at = 0;
    while let Some(bad) = bad_bytes(text, at) {
        let between = text.get(at..bad.start).unwrap_or_default();
        if strings == 0 || has_quote(between) {
            strings += 1;
        }
        at = bad.end;
        text.get_mut(bad).unwrap_or_default().fill(b'?');
    }
    strings
}

/// Whether a string ends in a part of a document that begins within one.
fn has_quote(text: &[u8]) -> bool {
    let mut is_escaped = false;
    text.iter().any(|byte| {
        let ends = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    })
}
