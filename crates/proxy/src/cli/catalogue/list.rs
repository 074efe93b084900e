//! `list`: the catalogue as a table, or as the listing that the API answers.

use catalog::{Filter, Skipped};
use comfy_table::{ColumnConstraint, Table};
use serde::Serialize;
use serde_json::value::RawValue;

use super::row::{HEADER, WIDE};
use super::{Entry, entries, tell_skipped};
use crate::api::VERSION;
use crate::cli::Failure;
use crate::cli::terminal::{self, PADDING, Terminal};
use crate::settings::Loaded;

/// The API's listing without its pages and filters.
#[derive(Serialize)]
struct Listing<'a> {
    version: &'static str,
    status: &'static str,
    resources: Vec<&'a RawValue>,
    skipped: &'a [&'a Skipped],
}

/// How the list is shown.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Shape {
    pub(in crate::cli) json: bool,
    pub(in crate::cli) wide: bool,
}

/// Shows what the filter selects. Whether the API answers at all.
pub(in crate::cli) async fn run(
    loaded: &Loaded,
    filter: &Filter,
    shape: Shape,
    terminal: Terminal,
) -> Result<bool, Failure> {
    let snapshot = super::read(loaded, terminal).await?;
    let page = snapshot.page(filter, 0, usize::MAX);
    let entries = entries(&page)?;
    if shape.json {
        let resources = entries.iter().map(|(raw, _)| &**raw).collect();
        terminal::print_json(&Listing { version: VERSION, status: "success", resources, skipped: &page.skipped })?;
    } else if entries.is_empty() {
        terminal::tell("There are no such storage resources.");
    } else {
        terminal::print(&table(&entries, shape.wide, terminal))?;
    }
    Ok(tell_skipped(&page.skipped, loaded))
}

/// Characters that a path keeps in a row, however narrow the terminal is.
const LEAST_PATH: u16 = 24;

/// What a narrow terminal does without, in this order.
const DISPENSABLE: [&str; 4] = ["MODE", "UID", "INODES", "ORDER"];

fn table(entries: &[Entry], wide: bool, terminal: Terminal) -> String {
    let mut table = terminal::table(if wide { &HEADER } else { &HEADER[..WIDE] });
    for (_, item) in entries {
        table.add_row(item.cells("", wide, terminal));
    }
    if !wide && let Some(width) = table.width() {
        fit(&mut table, width);
    }
    table.trim_fmt() + "\n"
}

/// Leaves out what a terminal of this width has no room for. Of the rest the path alone wraps.
fn fit(table: &mut Table, width: u16) {
    let content = table.column_max_content_widths();
    let needed = |hidden: &[&str]| -> u16 {
        let shown = HEADER.iter().zip(&content).filter(|(name, _)| !hidden.contains(name));
        shown.map(|(name, width)| if *name == HEADER[0] { LEAST_PATH.min(*width) } else { *width } + PADDING).sum()
    };
    let hidden = (0..DISPENSABLE.len()).map(|count| &DISPENSABLE[..count]).find(|hidden| needed(hidden) <= width);
    let hidden = hidden.unwrap_or(&DISPENSABLE);
    for (column, name) in table.column_iter_mut().zip(HEADER).skip(1) {
        let constraint = if hidden.contains(&name) { ColumnConstraint::Hidden } else { ColumnConstraint::ContentWidth };
        column.set_constraint(constraint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(width: u16) -> String {
        let mut table = terminal::table(&HEADER[..WIDE]);
        table.add_row([
            "/capstor/store/cscs/customer/project",
            "updating",
            "project",
            "0770",
            "-",
            "30500",
            "30 → 40 TB",
        ]);
        table.force_no_tty().set_width(width);
        fit(&mut table, width);
        let text = table.trim_fmt();
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(width)), "{text}");
        assert!(text.contains("updating") && text.contains("30 → 40 TB"), "{text}");
        text.lines()
            .next()
            .unwrap()
            .split("  ")
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect::<Vec<_>>()
            .join(",")
    }

    #[test]
    fn a_narrow_terminal_does_without_some_columns() {
        assert_eq!(header(120), "MOUNT POINT,STATUS,TYPE,MODE,UID,GID,SPACE,INODES,ORDER");
        assert_eq!(header(85), "MOUNT POINT,STATUS,TYPE,UID,GID,SPACE,INODES,ORDER");
        assert_eq!(header(80), "MOUNT POINT,STATUS,TYPE,GID,SPACE,INODES,ORDER");
        assert_eq!(header(68), "MOUNT POINT,STATUS,TYPE,GID,SPACE");
    }
}
