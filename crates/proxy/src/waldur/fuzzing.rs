//! Parsers of lists for the fuzz targets.

use super::page::{self, Page};
use super::read;
use crate::upstream::{Answer, UpstreamError};

/// Parses an answer as a page of resources, orders, customers and offerings; returns their numbers of rows.
pub fn page(answer: &Answer) -> [Option<usize>; 4] {
    [
        rows(page::decode(answer, read::resources)),
        rows(page::decode(answer, read::orders)),
        rows(page::decode(answer, read::customers)),
        rows(page::decode(answer, read::offerings)),
    ]
}

fn rows<T>(page: Result<Page<T>, UpstreamError>) -> Option<usize> {
    let page = page.ok()?;
    let rows = page.rows.len();
    assert_eq!(rows, page.ids.len(), "every row has its id");
    assert!(page::distinct(&[page]) <= rows);
    Some(rows)
}
