//! Headers of requests and responses.

use utoipa::openapi::header::Header;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{HeaderBuilder, ObjectBuilder, Ref, RefOr, Required, Response, Type};

/// Headers of a response with a representation, and of 304.
pub(super) const CACHING: [&str; 4] = ["Age", "ETag", "Last-Modified", "Warning"];
pub(super) const PREFERENCE_APPLIED: &str = "Preference-Applied";
pub(super) const RETRY_AFTER: &str = "Retry-After";
pub(super) const WWW_AUTHENTICATE: &str = "WWW-Authenticate";
const REQUEST_ID: &str = "X-Request-Id";

/// All response headers by name.
pub(super) fn all() -> [(String, RefOr<Header>); 8] {
    let [age, etag, last_modified, warning] = CACHING;
    [
        (age, Type::Integer, "Seconds since the proxy began to read this state from Waldur."),
        (
            etag,
            Type::String,
            "Tag of what the filters select, the same for all pages; send it back in `If-None-Match`. If the tags of two pages \
             differ, the pages belong to different listings.",
        ),
        (last_modified, Type::String, "When the content last changed, as an HTTP date."),
        (PREFERENCE_APPLIED, Type::String, "`wait=N` if the response may have waited, with the seconds in force."),
        (RETRY_AFTER, Type::Integer, "Seconds to wait before a retry."),
        (warning, Type::String, "Code 110 if the upstreams cannot be read in time, so that this state is older than usual."),
        (WWW_AUTHENTICATE, Type::String, "`Bearer` with `realm`, and the error if a token was sent (RFC 6750)."),
        (REQUEST_ID, Type::String, "ID of the request in the proxy's log: the client's, if it sent a valid one."),
    ]
    .map(|(name, schema_type, description)| {
        let header = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(schema_type)))
            .description(Some(description))
            .build();
        (name.to_owned(), RefOr::T(header))
    })
}

/// Adds these headers, and the one of every response.
pub(super) fn add(mut response: Response, names: &[&str]) -> Response {
    for name in [REQUEST_ID].iter().chain(names) {
        let reference = Ref::new(format!("#/components/headers/{name}"));
        response.headers.insert((*name).to_owned(), RefOr::Ref(reference));
    }
    response
}

/// Headers of requests for a representation.
pub(super) fn conditions() -> [Parameter; 2] {
    [
        parameter(
            "If-None-Match",
            "The `ETag` of an earlier response, or several, separated by commas. If one of them is current, the response is 304.",
        ),
        parameter("Cache-Control", "With `no-cache` or `max-age=0`, the proxy reads Waldur again before it answers."),
    ]
}

/// The header of requests that wait.
pub(super) fn prefer() -> Parameter {
    parameter(
        "Prefer",
        "With `wait=N` (RFC 7240), the response to a request with `If-None-Match` comes as soon as what the filters select \
         differs from that tag, or with status 304 after N seconds. More than 300 seconds are shortened to 300; \
         `Preference-Applied` shows the time in force. Other preferences are ignored.",
    )
}

fn parameter(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build()
}
