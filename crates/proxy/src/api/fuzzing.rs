//! Access to listings for the fuzz targets.

use catalog::{Filter, Policy};

use super::{listing, query};
use crate::snapshot::Snapshot;

/// The body of the listing for a query, with its filter and page size; or the invalid parameters of the query.
pub fn listing(query: &str, snapshot: &Snapshot, policy: &Policy) -> Result<(Vec<u8>, Filter, u16), Vec<u8>> {
    let names: Vec<_> = policy.systems.iter().map(|system| system.name.as_str()).collect();
    let query = query::parse(query, &names)
        .map_err(|invalid| serde_json::to_vec(&invalid).expect("invalid parameters can be rendered as JSON"))?;
    let pieces = listing::render(snapshot, &query, policy).expect("a listing can be rendered as JSON");
    Ok((pieces.concat(), query.filter, query.page_size))
}
