//! The listing as it goes out: a head, slices of the rendered items, a tail.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use catalog::{Filter, Policy};
use serde_json::{Map, Value, json};

use super::VERSION;
use super::query::Query;
use crate::snapshot::Snapshot;

/// The page of the listing that the query asks for.
pub(crate) fn listing(snapshot: &Snapshot, query: &Query, policy: &Policy) -> Response {
    let Query { filter, page, page_size } = query;
    let offset = (page - 1) * u128::from(*page_size);
    // An offset that no memory holds is past the end.
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let selected = snapshot.page(filter, at, usize::from(*page_size));
    let pages = selected.total.div_ceil(usize::from(*page_size));
    let tail = json!({
        "pagination": {
            "current": page,
            "limit": page_size,
            "offset": offset,
            "pages": pages,
            "total": selected.total,
            "has_next": *page < pages as u128,
        },
        "filters_applied": filters_applied(query, policy),
        "skipped": selected.skipped,
    })
    .to_string();
    let length: usize = selected.items.iter().map(|slice| slice.len() + 1).sum();
    let mut body = Vec::with_capacity(length + tail.len() + 128);
    body.extend_from_slice(format!("{{\"version\":\"{VERSION}\",\"status\":\"success\",\"resources\":[").as_bytes());
    for (position, slice) in selected.items.iter().enumerate() {
        if position > 0 {
            body.push(b',');
        }
        body.extend_from_slice(slice);
    }
    body.extend_from_slice(b"],");
    // The tail without its opening brace.
    body.extend_from_slice(&tail.as_bytes()[1..]);
    json_bytes(StatusCode::OK, body.into())
}

/// The filters in force, with the offerings that they come down to.
fn filters_applied(query: &Query, policy: &Policy) -> Value {
    let Filter { storage_system, data_type, status, state } = &query.filter;
    let mut applied = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            applied.insert(key.to_owned(), value);
        }
    };
    put("storage_system", storage_system.as_deref().map(Value::from));
    put("state", state.map(|state| state.as_str().into()));
    put("page", Some(json!(query.page)));
    put("page_size", Some(query.page_size.into()));
    put("data_type", data_type.as_deref().map(Value::from));
    put("status", status.map(|status| status.as_str().into()));
    let offerings =
        policy.systems.iter().filter(|system| storage_system.as_ref().is_none_or(|name| *name == system.name));
    put("offering_slugs", Some(offerings.map(|system| Value::from(system.offering_slug.as_str())).collect()));
    Value::Object(applied)
}

/// An answer of JSON that is rendered already.
pub(crate) fn json_bytes(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
