//! Standard output and standard error.
//!
//! Control characters from the document, the storage or Waldur are escaped: lines by [`Page`] and [`eprint()`], log lines by
//! [`Escaped`], JSON by [`print_json`].

use std::io::{self, IsTerminal, Write};

use program::terminal::is_control;
pub(super) use program::terminal::{escaped, table};
use serde::Serialize;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Failure, failure};
use storage_driver::limits::{Bytes, Terabyte};

/// The text output of a command. On a terminal long lines are wrapped between words; a path is one word.
pub(super) struct Page {
    text: String,
    width: Option<usize>,
}

impl Page {
    /// A page as wide as the terminal. Without a terminal, lines are not wrapped.
    pub(super) fn new() -> Self {
        Self::wide(io::stdout().is_terminal().then(textwrap::termwidth))
    }

    pub(super) fn wide(width: Option<usize>) -> Self {
        Self { text: String::new(), width }
    }

    pub(super) fn line(&mut self, indent: usize, text: &str) {
        let indent = " ".repeat(indent);
        self.wrapped(&indent, &indent, text);
    }

    pub(super) fn labelled(&mut self, label: &str, text: &str) {
        self.wrapped(&format!("{:<11} ", escaped(label)), &" ".repeat(12), text);
    }

    pub(super) fn marked(&mut self, mark: &str, text: &str) {
        self.wrapped(&format!("{mark:<6}  "), &" ".repeat(8), text);
    }

    /// Continues a wrapped line with an indent.
    pub(super) fn hanging(&mut self, text: &str) {
        self.wrapped("", "    ", text);
    }

    fn wrapped(&mut self, first: &str, next: &str, text: &str) {
        let text = escaped(text);
        if let Some(width) = self.width {
            let options = Options::new(width)
                .initial_indent(first)
                .subsequent_indent(next)
                .break_words(false)
                .word_splitter(WordSplitter::NoHyphenation)
                .word_separator(WordSeparator::AsciiSpace)
                .wrap_algorithm(WrapAlgorithm::FirstFit);
            self.text += &textwrap::fill(&text, options);
        } else {
            self.text += first;
            self.text += &text;
        }
        self.text.push('\n');
    }

    pub(super) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// Whether no line of the text is wider than the page.
    pub(super) fn fits(&self, text: &str) -> bool {
        self.width.is_none_or(|width| text.lines().all(|line| textwrap::core::display_width(line) <= width))
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn print(&self) -> Result<(), Failure> {
        print(&self.text)
    }
}

/// Writes to standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    program::terminal::print(text).map_err(|error| failure(format!("cannot write to standard output: {error}")))
}

/// Writes JSON to standard output. Control characters occur in JSON strings only, and are escaped there.
pub(super) fn print_json(answer: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(answer)?;
    let one = |c: char| if is_control(c) && c != '\n' { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    print(&(text.chars().map(one).collect::<String>() + "\n"))
}

/// Writes a line to standard error.
pub(super) fn eprint(text: &str) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr().lock(), "{}", escaped(text));
}

/// Writes an error to standard error, a line.
pub(super) fn eprint_error(text: &str) {
    program::journal::write_error(&escaped(text));
}

pub(super) fn notes(notes: &[String]) {
    for note in notes {
        eprint(&format!("note: {note}"));
    }
}

/// Escapes log lines. The subscriber writes each line with one call.
pub(super) struct Escaped<W>(pub(super) W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        self.0.write_all((escaped(text) + end).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An amount in the system's unit (powers of 1000 or of 1024), with at most two decimals.
pub(super) fn size(bytes: Bytes, terabyte: Terabyte) -> String {
    let (step, units) = match terabyte {
        Terabyte::Decimal => (1000, ["TB", "GB", "MB", "kB"]),
        Terabyte::Binary => (1024, ["TiB", "GiB", "MiB", "KiB"]),
    };
    let mut size = terabyte.bytes();
    for unit in units {
        if bytes.0 >= size {
            let hundredths = (u128::from(bytes.0) * 100 + u128::from(size / 2)) / u128::from(size);
            let number = format!("{}.{:02}", hundredths / 100, hundredths % 100);
            return format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'));
        }
        size /= step;
    }
    format!("{} B", bytes.0)
}

/// A time in UTC, from seconds since 1970.
pub(super) fn date(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let text = time.and_then(|time| time.format(&Rfc3339).ok());
    text.map_or_else(|| format!("{seconds} s after 1970"), |text| text.trim_end_matches('Z').replace('T', " ") + " UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "/cap/x\n\n0 to do, 0 held\r\u{1b}[2J\u{9b}2J\u{202e}y";

    #[test]
    fn control_characters_in_lines_are_escaped() {
        let is_plain = |text: &str| text.strip_suffix('\n').is_some_and(|line| !line.contains(is_control));
        for width in [None, Some(200)] {
            let mut page = Page::wide(width);
            page.line(2, HOSTILE);
            assert!(is_plain(page.text()), "{:?}", page.text());
            assert!(page.text().contains(r"/cap/x\n\n0 to do, 0 held\r\u{1b}[2J"), "{:?}", page.text());
        }
    }

    #[test]
    fn sizes_are_in_the_unit_of_the_system() {
        let sizes = [999, 3 << 20, 250_000_000_000, 10_250_000_000_000, 1 << 40].map(Bytes);
        let decimal = ["999 B", "3.15 MB", "250 GB", "10.25 TB", "1.1 TB"];
        assert_eq!(sizes.map(|bytes| size(bytes, Terabyte::Decimal)), decimal);
        assert_eq!(
            sizes.map(|bytes| size(bytes, Terabyte::Binary)),
            ["999 B", "3 MiB", "232.83 GiB", "9.32 TiB", "1 TiB"]
        );
    }

    #[test]
    fn control_characters_in_log_lines_are_escaped() {
        let mut log = Escaped(Vec::new());
        assert_eq!(log.write(b"path=/cap/x\n0 held\x1b[2J\n").unwrap(), 23);
        assert_eq!(log.0, b"path=/cap/x\\n0 held\\u{1b}[2J\n");
    }

    #[test]
    fn lines_are_wrapped_between_words_and_paths_stay_whole() {
        let path = "/capstor/store/cscs/".to_owned() + &"customer-".repeat(9) + "x";
        let mut page = Page::wide(Some(80));
        page.line(2, &format!("the path {path} is also another item's: give one of them a slug of its own in Waldur"));
        let lines: Vec<_> = page.text().lines().collect();
        assert_eq!(lines[1], format!("  {path}"));
        assert!(lines.iter().all(|line| line.len() <= 80 || line.trim() == path), "{lines:?}");
    }
}
