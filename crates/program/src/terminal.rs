//! Standard output, tables, and the escaping of untrusted text for terminals.

use std::io::{self, ErrorKind, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

/// Spaces between two columns of a [`table`].
pub const PADDING: u16 = 2;

/// A table without borders, so that other programs can parse it. Cells are never wrapped.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.to_vec()).set_content_arrangement(ContentArrangement::Disabled);
    for column in table.column_iter_mut() {
        column.set_padding((0, PADDING));
    }
    table
}

/// Writes to standard output. A reader that closes the pipe (`| head`) is not an error.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Escapes every [control character](is_control), including line breaks.
pub fn escaped(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Whether a terminal interprets the character, for example to move the cursor, break the line or change the reading direction.
pub fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("/a/\u{1b}[2Jb\r\n\u{202e}c"), "/a/\\u{1b}[2Jb\\r\\n\\u{202e}c");
        assert_eq!(escaped("/capstor/Käufer «Ω» 量子"), "/capstor/Käufer «Ω» 量子");
    }
}
