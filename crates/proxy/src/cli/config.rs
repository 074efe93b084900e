//! `config`: shows the settings in force with their sources; secrets are masked.

use std::fmt::Write as _;

use serde::Serialize;

use super::Failure;
use super::terminal::{self, Terminal, Tone, escaped};
use crate::config::Loaded;

#[derive(Serialize)]
struct Document<'a> {
    settings: Vec<Row<'a>>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Row<'a> {
    key: &'a str,
    /// Null: not set.
    value: Option<&'a str>,
    source: String,
}

pub(super) fn run(loaded: &Loaded, json: bool, terminal: Terminal) -> Result<(), Failure> {
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    for warning in &warnings {
        terminal::note(&format!("warning: {}", escaped(warning)));
    }
    if json {
        let settings = loaded.provenance.iter().map(|row| Row {
            key: row.key,
            value: row.value.as_deref(),
            source: row.source.to_string(),
        });
        return terminal::print_json(&Document { settings: settings.collect(), warnings });
    }
    let mut table = terminal::table(&["KEY", "VALUE", "SOURCE"]);
    let mut lines = String::new();
    for (key, value, source) in loaded.report() {
        let tone = if source == "default" { Tone::Plain } else { Tone::Good };
        let (value, source) = (escaped(value), escaped(&source));
        let _ = writeln!(lines, "{key} = {}\n    {}", terminal.paint(tone, &value), terminal.wrap(&source, 4));
        let cells = [(Tone::Plain, key), (tone, value.as_str()), (Tone::Plain, source.as_str())];
        table.add_row(cells.map(|(tone, text)| terminal.cell(tone, text)));
    }
    terminal::print(&if terminal.fits(&table) { table.trim_fmt() + "\n" } else { lines })
}
