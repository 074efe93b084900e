//! Cache headers of requests and responses (RFC 9110, RFC 9111).

use axum::http::{HeaderMap, HeaderValue, header};
use catalog::{Filter, Policy, System};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::VERSION;
use crate::store::Served;

/// Room for all headers of a response, those that are added later too.
const HEADERS: usize = 12;

/// Whether a client demands a refresh, however young the snapshot is.
pub(crate) fn wants_fresh(headers: &HeaderMap) -> bool {
    let directives = |name| headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut directives = directives(header::CACHE_CONTROL).chain(directives(header::PRAGMA));
    directives.any(|value| {
        value.split(',').any(|directive| {
            let directive = directive.trim();
            directive.eq_ignore_ascii_case("no-cache") || directive.eq_ignore_ascii_case("max-age=0")
        })
    })
}

/// Whether the client already has the current representation.
pub(crate) fn is_current(headers: &HeaderMap, etag: &str) -> bool {
    let tags = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // `If-None-Match` uses weak comparison, which ignores the prefix.
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    tags.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}

/// The tag of what a filter selects, on all pages. It is weak, because responses may be compressed. It covers the offerings of
/// the storage systems, because listings name even those without a resource.
pub(crate) fn etag(served: &Served, filter: &Filter, policy: &Policy) -> String {
    let mut hash = served.reading.snapshot.content(filter);
    for System { name, offering_slug, .. } in &policy.systems {
        hash = xxh3_64_with_seed(name.as_bytes(), hash);
        hash = xxh3_64_with_seed(offering_slug.as_bytes(), hash);
    }
    format!("W/\"{VERSION}-{hash:016x}\"")
}

/// The headers of a response made from this snapshot.
pub(crate) fn headers(served: &Served, etag: &str) -> HeaderMap {
    let age = served.reading.age().as_secs();
    let mut headers = HeaderMap::with_capacity(HEADERS);
    let mut put = |name, value| {
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, HeaderValue::from_str(etag));
    put(header::LAST_MODIFIED, HeaderValue::try_from(httpdate::fmt_http_date(served.reading.modified)));
    put(header::AGE, Ok(age.into()));
    put(header::VARY, Ok(HeaderValue::from_static("Accept-Encoding")));
    // A client may store a response, but must revalidate it.
    put(header::CACHE_CONTROL, Ok(HeaderValue::from_static("private, no-cache")));
    if served.stale {
        let warning = format!("110 - \"the upstreams cannot be read in time; this snapshot is {age} s old\"");
        put(header::WARNING, HeaderValue::try_from(warning));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_client_can_demand_a_refresh() {
        for (value, fresh) in [
            ("no-cache", true),
            ("max-stale, No-Cache", true),
            ("max-age=0", true),
            ("max-age=10", false),
            ("no-cached", false),
            ("", false),
        ] {
            assert_eq!(wants_fresh(&with(header::CACHE_CONTROL, value)), fresh, "{value}");
        }
        assert!(wants_fresh(&with(header::PRAGMA, "no-cache")));
        assert!(!wants_fresh(&HeaderMap::new()));
    }

    #[test]
    fn tags_are_compared_weakly() {
        for (value, has) in [
            ("W/\"a\"", true),
            ("\"a\"", true),
            ("\"b\", W/\"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(is_current(&with(header::IF_NONE_MATCH, value), "W/\"a\""), has, "{value}");
        }
    }
}
