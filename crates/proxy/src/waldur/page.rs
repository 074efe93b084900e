//! One page of a list of Waldur.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::upstream::{Answer, UpstreamError};

/// One page.
pub(super) struct Page<T> {
    /// The rows, read.
    pub(super) rows: Vec<T>,
    /// For each row what tells it from all others; `None` when nothing does.
    pub(super) ids: Vec<Option<u64>>,
    /// What the answer says about further rows.
    pub(super) more: More,
}

/// Rows of a page with what tells each from all others.
pub(super) type Rows<T> = Vec<(Option<u64>, T)>;

/// What an answer says about further rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// `X-Result-Count`: so many rows in all.
    Count(usize),
    /// A `Link` header, with or without a next page.
    Next(bool),
    /// Nothing.
    Unknown,
}

impl More {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(count) = header("x-result-count").and_then(|count| count.trim().parse().ok()) {
            return Self::Count(count);
        }
        // The link itself is never followed: the next page is asked for by its number, at the configured URL.
        header("link").map_or(Self::Unknown, |link| {
            let next =
                |link: &str| link.split(';').skip(1).any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
            Self::Next(link.split(',').any(next))
        })
    }
}

/// Reads a page.
///
/// # Errors
///
/// A body that is no JSON list, or whatever `read` says of a row.
pub(super) fn decode<T>(
    answer: &Answer,
    read: fn(&[&RawValue]) -> Result<Rows<T>, String>,
) -> Result<Page<T>, UpstreamError> {
    let Records(records) = serde_json::from_slice(&answer.body)
        .map_err(|error| UpstreamError::NotJson { line: error.line(), column: error.column() })?;
    if records.len() > MAX_ROWS {
        return Err(UpstreamError::Invalid(format!("a page has more than {MAX_ROWS} rows")));
    }
    let rows = read(&records).map_err(UpstreamError::Invalid)?;
    let (ids, rows) = rows.into_iter().unzip();
    Ok(Page { rows, ids, more: More::of(&answer.headers) })
}

/// Rows of one page that are looked at. Waldur gives 300; others may not know the parameter for it.
const MAX_ROWS: usize = 20_000;

/// Records of a page, at most one more than [`MAX_ROWS`]: a small compressed body may hold millions.
struct Records<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Records<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Capped;

        impl<'de> Visitor<'de> for Capped {
            type Value = Records<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Records<'de>, A::Error> {
                let mut records = Vec::new();
                while let Some(record) = list.next_element()? {
                    if records.len() <= MAX_ROWS {
                        records.push(record);
                    }
                }
                Ok(Records(records))
            }
        }
        deserializer.deserialize_seq(Capped)
    }
}

/// What tells a row from all others.
pub(super) fn fingerprint(row: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

/// How many different rows the pages hold; a row that nothing tells from others counts as different.
pub(super) fn distinct<T>(pages: &[Page<T>]) -> usize {
    let ids = || pages.iter().flat_map(|page| &page.ids);
    ids().flatten().collect::<HashSet<_>>().len() + ids().filter(|id| id.is_none()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn more(pairs: &[(&'static str, &str)]) -> More {
        More::of(&pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn the_count_goes_before_the_links() {
        let next = "<http://w/api/x/?page=2>; rel=\"next\", <http://w/api/x/?page=9>; rel=\"last\"";
        let last = "<http://w/api/x/?a=b,c&page=1>; rel=\"first\", <http://w/api/x/?page=9>; rel=\"last\"";
        assert_eq!(more(&[("x-result-count", "1057"), ("link", next)]), More::Count(1057));
        assert_eq!(more(&[("link", next)]), More::Next(true));
        assert_eq!(more(&[("link", last)]), More::Next(false));
        assert_eq!(more(&[("x-result-count", "many")]), More::Unknown);
    }
}
