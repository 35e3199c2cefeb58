//! One line of text, which goes on below itself where it is too long.

use super::escape::escape;

/// What a piece of text is to look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As everything.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// Less important.
    Dim,
    /// As wished.
    Good,
    /// To be looked at.
    Warn,
    /// Wrong.
    Bad,
}

impl Tone {
    /// The sequence (ECMA-48, SGR) that begins it; none for plain text.
    fn begin(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// A piece of text. It holds nothing that steers a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    tone: Tone,
    text: String,
}

/// A piece of text in a tone.
pub fn toned(tone: Tone, text: impl AsRef<str>) -> Span {
    Span {
        tone,
        text: escape(text.as_ref()).into_owned(),
    }
}

/// Ordinary text.
pub fn plain(text: impl AsRef<str>) -> Span {
    toned(Tone::Plain, text)
}

/// A heading.
pub fn strong(text: impl AsRef<str>) -> Span {
    toned(Tone::Strong, text)
}

/// Less important text.
pub fn dim(text: impl AsRef<str>) -> Span {
    toned(Tone::Dim, text)
}

/// What is as wished.
pub fn good(text: impl AsRef<str>) -> Span {
    toned(Tone::Good, text)
}

/// What is to be looked at.
pub fn warn(text: impl AsRef<str>) -> Span {
    toned(Tone::Warn, text)
}

/// What is wrong.
pub fn bad(text: impl AsRef<str>) -> Span {
    toned(Tone::Bad, text)
}

impl Span {
    /// How many characters it has.
    pub fn width(&self) -> usize {
        self.text.chars().count()
    }

    /// The same cut to a width, with a sign that it is cut.
    pub fn cut_to(&self, width: usize) -> Self {
        if self.width() <= width {
            return self.clone();
        }
        let kept: String = self.text.chars().take(width.saturating_sub(1)).collect();
        Self {
            tone: self.tone,
            text: format!("{kept}…"),
        }
    }

    /// Writes it, with its colour if wanted.
    pub fn write(&self, colour: bool, out: &mut String) {
        let begin = self.tone.begin();
        if !colour || begin.is_empty() || self.text.is_empty() {
            out.push_str(&self.text);
            return;
        }
        out.push_str(begin);
        out.push_str(&self.text);
        out.push_str("\x1b[0m");
    }
}

/// A line: what stands before it, what stands before its continuations, and its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    before: Vec<Span>,
    below: String,
    text: Vec<Span>,
}

impl Line {
    /// A line of these pieces, without a margin.
    pub fn of(text: impl IntoIterator<Item = Span>) -> Self {
        Self::behind("", [], text)
    }

    /// A line behind a margin of spaces or the lines of a tree, and behind pieces that do not wrap. Continuations begin
    /// below its text, behind the same margin.
    pub fn behind(
        margin: &str,
        pieces: impl IntoIterator<Item = Span>,
        text: impl IntoIterator<Item = Span>,
    ) -> Self {
        Self::branch(margin, margin, pieces, text)
    }

    /// The same with another margin before continuations.
    pub fn branch(
        margin: &str,
        below: &str,
        pieces: impl IntoIterator<Item = Span>,
        text: impl IntoIterator<Item = Span>,
    ) -> Self {
        let pieces: Vec<Span> = pieces.into_iter().collect();
        let width: usize = pieces.iter().map(Span::width).sum();
        let margin = dim(margin);
        Self {
            below: format!("{below}{}", " ".repeat(width)),
            before: std::iter::once(margin).chain(pieces).collect(),
            text: text.into_iter().collect(),
        }
    }

    /// Writes it, broken at spaces to lines of this many characters.
    pub fn write(&self, width: usize, colour: bool, out: &mut String) {
        let before: usize = self.before.iter().map(Span::width).sum();
        let below = dim(&self.below);
        // Where little room is left, a line is longer than it should be.
        let room = width.saturating_sub(before).max(20);
        let mut lines = broken(&self.text, room).into_iter();
        for span in &self.before {
            span.write(colour, out);
        }
        write_all(&lines.next().unwrap_or_default(), colour, out);
        for line in lines {
            out.push('\n');
            below.write(colour, out);
            write_all(&line, colour, out);
        }
        let kept = out.trim_end_matches(' ').len();
        out.truncate(kept);
        out.push('\n');
    }
}

fn write_all(spans: &[Span], colour: bool, out: &mut String) {
    for span in spans {
        span.write(colour, out);
    }
}

/// The pieces in lines of a width. A word that is longer than a line is broken.
fn broken(text: &[Span], width: usize) -> Vec<Vec<Span>> {
    let mut lines: Vec<Vec<Span>> = vec![Vec::new()];
    let mut used = 0;
    for span in text {
        for word in span.text.split_inclusive(' ') {
            let mut rest = word;
            let needed = rest.trim_end_matches(' ').chars().count();
            if used > 0 && used + needed > width {
                trim(lines.last_mut());
                lines.push(Vec::new());
                used = 0;
            }
            while !rest.is_empty() {
                let needed = rest.trim_end_matches(' ').chars().count();
                let end = if needed > width {
                    rest.char_indices()
                        .nth(width)
                        .map_or(rest.len(), |(at, _)| at)
                } else {
                    rest.len()
                };
                let (piece, left) = rest.split_at(end);
                add(lines.last_mut(), span.tone, piece);
                used += piece.chars().count();
                rest = left;
                if !rest.is_empty() {
                    lines.push(Vec::new());
                    used = 0;
                }
            }
        }
    }
    lines
}

/// Removes the spaces at which a line is broken.
fn trim(line: Option<&mut Vec<Span>>) {
    let last = line.and_then(|line| line.last_mut());
    if let Some(last) = last {
        let kept = last.text.trim_end_matches(' ').len();
        last.text.truncate(kept);
    }
}

/// Adds a piece to a line, joined to the last one of its tone.
fn add(line: Option<&mut Vec<Span>>, tone: Tone, text: &str) {
    let Some(line) = line else { return };
    match line.last_mut() {
        Some(last) if last.tone == tone => last.text.push_str(text),
        _ => line.push(Span {
            tone,
            text: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(line: &Line, width: usize) -> String {
        let mut out = String::new();
        line.write(width, false, &mut out);
        out
    }

    #[test]
    fn long_line_goes_on_below_its_text() {
        let text = [bad("one two"), plain(" three four five six")];
        let line = Line::branch("├─ ", "│  ", [bad("✗ ")], text);
        let expected = "├─ ✗ one two three four\n│    five six\n";
        assert_eq!(written(&line, 25), expected);
    }

    #[test]
    fn word_longer_than_a_line_is_broken() {
        let line = Line::of([plain(format!("a {} b", "x".repeat(45)))]);
        let lines: Vec<usize> = written(&line, 20)
            .lines()
            .map(|line| line.chars().count())
            .collect();
        assert_eq!(lines, [1, 20, 20, 7]);
    }

    #[test]
    fn colours_end_where_their_text_ends() {
        let mut out = String::new();
        Line::of([plain("a "), good("b")]).write(80, true, &mut out);
        assert_eq!(out, "a \x1b[32mb\x1b[0m\n");
    }
}
