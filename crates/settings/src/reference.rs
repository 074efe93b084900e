//! Generates the settings reference.

use std::fmt::Write as _;

use crate::schema::Schema;
use crate::table::{Preset, Row};

/// The reference as Markdown: `head`, then a table for each section. Settings without a section are under "General".
pub fn reference<S>(schema: &Schema<S>, head: &str) -> String {
    let mut out = head.to_owned();
    let mut before = None;
    for setting in schema.table() {
        let this = setting.section();
        if before != Some(this) {
            before = Some(this);
            let title = this.map_or_else(|| "General".to_owned(), |section| format!("`{section}`"));
            // Writing to a string cannot fail.
            let _ =
                write!(out, "\n## {title}\n\n| Key | Variable | Kind | Default | Meaning |\n|---|---|---|---|---|\n");
        }
        let _ = writeln!(out, "{}", row(&setting));
    }
    out
}

/// Whether the setting renders as one row with five cells.
pub(crate) fn is_one_row(setting: &Row) -> bool {
    let row = row(setting);
    !row.contains('\n') && row.matches('|').count() == 6
}

fn row(setting: &Row) -> String {
    let variables: Vec<_> = setting.variables.iter().map(|name| format!("`{name}`")).collect();
    let preset = match setting.preset {
        Preset::Required => "**required**".to_owned(),
        Preset::Absent => "–".to_owned(),
        Preset::Is(text) => format!("`{text}`"),
    };
    format!("| `{}` | {} | {} | {} | {} |", setting.key, variables.join(", "), setting.label, preset, setting.doc)
}
