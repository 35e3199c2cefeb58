//! Makes characters visible that a terminal would obey or that would hide others.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character steers a terminal, or the order or visibility of other characters.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text of which each such character is shown as an escape, such as `\n` or `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// A JSON or YAML document of which such characters, which stand in double quotes only, are escapes of that language.
/// Line breaks are the document's own.
pub fn escape_document(document: &str) -> Cow<'_, str> {
    let is_raw = |c: char| c != '\n' && steers(c);
    if !document.contains(is_raw) {
        return Cow::Borrowed(document);
    }
    let mut shown = String::with_capacity(document.len() + 8);
    for c in document.chars() {
        if is_raw(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // A String takes everything.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_not_touched() {
        let text = "Grüße: ├─ ✓ 日本";
        assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn what_steers_a_terminal_is_shown() {
        let shown = escape("a\u{1b}[2J\u{9b}1m\n\t\u{202e}b\u{7f}\u{200b}");
        let expected = r"a\u{1b}[2J\u{9b}1m\n\t\u{202e}b\u{7f}\u{200b}";
        assert_eq!(shown, expected);
        assert!(!shown.contains(steers));
    }

    #[test]
    fn document_means_the_same_after_its_characters_are_escaped() {
        let value = "\u{9b}31m \u{202e} \u{e0041}".to_owned();
        let document = serde_json::to_string_pretty(&[&value]).unwrap();
        let shown = escape_document(&document);
        assert!(!shown.contains(|c| c != '\n' && steers(c)), "{shown}");
        let [read]: [String; 1] = serde_json::from_str(&shown).unwrap();
        assert_eq!(read, value);
    }
}
