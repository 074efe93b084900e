//! Priorities of lines in systemd's journal, which reads them from the beginning of each line (`sd-daemon(3)`).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const ERROR: &str = "<3>";

/// Writes each log line with its priority, if the log goes to the journal.
#[derive(Debug)]
pub struct Prioritized<M> {
    lines: M,
    enabled: bool,
}

impl<M> Prioritized<M> {
    /// `stream` is where `lines` are written to.
    pub fn new(lines: M, stream: impl AsFd) -> Self {
        Self { lines, enabled: is_journal(stream) }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Prioritized<M> {
    type Writer = PrioritizedLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        PrioritizedLine { priority: "", line: self.lines.make_writer() }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        let priority = if self.enabled { priority(*metadata.level()) } else { "" };
        PrioritizedLine { priority, line: self.lines.make_writer_for(metadata) }
    }
}

/// The writer of one line. The subscriber writes each line with one call.
#[derive(Debug)]
pub struct PrioritizedLine<W> {
    priority: &'static str,
    line: W,
}

impl<W: Write> Write for PrioritizedLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.priority.is_empty() {
            return self.line.write(line);
        }
        self.line.write_all(&[self.priority.as_bytes(), line].concat())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Writes an error to standard error; in the journal its lines have the priority of errors.
pub fn write_error(text: &str) {
    let mut stderr = io::stderr().lock();
    let text = if is_journal(&stderr) { with_priority(text) } else { text.to_owned() };
    // Nothing can be done if standard error is closed.
    let _ = writeln!(stderr, "{text}");
}

fn with_priority(error: &str) -> String {
    error.lines().map(|line| format!("{ERROR}{line}")).collect::<Vec<_>>().join("\n")
}

/// Whether the stream goes to the journal: systemd says which device and inode the journal's socket has (`systemd.exec(5)`).
fn is_journal(stream: impl AsFd) -> bool {
    // Not a setting.
    let Some(journal) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let metadata = stream.as_fd().try_clone_to_owned().and_then(|file| File::from(file).metadata());
    metadata.is_ok_and(|file| journal == *format!("{}:{}", file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_its_priority() {
        let line = |level| {
            let mut writer = PrioritizedLine { priority: priority(level), line: Vec::new() };
            assert_eq!(writer.write(b"stopped\n").unwrap(), 8);
            String::from_utf8(writer.line).unwrap()
        };
        let lines = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG].map(line);
        assert_eq!(lines, ["<3>stopped\n", "<4>stopped\n", "<6>stopped\n", "<7>stopped\n"]);
    }

    #[test]
    fn each_line_of_an_error_has_its_priority() {
        assert_eq!(with_priority("two problems:\n  one\n  two"), "<3>two problems:\n<3>  one\n<3>  two");
    }

    #[test]
    fn elsewhere_lines_are_unchanged() {
        let file = tempfile::tempfile().unwrap();
        assert!(!is_journal(&file));
        let mut writer = PrioritizedLine { priority: "", line: Vec::new() };
        assert_eq!(writer.write(b"stopped\n").unwrap(), 8);
        assert_eq!(writer.line, b"stopped\n");
    }
}
