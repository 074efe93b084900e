//! `list`: the catalogue as a table, or as the listing of the API.

use catalog::Filter;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{report_skipped, row, values};
use crate::api::VERSION;
use crate::cli::Failure;
use crate::cli::terminal::{self, Terminal};
use crate::config::Loaded;

/// The listing of the API without pagination and filters.
#[derive(Serialize)]
pub(super) struct Listing<'a, I, S> {
    version: &'static str,
    status: &'static str,
    resources: &'a [I],
    skipped: &'a [S],
}

impl<'a, I, S> Listing<'a, I, S> {
    pub(super) fn new(resources: &'a [I], skipped: &'a [S]) -> Self {
        Self { version: VERSION, status: "success", resources, skipped }
    }
}

/// The output format.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Format {
    pub(in crate::cli) json: bool,
    pub(in crate::cli) wide: bool,
}

/// Items as rows without guides.
pub(super) fn without_guides(items: &[Value]) -> impl Iterator<Item = (String, &Value)> {
    items.iter().map(|item| (String::new(), item))
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
    let catalogue = reading.catalogue();
    let (mut items, mut skipped) = reading.select(&catalogue, filter);
    if let Some(id) = id {
        items.retain(|item| item.item_id == id);
        skipped.retain(|skipped| skipped.item_id == Some(id));
    }
    let unknown = id.filter(|_| items.is_empty() && skipped.is_empty());
    if format.json {
        terminal::print_json(&Listing::new(&items, &skipped))?;
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
        terminal::print(&row::details(&values(&items)?))?;
    } else {
        let items = values(&items)?;
        terminal::print(&row::table(without_guides(&items), format.wide || id.is_some(), terminal))?;
    }
    Ok(report_skipped(&skipped, loaded) && unknown.is_none())
}
