//! Reads a list of Waldur with several concurrent requests, completely or with an error.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use catalog::Stamp;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use serde_json::value::RawValue;
use tracing::debug;

use super::page::{self, More, Page};
use super::{Waldur, WaldurError};
use crate::upstream::{Answer, UpstreamError};

/// Rows per page: Waldur's maximum.
const PAGE_SIZE: usize = 300;
/// In a list of several pages, each but the last has at least this many rows: Waldur's default.
const MIN_PAGE_SIZE: usize = 10;
/// Size limit of a page, in bytes. 300 resources with all fields take about 2 MB.
const MAX_BODY: usize = 64 << 20;
/// Maximum number of rows of a list, in case it never ends.
const MAX_ROWS: usize = 1_000_000;
/// How often a list is read if rows move between its pages.
pub(super) const ATTEMPTS: usize = 3;
/// Larger bodies are parsed in a blocking task, so that they do not delay other tasks.
const SMALL_BODY: usize = 64 << 10;

pub(super) struct List<'a, T> {
    pub(super) path: &'a str,
    pub(super) what: &'static str,
    pub(super) query: &'a [(&'a str, String)],
    pub(super) read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
    /// Number of pages in the last reading.
    pub(super) expected: Option<&'a AtomicUsize>,
    /// Whether to leave one of the concurrent requests to others.
    pub(super) in_background: bool,
    /// Whether rows are added all the time and hardly ever removed.
    pub(super) grows: bool,
}

pub(super) enum Listed<T> {
    /// All rows, by page, and the `Date` of the first page.
    Pages(Vec<Vec<T>>, Option<Stamp>),
    /// The list does not exist, or the token may not read it.
    Missing(StatusCode),
}

enum Attempt<T> {
    Complete(Vec<Vec<T>>, Option<Stamp>),
    Missing(StatusCode),
    /// Rows moved, or answers contradict each other.
    Moved,
}

enum Fetched<T> {
    Page(Page<T>),
    Missing(StatusCode),
}

impl<T> Attempt<T> {
    /// Complete if no row is repeated and their number is right.
    fn of(pages: Vec<Page<T>>, is_right: impl Fn(usize) -> bool) -> Self {
        let rows = pages.iter().map(|page| page.rows.len()).sum();
        if page::distinct(&pages) != rows || !is_right(rows) {
            return Self::Moved;
        }
        let date = pages.first().and_then(|page| page.date);
        Self::Complete(pages.into_iter().map(|page| page.rows).collect(), date)
    }
}

