//! Standard output and standard error: colours, width, and output.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, Color, Table};
pub(super) use program::terminal::{PADDING, escaped, table};
use serde::Serialize;

use super::Failure;
use crate::config::Environment;

/// What standard output and standard error support.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    /// Whether the result may be coloured: it goes to a terminal, and `NO_COLOR` is not set.
    pub(super) colour: bool,
    /// Whether to show progress: standard error is a terminal that can erase a line.
    pub(super) progress: bool,
    /// Whether the log may be coloured.
    pub(super) log_colour: bool,
    /// Width of the terminal; `None` if the result does not go to a terminal, so lines may have any length.
    pub(super) width: Option<usize>,
}

/// No terminal, for tests.
#[cfg(test)]
pub(super) const PLAIN: Terminal = Terminal { colour: false, progress: false, log_colour: false, width: None };

/// The meaning of a text, shown as its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Odd,
    Bad,
}

impl Terminal {
    pub(super) fn of_process(environment: &Environment) -> Self {
        let given = |name| environment.exact(name).filter(|value| !value.is_empty());
        let (colours, capable) = (given("NO_COLOR").is_none(), given("TERM") != Some("dumb"));
        Self {
            colour: io::stdout().is_terminal() && colours && capable,
            progress: io::stderr().is_terminal() && capable,
            log_colour: io::stderr().is_terminal() && colours && capable,
            width: Table::new().width().map(usize::from),
        }
    }

    /// A text in the colour of its tone.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Odd => 33,
            Tone::Bad => 31,
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Wraps a text to the width. Indents all lines but the first, which the caller has already indented.
    pub(super) fn wrap(self, text: &str, indent: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let (mut out, mut column) = (String::new(), indent);
        for (number, word) in text.split(' ').enumerate() {
            let length = word.chars().count();
            if number > 0 && column + 1 + length > width {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else if number > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(word);
            column += length;
        }
        out
    }

    /// Whether a table fits into the width without wrapping.
    pub(super) fn fits(self, table: &Table) -> bool {
        let columns = table.column_max_content_widths();
        let needed = columns.iter().map(|width| usize::from(width + PADDING)).sum::<usize>();
        self.width.is_none_or(|width| needed <= width + usize::from(PADDING))
    }

    /// A cell of a table in the colour of its tone.
    pub(super) fn cell(self, tone: Tone, text: &str) -> Cell {
        let color = match tone {
            Tone::Good => Color::Green,
            Tone::Odd => Color::Yellow,
            Tone::Bad => Color::Red,
            Tone::Plain => return Cell::new(text),
        };
        if self.colour { Cell::new(text).fg(color) } else { Cell::new(text) }
    }
}

/// Writes the result to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    program::terminal::print(text).map_err(|error| format!("cannot write the result: {error}"))
}

/// Writes the result as JSON.
pub(super) fn print_json(answer: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(answer).map_err(|error| format!("cannot render the result: {error}"))?;
    print(&(text + "\n"))
}

/// Writes a message to standard error.
pub(super) fn note(text: &str) {
    // Nothing can be done if standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_wrapped_to_the_width_of_the_terminal() {
        let terminal = Terminal { width: Some(20), ..PLAIN };
        assert_eq!(terminal.wrap("one two three four five", 4), "one two three\n    four five");
        assert_eq!(terminal.wrap("sixteen letters.", 4), "sixteen letters.");
        assert_eq!(terminal.wrap("a https://long.example.org/ b", 4), "a\n    https://long.example.org/\n    b");
        assert_eq!(PLAIN.wrap("one two three four five", 4), "one two three four five");
    }

    #[test]
    fn colours_are_used_only_if_allowed() {
        let terminal = |colour| Terminal { colour, ..PLAIN };
        assert_eq!(terminal(true).paint(Tone::Bad, "FAILED"), "\x1b[31mFAILED\x1b[0m");
        assert_eq!(terminal(true).paint(Tone::Plain, "x"), "x");
        assert_eq!(terminal(false).paint(Tone::Bad, "FAILED"), "FAILED");
    }
}
