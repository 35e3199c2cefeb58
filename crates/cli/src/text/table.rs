//! A table whose columns are as wide as what they hold.

use super::line::{Span, dim, strong};

/// The space between two columns.
const GAP: usize = 2;
/// A column that is cut has at least this width.
const LEAST: usize = 12;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    head: &'static str,
    is_number: bool,
}

impl Column {
    /// A column of text.
    pub fn text(head: &'static str) -> Self {
        Self {
            head,
            is_number: false,
        }
    }

    /// A column of numbers, which end one below the other.
    pub fn number(head: &'static str) -> Self {
        Self {
            head,
            is_number: true,
        }
    }
}

/// Rows of cells under heads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    margin: String,
    columns: Vec<Column>,
    rows: Vec<Vec<Span>>,
}

impl Table {
    /// An empty table behind a margin.
    pub fn new(margin: &str, columns: impl IntoIterator<Item = Column>) -> Self {
        Self {
            margin: margin.to_owned(),
            columns: columns.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, which has as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Span>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes it. Without `whole`, the widest column of text is cut until the table fits.
    pub fn write(&self, width: usize, colour: bool, whole: bool, out: &mut String) {
        let mut widths = self.widths();
        let room = width.saturating_sub(self.margin.chars().count());
        while !whole && widths.iter().sum::<usize>() + GAP * (widths.len().max(1) - 1) > room {
            let texts = self.columns.iter().zip(&mut widths);
            let texts = texts.filter(|(column, _)| !column.is_number);
            match texts
                .map(|(_, width)| width)
                .max_by_key(|width| **width)
                .filter(|width| **width > LEAST)
            {
                Some(widest) => *widest -= 1,
                None => break,
            }
        }
        let heads: Vec<Span> = self.columns.iter().map(|one| strong(one.head)).collect();
        for row in std::iter::once(&heads).chain(&self.rows) {
            self.write_row(row, &widths, colour, out);
        }
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.columns.iter().enumerate();
        let widest = columns.map(|(at, column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            let widest = cells.map(Span::width).max().unwrap_or_default();
            widest.max(column.head.chars().count())
        });
        widest.collect()
    }

    fn write_row(&self, row: &[Span], widths: &[usize], colour: bool, out: &mut String) {
        dim(&self.margin).write(colour, out);
        let cells = row.iter().zip(widths).zip(&self.columns);
        for (at, ((cell, width), column)) in cells.enumerate() {
            let cell = cell.cut_to(*width);
            let space = " ".repeat(width - cell.width());
            if at > 0 {
                out.push_str(&" ".repeat(GAP));
            }
            if column.is_number {
                out.push_str(&space);
                cell.write(colour, out);
            } else {
                cell.write(colour, out);
                out.push_str(&space);
            }
        }
        let kept = out.trim_end_matches(' ').len();
        out.truncate(kept);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::plain;
    use super::*;

    fn written(width: usize, whole: bool) -> String {
        let columns = [
            Column::text("NAME"),
            Column::number("PODS"),
            Column::text("NODE"),
        ];
        let mut table = Table::new("  ", columns);
        table.row([plain("a-long-name-of-a-thing"), plain("3"), plain("n1")]);
        table.row([plain("b"), plain("12"), plain("")]);
        let mut out = String::new();
        table.write(width, false, whole, &mut out);
        out
    }

    #[test]
    fn columns_are_aligned_and_cut_only_where_they_must_be() {
        let expected = "  NAME                    PODS  NODE\n  a-long-name-of-a-thing     3  n1\n  b                         12\n";
        assert_eq!(written(80, false), expected);
        let cut =
            "  NAME            PODS  NODE\n  a-long-name-o…     3  n1\n  b                 12\n";
        assert_eq!(written(28, false), cut);
        assert_eq!(written(28, true), expected);
    }
}
