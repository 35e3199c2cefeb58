//! A part of the terminal that is drawn again and again, without flicker: from its upper left corner, each line over the
//! one before, in one write.

use std::fmt::Write;

use crate::error::CliError;
use crate::output;

/// Enters the alternate screen and hides the cursor (DEC private modes 1049 and 25).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
/// The reverse.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The alternate screen, which is left when this is dropped.
pub struct Screen(());

impl Screen {
    /// Enters it.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn enter() -> Result<Self, CliError> {
        output::write(ENTER)?;
        Ok(Self(()))
    }

    /// Draws a text in place of the last one.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub fn draw(&self, text: &str, height: usize) -> Result<(), CliError> {
        output::write(&frame(text, height))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = output::write(LEAVE);
    }
}

/// The bytes that draw a text on a screen of this height, as one frame (DEC private mode 2026) for terminals that know
/// it. Nothing is cleared before it is drawn.
pub fn frame(text: &str, height: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let shown = if lines.len() > height {
        height.saturating_sub(1)
    } else {
        lines.len()
    };
    let mut out = String::from("\x1b[?2026h\x1b[H");
    for line in &lines[..shown] {
        out.push_str(line);
        out.push_str("\x1b[K\r\n");
    }
    if shown < lines.len() {
        let more = lines.len() - shown;
        // A String takes everything.
        let _ = write!(out, "… {more} more lines: a taller window shows them\x1b[K");
    } else if shown == height {
        // The last line break would move everything up.
        out.truncate(out.len() - "\r\n".len());
    }
    out.push_str("\x1b[J\x1b[?2026l");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_goes_home_and_clears_only_what_it_has_passed() {
        let drawn = frame("one\ntwo\n", 24);
        assert_eq!(
            drawn,
            "\x1b[?2026h\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J\x1b[?2026l"
        );
        assert!(!drawn.contains("\x1b[2J"));
    }

    #[test]
    fn frame_is_never_higher_than_the_screen() {
        for lines in [2, 3, 4, 100] {
            let text = "line\n".repeat(lines);
            let drawn = frame(&text, 3);
            assert!(drawn.matches("\r\n").count() <= 2, "{drawn:?}");
            assert_eq!(drawn.contains("more lines"), lines > 3);
        }
    }
}
