//! Splits project slugs into requests of limited length. Pure.

use url::form_urlencoded::byte_serialize;

/// The query parameter for a project; it is repeated.
pub(super) const PARAMETER: &str = "projects";
/// Maximum length of a query, in bytes. Common reverse proxies refuse request lines over 4 to 8 kB; half of the smaller
/// limit leaves room for the path and for a gateway's prefix.
pub(super) const MAX_QUERY: usize = 2000;
/// Maximum number of slugs in a request, so that a slow or invalid answer affects few projects.
pub(super) const MAX_SLUGS: usize = 50;

#[derive(Debug)]
pub(super) struct Batches<'a> {
    /// Each is short enough for a request, and not empty. In the given order.
    pub(super) batches: Vec<Vec<&'a str>>,
    /// Slugs that are too long for a request, or empty, which would request all projects.
    pub(super) invalid: Vec<&'a str>,
}

/// Splits slugs into as few batches as their order allows.
pub(super) fn of<'a>(slugs: &[&'a str]) -> Batches<'a> {
    let mut batches: Vec<Vec<&'a str>> = Vec::new();
    let mut invalid = Vec::new();
    let mut length = 0;
    for slug in slugs {
        // With the `=` and the `?` or `&` before it.
        let more = PARAMETER.len() + 2 + byte_serialize(slug.as_bytes()).map(str::len).sum::<usize>();
        if slug.is_empty() || more > MAX_QUERY {
            invalid.push(*slug);
            continue;
        }
        match batches.last_mut() {
            Some(batch) if batch.len() < MAX_SLUGS && length + more <= MAX_QUERY => {
                batch.push(slug);
                length += more;
            }
            _ => {
                batches.push(vec![slug]);
                length = more;
            }
        }
    }
    Batches { batches, invalid }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_slugs_make_no_batch() {
        assert!(of(&[]).batches.is_empty());
    }

    #[test]
    fn slugs_that_no_request_can_name_are_set_apart() {
        let long = "x".repeat(MAX_QUERY);
        let Batches { batches, invalid } = of(&["", "a", &long, "b"]);
        assert_eq!(batches, [["a", "b"]]);
        assert_eq!(invalid, ["", &long]);
    }

    proptest! {
        #[test]
        fn batches_are_bounded_and_lose_nothing(slugs in prop::collection::vec("[a-zà-ü &+/量-]{0,40}", 0..150)) {
            let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
            let Batches { batches, invalid } = of(&slugs);
            for batch in &batches {
                let mut url = url::Url::parse("http://localhost/").expect("a URL");
                url.query_pairs_mut().extend_pairs(batch.iter().map(|slug| (PARAMETER, slug)));
                prop_assert!(!batch.is_empty() && batch.len() <= MAX_SLUGS);
                prop_assert!(url.query().expect("a query").len() < MAX_QUERY);
            }
            prop_assert!(invalid.iter().all(|slug| slug.is_empty()), "none of these is too long");
            let asked: Vec<&str> = slugs.into_iter().filter(|slug| !slug.is_empty()).collect();
            prop_assert_eq!(batches.concat(), asked);
        }
    }
}
