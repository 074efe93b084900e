//! `list`: the catalogue as a table, or as the listing that the API answers.

use catalog::{Filter, Skipped};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{entries, row, tell_skipped};
use crate::api::VERSION;
use crate::cli::Failure;
use crate::cli::terminal::{self, Terminal};
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
        let rows = entries.iter().map(|(_, item)| (String::new(), item));
        terminal::print(&row::table(rows, shape.wide, terminal))?;
    }
    Ok(tell_skipped(&page.skipped, loaded))
}
