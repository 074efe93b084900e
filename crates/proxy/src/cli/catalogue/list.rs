//! `list`: the catalogue as a table, or as the listing of the API.

use catalog::{Filter, Item, Skipped};
use serde::Serialize;
use uuid::Uuid;

use super::{report_skipped, row};
use crate::api::VERSION;
use crate::cli::Failure;
use crate::cli::terminal::{self, Terminal};
use crate::config::Loaded;

/// The listing of the API without pagination and filters.
#[derive(Serialize)]
struct Listing<'a> {
    version: &'static str,
    status: &'static str,
    resources: &'a [Item<'a>],
    skipped: &'a [Skipped],
}

/// The output format.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Format {
    pub(in crate::cli) json: bool,
    pub(in crate::cli) wide: bool,
}

/// Lists what the filter selects, or only what has this `id`. Returns false if the API fails because of skipped resources,
/// or if nothing has the `id`.
pub(in crate::cli) async fn run(
    loaded: &Loaded,
    filter: &Filter,
    id: Option<Uuid>,
    format: Format,
    terminal: Terminal,
) -> Result<bool, Failure> {
    let reading = super::read(loaded, terminal).await?;
    let (mut items, mut skipped) = reading.select(&reading.catalogue(), filter);
    if let Some(id) = id {
        items.retain(|item| item.item_id == id);
        skipped.retain(|skipped| skipped.item_id == Some(id));
    }
    let unknown = id.filter(|_| items.is_empty() && skipped.is_empty());
    if format.json {
        terminal::print_json(&Listing { version: VERSION, status: "success", resources: &items, skipped: &skipped })?;
    } else if let Some(id) = unknown {
        terminal::note(&format!(
            "There is neither an item nor a skipped resource with the ID {id}: its offering is not in storage_systems, \
             the token does not see it, or Waldur has deleted it. `hpc-storage-proxy check` shows which offerings the \
             token sees."
        ));
    } else if items.is_empty() {
        if id.is_none() {
            terminal::note("No storage resources match.");
        }
    } else if id.is_some() && terminal.width.is_some() {
        terminal::print(&row::details(&items))?;
    } else {
        let rows = items.iter().map(|item| (String::new(), item));
        terminal::print(&row::table(rows, format.wide || id.is_some(), terminal))?;
    }
    Ok(report_skipped(&skipped, loaded) && unknown.is_none())
}
