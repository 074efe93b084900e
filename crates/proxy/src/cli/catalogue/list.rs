//! `list`: the catalogue as a table, or as the listing that the API answers.

use catalog::{Filter, Skipped};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{entries, row, tell_skipped};
use crate::api::VERSION;
use crate::cli::Failure;
use crate::cli::terminal::{self, Terminal};
use crate::config::Loaded;

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

/// Shows what the filter selects, or of that only what has this `id`. Whether the API answers at all, and with an `id` whether
/// there is anything to tell about it.
pub(in crate::cli) async fn run(
    loaded: &Loaded,
    filter: &Filter,
    id: Option<Uuid>,
    shape: Shape,
    terminal: Terminal,
) -> Result<bool, Failure> {
    let snapshot = super::read(loaded, terminal).await?;
    let mut page = snapshot.page(filter, 0, usize::MAX);
    let mut entries = entries(&page)?;
    if let Some(id) = id {
        entries.retain(|(_, item)| item.id == id);
        page.skipped.retain(|skipped| skipped.item_id == Some(id));
    }
    let unknown = id.filter(|_| entries.is_empty() && page.skipped.is_empty());
    if shape.json {
        let resources = entries.iter().map(|(raw, _)| &**raw).collect();
        terminal::print_json(&Listing { version: VERSION, status: "success", resources, skipped: &page.skipped })?;
    } else if let Some(id) = unknown {
        terminal::tell(&format!(
            "There is neither an item {id} nor a resource of this id that is left out: its offering is not in \
             storage_systems, or the token does not see it, or Waldur has deleted it; `hpc-storage-proxy check` tells \
             which offerings the token sees."
        ));
    } else if id.is_some() && entries.is_empty() {
        // Why it is left out follows.
    } else if entries.is_empty() {
        terminal::tell("There are no such storage resources.");
    } else {
        let rows = entries.iter().map(|(_, item)| (String::new(), item));
        terminal::print(&row::table(rows, shape.wide, terminal))?;
    }
    Ok(tell_skipped(&page.skipped, loaded) && unknown.is_none())
}
