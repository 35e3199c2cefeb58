//! Reads the tokens of a JSON text (RFC 8259).

use std::borrow::Cow;

use super::error::{Error, excerpt};
use super::text::unescape;
use crate::malformed::MAX_DEPTH;

/// The longest escaped string that is compared with a name or read as a number.
const SHORT: usize = 512;

/// A position in a text of valid UTF-8.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

/// The text between a string's quotes; its escapes are well formed.
#[derive(Clone, Copy)]
pub(super) struct Quoted<'a> {
    pub(super) raw: &'a [u8],
    pub(super) is_escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The unescaped string if it is short. A long one stays escaped, since it cannot be a name or a
    /// number.
    pub(super) fn short(&self) -> Cow<'a, [u8]> {
        if !self.is_escaped || self.raw.len() > SHORT {
            return Cow::Borrowed(self.raw);
        }
        let mut out = Vec::with_capacity(self.raw.len());
        unescape(self.raw, &mut out);
        Cow::Owned(out)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text: text.as_bytes(),
            at: 0,
        }
    }

    /// The next byte that is not white space.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// An error that says what was found instead.
    pub(super) fn expected(&mut self, what: &str) -> Error {
        let found = match self.peek() {
            None => "the end".into(),
            Some(b'{') => "an object".into(),
            Some(b'[') => "an array".into(),
            Some(b'"') => "a string".into(),
            Some(b'-' | b'0'..=b'9') => "a number".into(),
            Some(_) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let is_word = |byte: &&u8| byte.is_ascii_alphanumeric();
                let word = rest.iter().take_while(is_word).count();
                let one = rest
                    .utf8_chunks()
                    .next()
                    .and_then(|chunk| chunk.valid().chars().next());
                let length = word.max(one.map_or(0, char::len_utf8));
                format!("`{}`", excerpt(rest.get(..length).unwrap_or_default()))
            }
        };
        Error::fault(format!(
            "expected {what}, found {found} at byte {}",
            self.at
        ))
    }

    /// Enters an object or array.
    pub(super) fn open(&mut self, bracket: u8, what: &str) -> Result<(), Error> {
        if self.take(bracket) {
            Ok(())
        } else {
            Err(self.expected(what))
        }
    }

    /// Whether another entry follows; otherwise reads the closing bracket.
    pub(super) fn more(&mut self, bracket: u8, is_first: &mut bool) -> Result<bool, Error> {
        if self.take(bracket) {
            return Ok(false);
        }
        if !std::mem::take(is_first) && !self.take(b',') {
            return Err(self.expected(if bracket == b'}' {
                "`,` or `}`"
            } else {
                "`,` or `]`"
            }));
        }
        Ok(true)
    }

    /// Reads this key if it comes next, without escapes and white space; returns whether it did.
    pub(super) fn key_is(&mut self, name: &str) -> bool {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let after = rest
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .and_then(|rest| rest.strip_prefix(b"\":"));
        if let Some(after) = after {
            self.at = self.text.len() - after.len();
        }
        after.is_some()
    }

    /// Reads a key and its colon.
    pub(super) fn key(&mut self) -> Result<Quoted<'a>, Error> {
        let key = self.string("a key")?;
        if !self.take(b':') {
            let error = self.expected("`:`");
            return Err(error.under(&key.short()));
        }
        Ok(key)
    }

    pub(super) fn string(&mut self, what: &str) -> Result<Quoted<'a>, Error> {
        if !self.take(b'"') {
            return Err(self.expected(what));
        }
        let start = self.at;
        let mut is_escaped = false;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            self.at += plain(rest);
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    is_escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.broken("a control character in a string")),
                None => return Err(self.broken("a string without end")),
            }
        }
        let raw = self.text.get(start..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Quoted { raw, is_escaped })
    }

    fn broken(&self, what: &str) -> Error {
        Error::fault(format!("{what} at byte {}", self.at))
    }

    fn escape(&mut self) -> Result<(), Error> {
        let rest = self.text.get(self.at + 1..).unwrap_or_default();
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', a, b, c, d, ..]
                if [a, b, c, d].iter().all(|digit| digit.is_ascii_hexdigit()) =>
            {
                6
            }
            _ => return Err(self.broken("an unknown escape in a string")),
        };
        Ok(())
    }

    /// Reads a number as it is written.
    pub(super) fn number(&mut self, what: &str) -> Result<&'a [u8], Error> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return Err(self.expected(what));
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let Some(length) = number_length(rest) else {
            return Err(self.broken("a number that ends too early"));
        };
        self.at += length;
        Ok(rest.get(..length).unwrap_or_default())
    }

    /// Reads this one of `null`, `true` and `false` if it comes next; returns whether it did.
    pub(super) fn literal(&mut self, word: &str) -> bool {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let found = rest.starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    /// Skips any value.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        // The open brackets: 1 for an object, the innermost in the lowest bit.
        let mut open = 0_u128;
        let mut depth = 0;
        loop {
            let mut is_first = false;
            match self.peek() {
                Some(bracket @ (b'{' | b'[')) => {
                    if depth == MAX_DEPTH {
                        return Err(Error::too_deep());
                    }
                    self.at += 1;
                    depth += 1;
                    open = open << 1 | u128::from(bracket == b'{');
                    is_first = true;
                }
                Some(b'"') => {
                    self.string("a value")?;
                }
                _ if ["null", "true", "false"]
                    .iter()
                    .any(|word| self.literal(word)) => {}
                _ => {
                    self.number("a value")?;
                }
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let is_object = open & 1 == 1;
                if self.more(if is_object { b'}' } else { b']' }, &mut is_first)? {
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                open >>= 1;
                depth -= 1;
                is_first = false;
            }
        }
    }

    /// Checks that only white space follows.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.expected("the end")),
        }
    }
}

/// How many leading bytes of a string need no special treatment; compares eight at a time.
fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let (words, rest) = text.as_chunks::<8>();
    for (index, bytes) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*bytes);
        // Sets the high bit of each byte that matches; bits above the first match may be wrong.
        let equal = |byte: u64| {
            let differs = word ^ (ONES * byte);
            differs.wrapping_sub(ONES) & !differs
        };
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (equal(0x22) | equal(0x5c) | control) & HIGH;
        if found != 0 {
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// The length of the leading number, unless the text ends inside it.
pub(super) fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (length > 0).then_some(from + length)
    };
    let start = usize::from(text.first() == Some(&b'-'));
    let mut at = if text.get(start) == Some(&b'0') {
        start + 1
    } else {
        digits(start)?
    };
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        let sign = matches!(text.get(at + 1), Some(b'+' | b'-'));
        at = digits(at + 1 + usize::from(sign))?;
    }
    Some(at)
}
