//! The body of a listing: a head, slices of the rendered items, a tail.

use bytes::Bytes;
use catalog::{Filter, Policy, State, Status, System};
use serde::Serialize;

use super::query::Query;
use crate::snapshot::Snapshot;

/// Renders the requested page of the listing, in chunks. The result is an error only if a skipped resource cannot be
/// rendered as JSON, which does not happen.
pub(crate) fn render(snapshot: &Snapshot, query: &Query, policy: &Policy) -> Result<Vec<Bytes>, serde_json::Error> {
    let Query { filter, page, page_size } = query;
    let offset = (page - 1) * u128::from(*page_size);
    // An offset that overflows is past the end.
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let selected = snapshot.page(filter, at, usize::from(*page_size));
    let pages = selected.total.div_ceil(usize::from(*page_size));
    let pagination = Pagination {
        current: *page,
        limit: *page_size,
        offset,
        pages,
        total: selected.total,
        has_next: *page < pages as u128,
    };
    let mut middle = Vec::with_capacity(512);
    middle.extend(b"],\"pagination\":");
    serde_json::to_writer(&mut middle, &pagination)?;
    middle.extend(b",\"filters_applied\":");
    serde_json::to_writer(&mut middle, &filters_applied(query, policy))?;
    middle.extend(b",\"skipped\":");
    let slices =
        selected.items.len() + selected.orders.len() + selected.quota_problems.len() + selected.resource_links.len();
    let mut pieces = Vec::with_capacity(2 * slices + 8);
    pieces.push(Bytes::from_static(HEAD.as_bytes()));
    join(&mut pieces, selected.items);
    pieces.push(middle.into());
    pieces.push(if *filter == Filter::default() {
        snapshot.rendered_skipped().clone()
    } else {
        serde_json::to_vec(&selected.skipped)?.into()
    });
    pieces.push(Bytes::from_static(b",\"orders\":{"));
    join(&mut pieces, selected.orders);
    pieces.push(Bytes::from_static(b"},\"quotaProblems\":{"));
    join(&mut pieces, selected.quota_problems);
    pieces.push(Bytes::from_static(b"},\"resourceLinks\":{"));
    join(&mut pieces, selected.resource_links);
    // A program that creates directories must know that GIDs may be invented (decision D6).
    let tail: &[u8] = if policy.development_mode { b"},\"mock_identities\":true}" } else { b"}}" };
    pieces.push(Bytes::from_static(tail));
    Ok(pieces)
}

/// Appends slices, separated by commas.
fn join(pieces: &mut Vec<Bytes>, slices: Vec<Bytes>) {
    for (position, slice) in slices.into_iter().enumerate() {
        if position > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(slice);
    }
}

const HEAD: &str = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"status\":\"success\",\"resources\":[");

/// Position of the page. Page and offset may be too large for a [`serde_json::Value`].
#[derive(Serialize)]
struct Pagination {
    current: u128,
    limit: u16,
    offset: u128,
    pages: usize,
    total: usize,
    has_next: bool,
}

/// The filters in force, with the offerings that they select.
#[derive(Serialize)]
struct Applied<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_system: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    page: u128,
    page_size: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    offering_slugs: Vec<&'a str>,
}

fn filters_applied<'a>(query: &'a Query, policy: &'a Policy) -> Applied<'a> {
    let Filter { storage_system, data_type, status, state } = &query.filter;
    let selected = |system: &&System| storage_system.as_ref().is_none_or(|name| *name == system.name);
    Applied {
        storage_system: storage_system.as_deref(),
        state: *state,
        page: query.page,
        page_size: query.page_size,
        data_type: data_type.as_deref(),
        status: *status,
        offering_slugs: policy.systems.iter().filter(selected).map(|system| system.offering_slug.as_str()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use catalog::{InodeRule, Skipped};
    use serde_json::Value;

    use super::*;
    use crate::api::query;
    use crate::openapi::tests::assert_described;

    fn policy(development_mode: bool) -> Policy {
        Policy {
            systems: Vec::new(),
            file_system: "lustre".into(),
            inodes: InodeRule { base_multiplier: 1.0, soft_coefficient: 1.0, hard_coefficient: 1.0 },
            ignore_metadata_targets: false,
            development_mode,
            relay: None,
            waldur: "https://waldur.example.org/api".into(),
        }
    }

    fn empty(policy: &Policy, malformed: Vec<Skipped>) -> Snapshot {
        let catalogue = catalog::build(&[], Arc::default(), Arc::default(), policy.clone().into(), None);
        Snapshot::render(&catalogue, malformed, None).unwrap()
    }

    /// Other tests compare the items with recorded responses, and those with the OpenAPI document.
    #[test]
    fn everything_around_the_items_matches_the_openapi_document() {
        let system = |name: &str| System { name: name.into(), identifier: name.into(), offering_slug: name.into() };
        let policy = Policy { systems: ["capstor", "vast"].map(system).into(), ..policy(false) };
        let skipped = Skipped { item_id: None, error: "MalformedResourceError", detail: "uuid is missing".into() };
        let snapshot = empty(&policy, vec![skipped]);
        for query in ["", "storage_system=vast&data_type=%20Scratch&status=active&state=OK&page=7&page_size=500"] {
            let query = query::parse(query, &["capstor", "vast"]).unwrap();
            let body = render(&snapshot, &query, &policy).unwrap().concat();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["skipped"].as_array().unwrap().len(), 1);
            assert_described("/api/storage-resources/", 200, &body);
        }
    }

    #[test]
    fn the_listing_shows_that_gids_may_be_invented() {
        for development_mode in [true, false] {
            let policy = policy(development_mode);
            let query = query::parse("", &["capstor"]).unwrap();
            let body = render(&empty(&policy, Vec::new()), &query, &policy).unwrap().concat();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body.get("mock_identities").is_some(), development_mode);
            assert_described("/api/storage-resources/", 200, &body);
        }
    }

    #[test]
    fn a_page_far_past_the_end_is_empty() {
        let policy = policy(false);
        let snapshot = empty(&policy, Vec::new());
        for (page, offset) in [
            ("18446744073709551616", "9223372036854775807500"),
            ("99999999999999999999999999999999999", "49999999999999999999999999999999999000"),
        ] {
            let query = query::parse(&format!("page_size=500&page={page}"), &[]).unwrap();
            let body = render(&snapshot, &query, &policy).unwrap().concat();
            let text = String::from_utf8(body).unwrap();
            assert!(
                text.contains(&format!("\"current\":{page}")) && text.contains(&format!("\"offset\":{offset}")),
                "{text}"
            );
        }
    }
}
