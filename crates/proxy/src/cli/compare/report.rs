//! What came of a comparison, for people and for scripts.

use std::fmt::Write as _;

use comfy_table::ContentArrangement;
use serde::Serialize;
use serde_json::Value;

use crate::cli::counted;
use crate::cli::terminal::{self, Terminal, Tone, escaped};
use crate::compare::{Difference, Document, Order, Report};

/// Differences shown one by one; more are counted.
const SHOWN: usize = 100;
/// Characters of a value that are shown.
const VALUE: usize = 120;

/// Where the two come from.
pub(super) struct Sides {
    pub(super) here: String,
    pub(super) there: String,
    /// Whether nothing changed here while both were read.
    pub(super) steady: bool,
}

/// The answer for scripts.
#[derive(Serialize)]
pub(super) struct Answer<'a> {
    /// No difference that counts.
    ok: bool,
    ours: Side<'a>,
    theirs: Side<'a>,
    /// Items that both have.
    compared: usize,
    differences: &'a [Difference<'a>],
    order: Order<'a>,
    /// Whether nothing changed while both were read.
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
    let mut say = |indent: usize, text: &str| {
        let _ = writeln!(out, "{}", terminal.wrap(&escaped(text), indent));
    };
    say(7, &format!("HERE   {}: {}", sides.here, counted(here.items.len(), "item")));
    say(7, &format!("THERE  {}: {}", sides.there, counted(there.items.len(), "item")));
    let unexplained: Vec<_> = report.unexplained().collect();
    if !unexplained.is_empty() {
        out.push('\n');
        out.push_str(&table(&unexplained, terminal));
    }
    let mut say = |indent: usize, text: &str| {
        let _ = writeln!(out, "{}", terminal.wrap(&escaped(text), indent));
    };
    if let Some(more) = unexplained.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        say(0, &format!("… and {more} more; --json has them all"));
    }
    say(0, "");
    for (known, count) in report.explained() {
        say(6, &format!("known {count} × {}", known.reason));
    }
    if let Order { out_of_place, first: Some(first) } = report.order {
        say(6, &format!("order {} elsewhere, the first is {first}", stand(out_of_place)));
    }
    if there.items.is_empty() && !here.items.is_empty() {
        say(6, "hint  the Python proxy lists nothing unless its token is that of a user of Waldur's staff");
    }
    if !sides.steady {
        say(6, "hint  something changed each time both were read: some differences may come from that");
    }
    let known = report.differences.len() - unexplained.len();
    let verdict = match (unexplained.len(), known) {
        (0, 0) => terminal.paint(Tone::Good, "no difference"),
        (0, _) => terminal.paint(Tone::Good, "no difference but those with a known reason"),
        (count, _) => terminal.paint(Tone::Bad, &counted(count, "difference")),
    };
    let _ = writeln!(out, "{} compared: {verdict}", counted(report.compared, "item"));
    out
}

fn table(differences: &[&Difference<'_>], terminal: Terminal) -> String {
    let mut table = terminal::table(&["ITEM", "FIELD", "HERE", "THERE"]);
    if let Some(width) = terminal.width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        // A terminal narrower than that breaks the table itself.
        table.set_width(u16::try_from(width.max(40)).unwrap_or(u16::MAX));
    }
    for difference in differences.iter().take(SHOWN) {
        let Difference { mount_point, target_type, item_id, path, ours, theirs, .. } = difference;
        let item = format!("{mount_point} ({target_type} {item_id})");
        let (field, ours, theirs) = match (path.as_str(), ours, theirs) {
            ("", Some(_), _) => ("(all of it)", String::from("is there"), String::from("missing")),
            ("", None, _) => ("(all of it)", String::from("missing"), String::from("is there")),
            (path, ours, theirs) => (path, value(*ours), value(*theirs)),
        };
        let cells = [(Tone::Plain, item), (Tone::Plain, field.to_owned()), (Tone::Good, ours), (Tone::Odd, theirs)];
        table.add_row(cells.map(|(tone, text)| terminal.cell(tone, &escaped(&text))));
    }
    table.trim_fmt() + "\n"
}

fn value(value: Option<&Value>) -> String {
    let Some(value) = value else { return String::from("-") };
    let text = value.to_string();
    match text.char_indices().nth(VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn stand(count: usize) -> String {
    format!("{} {}", counted(count, "item"), if count == 1 { "stands" } else { "stand" })
}
