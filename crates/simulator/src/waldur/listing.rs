//! Pages of lists: rows, count and links to other pages.

use axum::http::StatusCode;

use super::refusals;
use crate::http::{Call, Reply};

const DEFAULT_SIZE: usize = 10;
const LARGEST_SIZE: usize = 300;

/// A page of a list with `count` rows.
pub(super) struct Page {
    pub(super) rows: std::ops::Range<usize>,
    headers: Vec<(String, String)>,
}

impl Page {
    /// The requested page; 404 `Invalid page.` if it does not exist.
    ///
    /// With `endless`, a fault, every page exists, has the rows of the last one, and links to a next page.
    pub(super) fn of(call: &Call, count: usize, endless: bool) -> Result<Self, Reply> {
        let asked = call.last("page_size").and_then(|size| size.parse().ok()).filter(|size| *size > 0);
        let size: usize = asked.unwrap_or(DEFAULT_SIZE).min(LARGEST_SIZE);
        let last = count.div_ceil(size).max(1);
        let number = match call.last("page") {
            None => 1,
            Some("last") => last,
            Some(text) => text.parse().unwrap_or(0),
        };
        if number == 0 || (number > last && !endless) {
            return Err(refusals::detail(StatusCode::NOT_FOUND, "Invalid page."));
        }
        let start = (number.min(last) - 1) * size;
        let mut links = vec![link(call, 1, "first")];
        if number > 1 {
            links.push(link(call, number - 1, "prev"));
        }
        if number < last || endless {
            links.push(link(call, number + 1, "next"));
        }
        links.push(link(call, if endless { number + 1 } else { last }, "last"));
        let headers = vec![("X-Result-Count".to_owned(), count.to_string()), ("Link".to_owned(), links.join(", "))];
        Ok(Self { rows: start..(start + size).min(count), headers })
    }

    /// Builds the answer; `write` writes a row.
    pub(super) fn answer<T>(self, rows: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) -> Reply {
        let rows = &rows[self.rows];
        let mut out = Vec::with_capacity(rows.len() * 512 + 2);
        out.push(b'[');
        for (number, row) in rows.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            write(&mut out, row);
        }
        out.push(b']');
        let mut reply = Reply::raw(StatusCode::OK, "application/json", out);
        reply.headers.extend(self.headers);
        reply.items = Some(rows.len());
        reply
    }
}

/// The link to another page: parameters sorted by name, `page` omitted for the first page.
fn link(call: &Call, page: usize, rel: &str) -> String {
    let mut query: Vec<(&str, String)> = call
        .query
        .iter()
        .filter(|(name, _)| name != "page")
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    if page > 1 {
        query.push(("page", page.to_string()));
    }
    query.sort_by(|a, b| a.0.cmp(b.0));
    let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let question = if text.is_empty() { "" } else { "?" };
    format!("<{}{}{question}{text}>; rel=\"{rel}\"", call.base, call.path)
}
