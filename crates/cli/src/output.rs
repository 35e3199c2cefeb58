//! Writes answers: as text, or as a versioned document.

use std::io::{IsTerminal, Write};

use serde::Serialize;
use terminal_size::{Height, Width, terminal_size};

use crate::args::{Options, Output};
use crate::error::CliError;
use crate::text::{Page, Style, escape_document};

/// Version of the documents. It changes only if a program that reads them would have to.
pub const API_VERSION: &str = "cli.otelagent.dev/v1alpha1";
/// Characters of a line where there is no terminal.
const WIDTH: usize = 120;
/// Fewer make no readable text.
const LEAST_WIDTH: usize = 40;

/// A document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    answer: &'a T,
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// How text is written.
    pub style: Style,
    /// The form of answers.
    pub output: Output,
    /// Whether a person sees it at once.
    pub is_terminal: bool,
}

impl Terminal {
    /// Standard output, as the options want it.
    pub fn of(options: &Options) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            style: Style {
                width: width(),
                colour: is_terminal && !options.no_color && !refused && !is_dumb,
                whole: options.output == Output::Wide,
            },
            output: options.output,
            is_terminal,
        }
    }

    /// The same with the present width of the window.
    pub fn now(&self) -> Self {
        let mut now = *self;
        now.style.width = width();
        now
    }

    /// The answer in the form that is wanted; `page` makes the text.
    ///
    /// # Errors
    /// If it cannot be made a document.
    pub fn render<T: Serialize>(
        &self,
        kind: &'static str,
        answer: &T,
        page: impl FnOnce(&T) -> Page,
    ) -> Result<String, CliError> {
        self.document(kind, answer, |answer| Ok(page(answer).render(self.style)))
    }

    /// The same with text of one's own.
    ///
    /// # Errors
    /// If it cannot be made a document.
    pub fn document<T: Serialize>(
        &self,
        kind: &'static str,
        answer: &T,
        text: impl FnOnce(&T) -> Result<String, CliError>,
    ) -> Result<String, CliError> {
        let document = Document {
            api_version: API_VERSION,
            kind,
            answer,
        };
        let internal = |error: &dyn std::error::Error| CliError::Internal(error.to_string());
        let document = match self.output {
            Output::Text | Output::Wide => return text(answer),
            Output::Json => {
                serde_json::to_string_pretty(&document).map_err(|error| internal(&error))? + "\n"
            }
            Output::Yaml => serde_saphyr::to_string(&document).map_err(|error| internal(&error))?,
        };
        Ok(escape_document(&document).into_owned())
    }

    /// Writes the answer to standard output.
    ///
    /// # Errors
    /// If that fails. A reader who has seen enough is no failure.
    pub fn print<T: Serialize>(
        &self,
        kind: &'static str,
        answer: &T,
        page: impl FnOnce(&T) -> Page,
    ) -> Result<(), CliError> {
        write(&self.render(kind, answer, page)?)
    }
}

/// Writes text to standard output in one piece.
///
/// # Errors
/// If that fails. A reader who has seen enough is no failure.
pub fn write(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Characters of a line: of the terminal, else as COLUMNS says.
fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|columns| columns.parse().ok());
    let width = size().map(|(width, _)| width);
    width.or(columns).unwrap_or(WIDTH).max(LEAST_WIDTH)
}

/// Characters and lines of the terminal, if there is one.
pub fn size() -> Option<(usize, usize)> {
    let (Width(width), Height(height)) = terminal_size()?;
    Some((width.into(), height.into()))
}
