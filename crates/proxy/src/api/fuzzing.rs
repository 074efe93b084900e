//! What the fuzz targets see of the listing.

use catalog::{Filter, Policy};

use super::{answer, query};
use crate::snapshot::Snapshot;

/// What a query is answered: the body of the listing with its filter and the most items that it may have, or the faults
/// of the query.
pub fn listing(query: &str, snapshot: &Snapshot, policy: &Policy) -> Result<(Vec<u8>, Filter, u16), Vec<u8>> {
    let names: Vec<_> = policy.systems.iter().map(|system| system.name.as_str()).collect();
    let query = query::parse(query, &names).map_err(|faults| serde_json::to_vec(&faults).expect("faults are JSON"))?;
    let pieces = answer::listing(snapshot, &query, policy).expect("a listing is JSON");
    Ok((pieces.concat(), query.filter, query.page_size))
}
