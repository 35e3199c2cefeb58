//! The contents of strings: escapes, hexadecimal, base64.

/// Appends an unescaped string; never longer than the escaped one.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (character, length) = escaped(escape);
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = escape.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

/// The character of the leading escape, and the escape's length.
fn escaped(text: &[u8]) -> (char, usize) {
    let character = match text.get(1) {
        Some(b'u') => {
            let first = code_unit(text).unwrap_or_default();
            let second = text.get(6..).and_then(code_unit);
            let pair = char::decode_utf16([first].into_iter().chain(second)).next();
            return match pair {
                Some(Ok(character)) if character.len_utf16() == 2 => (character, 12),
                Some(Ok(character)) => (character, 6),
                _ => (char::REPLACEMENT_CHARACTER, 6),
            };
        }
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&itself) => char::from(itself),
        None => char::REPLACEMENT_CHARACTER,
    };
    (character, 2)
}

fn code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Decodes a text in place. Returns the number of bytes, or what is wrong.
pub(super) type Decode = fn(&mut [u8]) -> Result<usize, &'static str>;

/// Decodes hexadecimal.
pub(super) fn hex_in_place(text: &mut [u8]) -> Result<usize, &'static str> {
    if !text.len().is_multiple_of(2) {
        return Err("hexadecimal digits come in pairs");
    }
    let length = text.len() / 2;
    for at in 0..length {
        let Some(&[high, low]) = text.get(2 * at..).and_then(<[u8]>::first_chunk) else {
            break;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (Some(high), Some(low)) = (digit(high), digit(low)) else {
            return Err("expected hexadecimal digits");
        };
        if let Some(slot) = text.get_mut(at) {
            *slot = ((high << 4 | low) & 0xff) as u8;
        }
    }
    Ok(length)
}

/// Decodes base64 of either alphabet, with or without padding (RFC 4648).
pub(crate) fn base64_in_place(text: &mut [u8]) -> Result<usize, &'static str> {
    const WRONG: &str = "expected base64";
    let digits = match text {
        [rest @ .., b'=', b'='] | [rest @ .., b'='] => rest.len(),
        _ => text.len(),
    };
    let is_padded = digits < text.len();
    if (is_padded && !text.len().is_multiple_of(4)) || digits % 4 == 1 {
        return Err(WRONG);
    }
    let mut bits = 0_u32;
    let mut length = 0;
    for at in 0..digits {
        let digit = text.get(at).copied().and_then(base64_digit).ok_or(WRONG)?;
        bits = bits << 6 | digit;
        if at % 4 != 0
            && let Some(slot) = text.get_mut(length)
        {
            *slot = ((bits >> (6 - 2 * (at % 4))) & 0xff) as u8;
            length += 1;
        }
    }
    Ok(length)
}

fn base64_digit(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}
