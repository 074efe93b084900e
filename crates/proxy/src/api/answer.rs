//! The listing as it goes out: a head, slices of the rendered items, a tail.

use bytes::Bytes;
use catalog::{Filter, Policy, State, Status, System};
use serde::Serialize;

use super::query::Query;
use crate::snapshot::Snapshot;

/// The page of the listing that the query asks for, in pieces.
///
/// # Errors
///
/// None in practice: what is left out has nothing that JSON cannot say.
pub(crate) fn listing(snapshot: &Snapshot, query: &Query, policy: &Policy) -> Result<Vec<Bytes>, serde_json::Error> {
    let Query { filter, page, page_size } = query;
    let offset = (page - 1) * u128::from(*page_size);
    // An offset that no memory holds is past the end.
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
    let pagination = serde_json::to_string(&pagination)?;
    let applied = filters_applied(query, policy)?;
    let slices =
        selected.items.len() + selected.orders.len() + selected.quota_problems.len() + selected.resource_links.len();
    let mut pieces = Vec::with_capacity(2 * slices + 8);
    pieces.push(Bytes::from_static(HEAD.as_bytes()));
    join(&mut pieces, selected.items);
    pieces.push(format!("],\"pagination\":{pagination},\"filters_applied\":{applied},\"skipped\":").into());
    pieces.push(if *filter == Filter::default() {
        snapshot.left_out().clone()
    } else {
        serde_json::to_vec(&selected.skipped)?.into()
    });
    pieces.push(Bytes::from_static(b",\"orders\":{"));
    join(&mut pieces, selected.orders);
    pieces.push(Bytes::from_static(b"},\"quotaProblems\":{"));
    join(&mut pieces, selected.quota_problems);
    pieces.push(Bytes::from_static(b"},\"resourceLinks\":{"));
    join(&mut pieces, selected.resource_links);
    // A program that makes directories must know that their groups are nobody's (D6).
    let tail: &[u8] = if policy.development_mode { b"},\"mock_identities\":true}" } else { b"}}" };
    pieces.push(Bytes::from_static(tail));
    Ok(pieces)
}

/// Adds slices with a comma between each two.
fn join(pieces: &mut Vec<Bytes>, slices: Vec<Bytes>) {
    for (position, slice) in slices.into_iter().enumerate() {
        if position > 0 {
            pieces.push(Bytes::from_static(b","));
        }
        pieces.push(slice);
    }
}

const HEAD: &str = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\",\"status\":\"success\",\"resources\":[");

/// Which page this is. Page and offset may be larger than what a [`serde_json::Value`] holds.
#[derive(Serialize)]
struct Pagination {
    current: u128,
    limit: u16,
    offset: u128,
    pages: usize,
    total: usize,
    has_next: bool,
}

/// The filters in force, with the offerings that they come down to.
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

fn filters_applied(query: &Query, policy: &Policy) -> Result<String, serde_json::Error> {
    let Filter { storage_system, data_type, status, state } = &query.filter;
    let wanted = |system: &&System| storage_system.as_ref().is_none_or(|name| *name == system.name);
    serde_json::to_string(&Applied {
        storage_system: storage_system.as_deref(),
        state: *state,
        page: query.page,
        page_size: query.page_size,
        data_type: data_type.as_deref(),
        status: *status,
        offering_slugs: policy.systems.iter().filter(wanted).map(|system| system.offering_slug.as_str()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use catalog::{Customers, Identities, InodeRule, Skipped};
    use serde_json::Value;

    use super::*;
    use crate::api::query;
    use crate::openapi::tests::assert_described;

    fn empty(policy: &Policy, malformed: Vec<Skipped>) -> Snapshot {
        let (customers, identities) = (Customers::new(), Identities::default());
        Snapshot::render(catalog::build(&[], &customers, &identities, policy), malformed, None).unwrap()
    }

    /// The items themselves are held against recorded answers, and these against the document.
    #[test]
    fn what_surrounds_the_items_is_as_the_document_describes_it() {
        let system = |name: &str| System { name: name.into(), identifier: name.into(), offering_slug: name.into() };
        let policy = Policy {
            systems: ["capstor", "vast"].map(system).into(),
            file_system: "lustre".into(),
            inodes: InodeRule { base_multiplier: 1.0, soft_coefficient: 1.0, hard_coefficient: 1.0 },
            ignore_metadata_targets: false,
            development_mode: false,
            relay: None,
            waldur: "https://waldur.example.org/api".into(),
        };
        let skipped = Skipped { item_id: None, error: "MalformedResourceError", detail: "uuid is missing".into() };
        let snapshot = empty(&policy, vec![skipped]);
        for query in ["", "storage_system=vast&data_type=%20Scratch&status=active&state=OK&page=7&page_size=500"] {
            let query = query::parse(query, &["capstor", "vast"]).unwrap();
            let body = listing(&snapshot, &query, &policy).unwrap().concat();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["skipped"].as_array().unwrap().len(), 1);
            assert_described("/api/storage-resources/", 200, &body);
        }
    }

    #[test]
    fn a_proxy_that_may_invent_gids_says_so() {
        for development_mode in [true, false] {
            let policy = Policy {
                systems: Vec::new(),
                file_system: "lustre".into(),
                inodes: InodeRule { base_multiplier: 1.0, soft_coefficient: 1.0, hard_coefficient: 1.0 },
                ignore_metadata_targets: false,
                development_mode,
                relay: None,
                waldur: "https://waldur.example.org/api".into(),
            };
            let query = query::parse("", &["capstor"]).unwrap();
            let body = listing(&empty(&policy, Vec::new()), &query, &policy).unwrap().concat();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body.get("mock_identities").is_some(), development_mode);
            assert_described("/api/storage-resources/", 200, &body);
        }
    }

    #[test]
    fn a_page_far_past_the_end_is_empty() {
        let policy = Policy {
            systems: Vec::new(),
            file_system: "lustre".into(),
            inodes: InodeRule { base_multiplier: 1.0, soft_coefficient: 1.0, hard_coefficient: 1.0 },
            ignore_metadata_targets: false,
            development_mode: false,
            relay: None,
            waldur: "https://waldur.example.org/api".into(),
        };
        let snapshot = empty(&policy, Vec::new());
        for (page, offset) in [
            ("18446744073709551616", "9223372036854775807500"),
            ("99999999999999999999999999999999999", "49999999999999999999999999999999999000"),
        ] {
            let query = query::parse(&format!("page_size=500&page={page}"), &[]).unwrap();
            let body = listing(&snapshot, &query, &policy).unwrap().concat();
            let text = String::from_utf8(body).unwrap();
            assert!(
                text.contains(&format!("\"current\":{page}")) && text.contains(&format!("\"offset\":{offset}")),
                "{text}"
            );
        }
    }
}
