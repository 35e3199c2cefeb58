//! Lines and tables, one below the other.

use super::line::{Line, Span};
use super::table::Table;

/// How text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// How many characters a line has.
    pub width: usize,
    /// Whether it has colours.
    pub colour: bool,
    /// Whether tables are written whole, even if they are wider.
    pub whole: bool,
}

/// Lines and tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page(Vec<Item>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Line(Line),
    Table(Table),
    Raw(Span),
}

impl Page {
    /// Adds a line.
    pub fn line(&mut self, line: Line) {
        self.0.push(Item::Line(line));
    }

    /// Adds a line of these pieces.
    pub fn text(&mut self, text: impl IntoIterator<Item = Span>) {
        self.line(Line::of(text));
    }

    /// Adds a line that is never broken, such as one of a diff.
    pub fn raw(&mut self, text: Span) {
        self.0.push(Item::Raw(text));
    }

    /// Adds an empty line.
    pub fn blank(&mut self) {
        self.line(Line::default());
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.0.push(Item::Table(table));
    }

    /// Adds another page.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The text.
    pub fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for item in &self.0 {
            match item {
                Item::Line(line) => line.write(style.width, style.colour, &mut out),
                Item::Raw(text) => {
                    text.write(style.colour, &mut out);
                    out.push('\n');
                }
                Item::Table(table) => {
                    table.write(style.width, style.colour, style.whole, &mut out);
                }
            }
        }
        out
    }
}
