//! Text for people: lines that wrap, tables that fit, colours that never say anything alone.
//!
//! Whatever comes from the cluster goes through [`escape()`], so that no name and no message can steer the terminal.

mod escape;
mod line;
mod page;
mod table;

pub use escape::{escape, escape_document};
pub use line::{Line, Span, Tone, bad, dim, good, plain, strong, toned, warn};
pub use page::{Page, Style};
pub use table::{Column, Table};
