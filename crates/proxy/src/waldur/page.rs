//! Parses a page of a list of Waldur.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::SystemTime;

use catalog::Stamp;
use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::upstream::{Answer, UpstreamError};

pub(super) struct Page<T> {
    pub(super) rows: Vec<T>,
    /// Identifies each row; `None` if it has no identity.
    pub(super) ids: Vec<Option<u64>>,
    pub(super) more: More,
    /// The header `Date`.
    pub(super) date: Option<Stamp>,
}

/// Rows of a page with their identities.
pub(super) type Rows<T> = Vec<(Option<u64>, T)>;

/// What an answer says about further rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    /// `X-Result-Count`: number of rows in the whole list.
    Count(usize),
    /// Whether the header `Link` has a next page.
    Next(bool),
    /// Neither header.
    Unknown,
}

impl More {
    fn of(headers: &HeaderMap) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(count) = header("x-result-count").and_then(|count| count.trim().parse().ok()) {
            return Self::Count(count);
        }
        // The link itself is never followed: pages are requested by number, at the configured URL.
        header("link").map_or(Self::Unknown, |link| {
            let next =
                |link: &str| link.split(';').skip(1).any(|part| matches!(part.trim(), "rel=\"next\"" | "rel=next"));
            Self::Next(link.split(',').any(next))
        })
    }
}

/// Parses a page.
///
/// # Errors
///
/// The body is not a JSON list, or `read` fails.
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
    Ok(Page { rows, ids, more: More::of(&answer.headers), date: date(&answer.headers) })
}

fn date(headers: &HeaderMap) -> Option<Stamp> {
    let date = httpdate::parse_http_date(headers.get(http::header::DATE)?.to_str().ok()?).ok()?;
    let since_epoch = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since_epoch.as_micros()).ok().map(Stamp)
}

/// Maximum number of rows of a page. Waldur gives 300; other servers may ignore the parameter.
const MAX_ROWS: usize = 20_000;

/// Records of a page, at most one more than [`MAX_ROWS`]: a small body can contain millions.
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

/// Identifies a row.
pub(super) fn fingerprint(row: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    hasher.finish()
}

/// Number of different rows on the pages. Rows without an identity count as different.
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
    fn the_count_takes_precedence_over_links() {
        let next = "<http://w/api/x/?page=2>; rel=\"next\", <http://w/api/x/?page=9>; rel=\"last\"";
        let last = "<http://w/api/x/?a=b,c&page=1>; rel=\"first\", <http://w/api/x/?page=9>; rel=\"last\"";
        assert_eq!(more(&[("x-result-count", "1057"), ("link", next)]), More::Count(1057));
        assert_eq!(more(&[("link", next)]), More::Next(true));
        assert_eq!(more(&[("link", last)]), More::Next(false));
        assert_eq!(more(&[("x-result-count", "many")]), More::Unknown);
    }
}