impl Waldur {
    /// Reads a list, again if rows moved meanwhile; page by page if it [grows](List::grows). Calls `found` with the rows of each page
    /// as soon as it has been read.
    pub(super) async fn list<T: Send + 'static>(
        &self,
        list: List<'_, T>,
        found: &(dyn Fn(&mut [T]) + Sync),
    ) -> Result<Listed<T>, WaldurError> {
        let attempts = if list.grows { 1 } else { ATTEMPTS };
        for attempt in 1..=attempts {
            match self.attempt(&list, found).await? {
                Attempt::Complete(pages, date) => {
                    if let Some(expected) = list.expected {
                        expected.store(pages.len(), Ordering::Relaxed);
                    }
                    return Ok(Listed::Pages(pages, date));
                }
                Attempt::Missing(status) => return Ok(Listed::Missing(status)),
                Attempt::Moved => debug!(attempt, what = list.what, "rows moved while the list was read"),
            }
        }
        // Boxed, because other readings would need its memory too.
        if list.grows { Box::pin(self.growing(&list, found)).await } else { Err(WaldurError::Unstable(list.what)) }
    }

    /// Reads a list page by page while rows are added: rows that are in it already can only move to later pages, so none is
    /// missed, but some are read twice. A row is missed if another one is removed meanwhile.
    async fn growing<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        found: &(dyn Fn(&mut [T]) + Sync),
    ) -> Result<Listed<T>, WaldurError> {
        let (mut pages, mut date, mut rows) = (Vec::new(), None, 0);
        let mut announced = false;
        loop {
            let mut page = match self.page(list, pages.len() + 1).await? {
                Fetched::Page(page) => page,
                Fetched::Missing(status) if pages.is_empty() => return Ok(Listed::Missing(status)),
                Fetched::Missing(_) if announced => return Err(WaldurError::Unstable(list.what)),
                Fetched::Missing(_) => break,
            };
            found(&mut page.rows);
            if pages.is_empty() {
                date = page.date;
            }
            rows += page.rows.len();
            if rows > MAX_ROWS {
                return Err(self.invalid(list.path, format!("it has more than {MAX_ROWS} rows")));
            }
            let (more, is_empty) = (page.more, page.rows.is_empty());
            pages.push(page.rows);
            let ended = match more {
                More::Count(count) => rows >= count,
                More::Next(next) => !next,
                More::Unknown => is_empty,
            };
            if ended {
                break;
            }
            announced = more != More::Unknown;
            if is_empty {
                return Err(WaldurError::Unstable(list.what));
            }
        }
        Ok(Listed::Pages(pages, date))
    }

    async fn attempt<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        found: &(dyn Fn(&mut [T]) + Sync),
    ) -> Result<Attempt<T>, WaldurError> {
        // Requests as many pages at once as there were last time, or only the first page.
        let expected = list.expected.map_or(1, |expected| expected.load(Ordering::Relaxed).max(1));
        let mut pages = BTreeMap::new();
        self.pages(list, 1..=expected, found, &mut pages).await?;
        let (more, size) = match pages.get(&1) {
            Some(Fetched::Page(first)) => (first.more, first.rows.len()),
            Some(Fetched::Missing(status)) => return Ok(Attempt::Missing(*status)),
            None => return Ok(Attempt::Moved),
        };
        match more {
            More::Count(count) => self.counted(list, found, pages, expected, (count, size)).await,
            More::Next(_) | More::Unknown => self.uncounted(list, found, pages).await,
        }
    }

    /// Reads a list that reports its number of rows, `count`, of which `size` are on the first page.
    async fn counted<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        found: &(dyn Fn(&mut [T]) + Sync),
        mut pages: BTreeMap<usize, Fetched<T>>,
        requested: usize,
        (count, size): (usize, usize),
    ) -> Result<Attempt<T>, WaldurError> {
        if count > MAX_ROWS {
            return Err(self.invalid(list.path, format!("it reports {count} rows, more than {MAX_ROWS}")));
        }
        if size < count.min(MIN_PAGE_SIZE) {
            return Err(self.invalid(list.path, format!("it reports {count} rows and has {size} of them on a page")));
        }
        // A server may give fewer rows per page than requested.
        let pages_in_all = count.div_ceil(size.max(1)).max(1);
        self.pages(list, requested + 1..=pages_in_all, found, &mut pages).await?;
        let mut complete = Vec::with_capacity(pages_in_all);
        for fetched in pages.into_values().take(pages_in_all) {
            match fetched {
                Fetched::Page(page) if page.more == More::Count(count) => complete.push(page),
                // The count changed, or a page is missing.
                Fetched::Page(_) | Fetched::Missing(_) => return Ok(Attempt::Moved),
            }
        }
        Ok(Attempt::of(complete, |rows| rows == count))
    }

    /// Reads a list that does not report its number of rows, for example because a reverse proxy removes the header.
    async fn uncounted<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        found: &(dyn Fn(&mut [T]) + Sync),
        mut pages: BTreeMap<usize, Fetched<T>>,
    ) -> Result<Attempt<T>, WaldurError> {
        let mut complete: Vec<Page<T>> = Vec::new();
        let mut rows = 0;
        loop {
            let number = complete.len() + 1;
            if !pages.contains_key(&number) {
                self.pages(list, number..=number, found, &mut pages).await?;
            }
            let announced = complete.last().map(|page| page.more);
            match pages.remove(&number) {
                Some(Fetched::Page(page)) => {
                    // The same page again: a server without paging gave all rows at once; if it announced a next page, it
                    // contradicts itself.
                    if complete.last().is_some_and(|last| !last.ids.is_empty() && last.ids == page.ids) {
                        if announced == Some(More::Unknown) {
                            break;
                        }
                        return Ok(Attempt::Moved);
                    }
                    rows += page.rows.len();
                    if rows > MAX_ROWS {
                        return Err(self.invalid(list.path, format!("it has more than {MAX_ROWS} rows")));
                    }
                    let (more, is_empty) = (page.more, page.rows.is_empty());
                    complete.push(page);
                    match more {
                        More::Next(false) => break,
                        // An empty page announces a next one.
                        More::Next(true) if is_empty => return Ok(Attempt::Moved),
                        // Otherwise the list ends with an empty or missing page.
                        More::Count(_) | More::Unknown if is_empty => break,
                        _ => {}
                    }
                }
                Some(Fetched::Missing(_)) if announced == Some(More::Unknown) => break,
                Some(Fetched::Missing(_)) | None => return Ok(Attempt::Moved),
            }
        }
        Ok(Attempt::of(complete, |_| true))
    }

    /// Reads these pages concurrently. Stops at a missing or empty one.
    async fn pages<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        numbers: RangeInclusive<usize>,
        found: &(dyn Fn(&mut [T]) + Sync),
        pages: &mut BTreeMap<usize, Fetched<T>>,
    ) -> Result<(), WaldurError> {
        let read = |number| async move { Ok::<_, WaldurError>((number, self.page(list, number).await?)) };
        let at_once = if list.in_background { (self.pages_at_once - 1).max(1) } else { self.pages_at_once };
        let mut reading = stream::iter(numbers).map(read).buffered(at_once);
        while let Some((number, mut fetched)) = reading.try_next().await? {
            let ended = match &mut fetched {
                Fetched::Page(page) => {
                    found(&mut page.rows);
                    page.rows.is_empty()
                }
                Fetched::Missing(_) => true,
            };
            pages.insert(number, fetched);
            if ended {
                break;
            }
        }
        Ok(())
    }

    async fn page<T: Send + 'static>(&self, list: &List<'_, T>, number: usize) -> Result<Fetched<T>, WaldurError> {
        let url = self.url(list.path);
        let request = self
            .get(url.clone())
            .query(list.query)
            .query(&[("page", number.to_string()), ("page_size", PAGE_SIZE.to_string())]);
        let answer = self.exchange(request, MAX_BODY).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Fetched::Missing(answer.status)),
            StatusCode::FORBIDDEN if number == 1 => return Ok(Fetched::Missing(answer.status)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(WaldurError::Refused(answer.status)),
            status => return Err(self.error(&url, UpstreamError::Status(status))),
        }
        let page = decode(answer, list.read).await.map_err(|cause| self.error(&url, cause))?;
        Ok(Fetched::Page(page))
    }
}

async fn decode<T: Send + 'static>(
    answer: Answer,
    read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
) -> Result<page::Page<T>, UpstreamError> {
    if answer.body.len() <= SMALL_BODY {
        return page::decode(&answer, read);
    }
    match tokio::task::spawn_blocking(move || page::decode(&answer, read)).await {
        Ok(page) => page,
        Err(error) => Err(UpstreamError::Invalid(format!("reading it failed: {error}"))),
    }
}
