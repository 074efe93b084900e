//! The result of a comparison, for people and for scripts.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::cli::counted;
use crate::cli::terminal::{self, Terminal, Tone, escaped};
use crate::compare::{Difference, Order, Report};
use crate::peer::Document;

/// Maximum number of differences shown; more are counted.
const MAX_SHOWN: usize = 100;
/// Maximum number of characters shown of a value.
const MAX_VALUE: usize = 120;

/// The sources of the two listings.
pub(super) struct Sides {
    pub(super) here: String,
    pub(super) there: String,
    /// Whether ours did not change while both were read.
    pub(super) steady: bool,
}

/// The result for scripts.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    /// Whether there is no relevant difference.
    ok: bool,
    ours: Side<'a>,
    theirs: Side<'a>,
    /// Number of items in both listings.
    compared: usize,
    differences: &'a [Difference<'a>],
    order: Order<'a>,
    steady: bool,
}

#[derive(Serialize)]
struct Side<'a> {
    from: &'a str,
    items: usize,
    skipped: usize,
}

pub(super) fn json<'a>(
    report: &'a Report<'a>,
    sides: &'a Sides,
    (here, there): (&Document, &Document),
    ok: bool,
) -> Answer<'a> {
    let side = |from: &'a str, document: &Document| Side {
        from,
        items: document.items.len(),
        skipped: document.skipped.len(),
    };
    Answer {
        ok,
        ours: side(&sides.here, here),
        theirs: side(&sides.there, there),
        compared: report.compared,
        differences: &report.differences,
        order: report.order,
        steady: sides.steady,
    }
}

pub(super) fn text(
    report: &Report<'_>,
    sides: &Sides,
    (here, there): (&Document, &Document),
    terminal: Terminal,
) -> String {
    let mut out = String::new();
    let mut line = |indent: usize, text: &str| {
        let _ = writeln!(out, "{}", terminal.wrap(&escaped(text), indent));
    };
    line(7, &format!("HERE   {}: {}", sides.here, counted(here.items.len(), "item")));
    line(7, &format!("THERE  {}: {}", sides.there, counted(there.items.len(), "item")));
    let unexplained: Vec<_> = report.unexplained().collect();
    if !unexplained.is_empty() {
        out.push('\n');
        out.push_str(&table(&unexplained, terminal));
    }
    let mut line = |indent: usize, text: &str| {
        let _ = writeln!(out, "{}", terminal.wrap(&escaped(text), indent));
    };
    if let Some(more) = unexplained.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
        line(0, &format!("… and {more} more; --json lists all"));
    }
    line(0, "");
    for (known, count) in report.explained() {
        line(6, &format!("known {count} × {}", known.reason));
    }
    if let Order { out_of_place, first: Some(first) } = report.order {
        line(6, &format!("order {} out of place, the first is {first}", counted(out_of_place, "item")));
    }
    if there.items.is_empty() && !here.items.is_empty() {
        line(6, "hint  the Python proxy lists nothing unless its token belongs to a staff user of Waldur");
    }
    if !sides.steady {
        line(6, "hint  something changed each time both were read, which may explain some differences");
    }
    let known = report.differences.len() - unexplained.len();
    let verdict = match (unexplained.len(), known) {
        (0, 0) => terminal.paint(Tone::Good, "no difference"),
        (0, _) => terminal.paint(Tone::Good, "only differences with a known reason"),
        (count, _) => terminal.paint(Tone::Bad, &counted(count, "difference")),
    };
    let _ = writeln!(out, "{} compared: {verdict}", counted(report.compared, "item"));
    out
}

fn table(differences: &[&Difference<'_>], terminal: Terminal) -> String {
    let mut table = terminal::table(&["ITEM", "FIELD", "HERE", "THERE"]);
    let mut lines = String::new();
    for difference in differences.iter().take(MAX_SHOWN) {
        let Difference { mount_point, target_type, item_id, path, ours, theirs, .. } = difference;
        let item = format!("{mount_point} ({target_type} {item_id})");
        let (field, ours, theirs) = match (path.as_str(), ours, theirs) {
            ("", Some(_), _) => ("(whole item)", String::from("present"), String::from("missing")),
            ("", None, _) => ("(whole item)", String::from("missing"), String::from("present")),
            (path, ours, theirs) => (path, value(*ours), value(*theirs)),
        };
        let [item, field, ours, theirs] = [&item, field, &ours, &theirs].map(escaped);
        let difference = terminal.wrap(&format!("{field}: here {ours}, there {theirs}"), 4);
        let _ = writeln!(lines, "{}\n    {difference}", terminal.wrap(&item, 2));
        let cells = [(Tone::Plain, item), (Tone::Plain, field), (Tone::Good, ours), (Tone::Odd, theirs)];
        table.add_row(cells.map(|(tone, text)| terminal.cell(tone, &text)));
    }
    if terminal.fits(&table) { table.trim_fmt() + "\n" } else { lines }
}

fn value(value: Option<&Value>) -> String {
    let Some(value) = value else { return String::from("-") };
    let text = value.to_string();
    match text.char_indices().nth(MAX_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
