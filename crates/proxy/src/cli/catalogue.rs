//! What `list` and `tree` share: the filters, the reading, and the resources that are left out.

pub(super) mod list;
mod row;
pub(super) mod tree;

use catalog::{Filter, Skipped, State, Status};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::value::RawValue;

use super::terminal::{self, Terminal, escaped};
use super::{Failure, progress};
use crate::config::Loaded;
use crate::snapshot::{Page, Snapshot};
use crate::source::Source;
use program::error_chain;

/// The filters of the API.
#[derive(Debug, Args)]
pub(super) struct Filters {
    /// Only this storage system, by its name in the settings
    #[arg(long, value_name = "NAME")]
    storage_system: Option<String>,
    /// Only this data type, in any case
    #[arg(long, value_name = "TYPE")]
    data_type: Option<String>,
    /// Only items with this status
    #[arg(long, value_parser = statuses())]
    status: Option<Status>,
    /// Only resources in this state of Waldur
    #[arg(long, value_parser = states())]
    state: Option<State>,
}

fn statuses() -> impl TypedValueParser<Value = Status> {
    // Cannot fail: the values are the statuses' own names.
    PossibleValuesParser::new(Status::ALL.map(Status::as_str)).try_map(|text| text.parse().map_err(|()| "no status"))
}

fn states() -> impl TypedValueParser<Value = State> {
    // Cannot fail: the values are the states' own names.
    PossibleValuesParser::new(State::KNOWN.map(State::as_str)).try_map(|text| State::known(&text).ok_or("no state"))
}

impl Filters {
    /// The filter, judged as the API judges it: an unknown storage system is an error that lists the names.
    pub(super) fn check(self, loaded: &Loaded) -> Result<Filter, String> {
        let names: Vec<_> = loaded.settings.storage_systems.iter().map(|system| system.name.as_str()).collect();
        if let Some(name) = self.storage_system.as_deref().filter(|name| !names.contains(name)) {
            let names = names.join(", ");
            return Err(format!("--storage-system: there is no `{}` in the settings, only: {names}", escaped(name)));
        }
        Ok(Filter {
            storage_system: self.storage_system,
            data_type: self.data_type.as_deref().and_then(Filter::data_type_of),
            status: self.status,
            state: self.state,
        })
    }
}

/// Reads the catalogue from the upstreams.
pub(super) async fn read(loaded: &Loaded, terminal: Terminal) -> Result<Snapshot, Failure> {
    let source = Source::new(&loaded.settings).map_err(|error| error_chain(&error))?;
    let read = progress::wait(terminal, "reading the catalogue", source.read(None)).await;
    read.map_err(|error| format!("{}; `hpc-storage-proxy check` tells more", error_chain(&error)))
}

/// A rendered item with what the commands show of it.
type Entry = (Box<RawValue>, row::Item);

/// Reads the rendered items of a page back.
fn entries(page: &Page<'_>) -> Result<Vec<Entry>, Failure> {
    let unreadable = |error: serde_json::Error| format!("the catalogue cannot be read back: {error}");
    let mut text = vec![b'['];
    text.extend(page.items.join(&b','));
    text.push(b']');
    let items: Vec<Box<RawValue>> = serde_json::from_slice(&text).map_err(unreadable)?;
    let entry = |raw: Box<RawValue>| serde_json::from_str(raw.get()).map(|item| (raw, item)).map_err(unreadable);
    items.into_iter().map(entry).collect()
}

/// Tells what is left out, so that an operator sees why a project has no directory. Whether the API answers at all.
fn tell_skipped(skipped: &[&Skipped], loaded: &Loaded) -> bool {
    let count = skipped.len();
    if count == 0 {
        return true;
    }
    terminal::tell(&format!("{count} resource{} left out:", if count == 1 { " is" } else { "s are" }));
    for Skipped { item_id, error, detail } in skipped {
        let id = item_id.map_or_else(|| String::from("a record without a UUID"), |id| id.to_string());
        terminal::tell(&format!("  {id}  {error}: {}", escaped(detail)));
    }
    let answers = loaded.settings.backend_settings.on_processing_error == crate::config::OnProcessingError::Skip;
    if !answers {
        terminal::tell(
            "With backend_settings.on_processing_error: fail, the API answers 500 until these are put right.",
        );
    }
    answers
}
