//! What `list`, `tree` and `compare` share: the filters, reading the catalogue, and reporting skipped resources.

pub(super) mod list;
mod row;
pub(super) mod tree;
pub(super) mod watch;

use std::sync::Arc;

use catalog::{Catalogue, Filter, Item, Policy, Selection, Skipped, State, Status};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use program::error_chain;
use serde::Serialize;
use serde_json::Value;

use super::terminal::{self, Terminal, escaped};
use super::{Failure, counted, progress};
use crate::config::{Loaded, OnProcessingError};
use crate::source::{Inputs, Source};

/// The filters of the API.
#[derive(Debug, Args)]
pub(super) struct Filters {
    /// Only this storage system, by its name in the settings
    #[arg(long, value_name = "NAME")]
    storage_system: Option<String>,
    /// Only this data type, in upper or lower case
    #[arg(long, value_name = "TYPE")]
    data_type: Option<String>,
    /// Only items with this status
    #[arg(long, value_parser = statuses())]
    status: Option<Status>,
    /// Only resources with this state in Waldur
    #[arg(long, value_parser = states())]
    state: Option<State>,
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    // Cannot fail: the values are the names of the statuses.
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).try_map(|text| text.parse().map_err(|()| "no status"))
}

fn states() -> impl TypedValueParser<Value = State> {
    // Cannot fail: the values are the names of the states.
    PossibleValuesParser::new(State::KNOWN.map(State::as_str)).try_map(|text| State::known(&text).ok_or("no state"))
}

impl Filters {
    /// Validates the filters as the API does: the error for an unknown storage system lists the known ones.
    pub(super) fn check(self, loaded: &Loaded) -> Result<Filter, String> {
        let names: Vec<_> = loaded.settings.storage_systems.iter().map(|system| system.name.as_str()).collect();
        if let Some(name) = self.storage_system.as_deref().filter(|name| !names.contains(name)) {
            let names = names.join(", ");
            return Err(format!("--storage-system: `{}` is not in the settings; known: {names}", escaped(name)));
        }
        Ok(self.unchecked())
    }

    /// The filter, for a proxy that validates it.
    pub(super) fn unchecked(self) -> Filter {
        Filter {
            storage_system: self.storage_system,
            data_type: self.data_type.as_deref().and_then(Filter::data_type_of),
            status: self.status,
            state: self.state,
        }
    }
}

/// What was read from the upstreams, and the policy to build the catalogue with.
pub(super) struct Reading {
    inputs: Arc<Inputs>,
    policy: Arc<Policy>,
}

/// Reads the upstreams.
pub(super) async fn read(loaded: &Loaded, terminal: Terminal) -> Result<Reading, Failure> {
    let source = Source::new(&loaded.settings).map_err(|error| error_chain(&error))?;
    let inputs = progress::wait(terminal, "reading the catalogue", source.gather()).await;
    let inputs =
        inputs.map_err(|error| format!("{}; run `hpc-storage-proxy check` for details", error_chain(&error)))?;
    Ok(Reading { inputs, policy: Arc::clone(source.policy()) })
}

impl Reading {
    pub(super) fn catalogue(&self) -> Catalogue {
        self.inputs.build(Arc::clone(&self.policy), None)
    }

    /// The items and skipped resources that a filter selects. Malformed records match every filter.
    pub(super) fn select<'a>(&self, catalogue: &'a Catalogue, filter: &Filter) -> (Vec<Item<'a>>, Vec<Skipped>) {
        let Selection { items, skipped } = catalogue.index.select(filter);
        let items = items.into_iter().map(|position| catalogue.item(position as usize));
        let skipped = skipped.into_iter().map(|position| catalogue.skipped[position as usize].clone());
        (items.collect(), skipped.chain(self.inputs.malformed()).chain(catalogue.malformed.clone()).collect())
    }
}

/// Items or skipped resources as JSON, as the API sends them.
pub(super) fn values(all: &[impl Serialize]) -> Result<Vec<Value>, Failure> {
    let values = all.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    values.map_err(|error| format!("cannot render the catalogue: {error}"))
}

/// Reports skipped resources on standard error. Returns whether the API serves the listing in spite of them.
fn report_skipped(skipped: &[Skipped], loaded: &Loaded) -> bool {
    if skipped.is_empty() {
        return true;
    }
    terminal::note(&format!("{} skipped:", counted(skipped.len(), "resource")));
    for Skipped { item_id, error, detail } in skipped {
        let id = item_id.map_or_else(|| String::from("a record without a UUID"), |id| id.to_string());
        terminal::note(&format!("  {id}  {error}: {}", escaped(detail)));
    }
    let serves = loaded.settings.backend_settings.on_processing_error == OnProcessingError::Skip;
    if !serves {
        terminal::note("With backend_settings.on_processing_error: fail, the API returns 500 until they are fixed.");
    }
    serves
}
