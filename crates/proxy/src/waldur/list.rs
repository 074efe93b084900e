//! Reading a list of Waldur: several pages at once, complete or an error.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use serde_json::value::RawValue;
use tracing::debug;

use super::page::{self, More, Page};
use super::{Waldur, WaldurError};
use crate::upstream::{Answer, UpstreamError};

/// Rows a page: the most that Waldur gives.
const PAGE_SIZE: usize = 300;
/// A list of several pages has at least so many rows on each but the last: Waldur's own default.
const LEAST_PAGE_SIZE: usize = 10;
/// A page of 300 resources with all fields takes some 2 MB; a larger answer is no page.
const MAX_BODY: usize = 64 << 20;
/// Rows of one list. A list that never ends is cut here.
const MAX_ROWS: usize = 1_000_000;
/// How often a list is read anew when rows moved between its pages.
pub(super) const ATTEMPTS: usize = 3;
/// Bodies up to this size are parsed where they arrive; a larger one would hold up other tasks.
const SMALL_BODY: usize = 64 << 10;

/// A list to be read.
pub(super) struct List<'a, T> {
    pub(super) path: &'a str,
    pub(super) what: &'static str,
    pub(super) query: &'a [(&'a str, String)],
    pub(super) read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
    /// How many pages it had last time.
    pub(super) expected: Option<&'a AtomicUsize>,
}

/// What became of a list.
pub(super) enum Listed<T> {
    /// All rows, page by page.
    Pages(Vec<Vec<T>>),
    /// There is no such list, or not for this token.
    Missing(StatusCode),
}

enum Attempt<T> {
    Complete(Vec<Vec<T>>),
    Missing(StatusCode),
    /// Rows moved, or an answer contradicts another.
    Moved,
}

enum Fetched<T> {
    Page(Page<T>),
    Missing(StatusCode),
}

impl<T> Attempt<T> {
    /// Complete when no row is there twice and their number is right.
    fn of(pages: Vec<Page<T>>, is_right: impl Fn(usize) -> bool) -> Self {
        let rows = pages.iter().map(|page| page.rows.len()).sum();
        if page::distinct(&pages) != rows || !is_right(rows) {
            return Self::Moved;
        }
        Self::Complete(pages.into_iter().map(|page| page.rows).collect())
    }
}

impl Waldur {
    /// Reads a list, again where rows moved meanwhile. `met` is told of the rows of each page as it is read.
    pub(super) async fn list<T: Send + 'static>(
        &self,
        list: List<'_, T>,
        met: &(dyn Fn(&[T]) + Sync),
    ) -> Result<Listed<T>, WaldurError> {
        for attempt in 1..=ATTEMPTS {
            match self.attempt(&list, met).await? {
                Attempt::Complete(pages) => {
                    if let Some(expected) = list.expected {
                        expected.store(pages.len(), Ordering::Relaxed);
                    }
                    return Ok(Listed::Pages(pages));
                }
                Attempt::Missing(status) => return Ok(Listed::Missing(status)),
                Attempt::Moved => debug!(attempt, what = list.what, "rows moved while the list was read"),
            }
        }
        Err(WaldurError::Unstable(list.what))
    }

    async fn attempt<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        met: &(dyn Fn(&[T]) + Sync),
    ) -> Result<Attempt<T>, WaldurError> {
        // As many pages as there were last time are asked for at once; without such a memory the first page tells.
        let expected = list.expected.map_or(1, |expected| expected.load(Ordering::Relaxed).max(1));
        let mut pages = BTreeMap::new();
        self.pages(list, 1..=expected, met, &mut pages).await?;
        let (more, size) = match pages.get(&1) {
            Some(Fetched::Page(first)) => (first.more, first.rows.len()),
            Some(Fetched::Missing(status)) => return Ok(Attempt::Missing(*status)),
            None => return Ok(Attempt::Moved),
        };
        match more {
            More::Count(count) => self.counted(list, met, pages, expected, (count, size)).await,
            More::Next(_) | More::Unknown => self.uncounted(list, met, pages).await,
        }
    }

    /// The list says how many rows it has, of which `size` are on the first page.
    async fn counted<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        met: &(dyn Fn(&[T]) + Sync),
        mut pages: BTreeMap<usize, Fetched<T>>,
        asked: usize,
        (count, size): (usize, usize),
    ) -> Result<Attempt<T>, WaldurError> {
        if count > MAX_ROWS {
            return Err(self.senseless(list.path, format!("it counts {count} rows, more than {MAX_ROWS}")));
        }
        if size < count.min(LEAST_PAGE_SIZE) {
            return Err(self.senseless(list.path, format!("it counts {count} rows and shows {size} of them on a page")));
        }
        // A server may give fewer rows a page than asked for.
        let pages_in_all = count.div_ceil(size.max(1)).max(1);
        self.pages(list, asked + 1..=pages_in_all, met, &mut pages).await?;
        let mut complete = Vec::with_capacity(pages_in_all);
        for fetched in pages.into_values().take(pages_in_all) {
            match fetched {
                Fetched::Page(page) if page.more == More::Count(count) => complete.push(page),
                // The count changed, or a page is gone.
                Fetched::Page(_) | Fetched::Missing(_) => return Ok(Attempt::Moved),
            }
        }
        Ok(Attempt::of(complete, |rows| rows == count))
    }

    /// The list does not say how many rows it has: what stands between it and Waldur takes the count away.
    async fn uncounted<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        met: &(dyn Fn(&[T]) + Sync),
        mut pages: BTreeMap<usize, Fetched<T>>,
    ) -> Result<Attempt<T>, WaldurError> {
        let mut complete: Vec<Page<T>> = Vec::new();
        let mut rows = 0;
        loop {
            let number = complete.len() + 1;
            if !pages.contains_key(&number) {
                self.pages(list, number..=number, met, &mut pages).await?;
            }
            let promised = complete.last().map(|page| page.more);
            match pages.remove(&number) {
                Some(Fetched::Page(page)) => {
                    // The same page again: without any word on paging, the server does not know it and gave everything at
                    // once; with a promise of more, it contradicts itself.
                    if complete.last().is_some_and(|last| !last.ids.is_empty() && last.ids == page.ids) {
                        if promised == Some(More::Unknown) {
                            break;
                        }
                        return Ok(Attempt::Moved);
                    }
                    rows += page.rows.len();
                    if rows > MAX_ROWS {
                        return Err(self.senseless(list.path, format!("it has more than {MAX_ROWS} rows")));
                    }
                    let (more, is_empty) = (page.more, page.rows.is_empty());
                    complete.push(page);
                    match more {
                        More::Next(false) => break,
                        // A next page is promised after one without rows.
                        More::Next(true) if is_empty => return Ok(Attempt::Moved),
                        // Without any word, only a page that is empty or missing says that the list has ended.
                        More::Count(_) | More::Unknown if is_empty => break,
                        _ => {}
                    }
                }
                Some(Fetched::Missing(_)) if promised == Some(More::Unknown) => break,
                Some(Fetched::Missing(_)) | None => return Ok(Attempt::Moved),
            }
        }
        Ok(Attempt::of(complete, |_| true))
    }

    /// Reads these pages, several at once. Stops at one that is missing or empty: no later one can mend that.
    async fn pages<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        numbers: RangeInclusive<usize>,
        met: &(dyn Fn(&[T]) + Sync),
        pages: &mut BTreeMap<usize, Fetched<T>>,
    ) -> Result<(), WaldurError> {
        let read = |number| async move { Ok::<_, WaldurError>((number, self.page(list, number).await?)) };
        let mut reading = stream::iter(numbers).map(read).buffered(self.pages_at_once);
        while let Some((number, fetched)) = reading.try_next().await? {
            let ended = match &fetched {
                Fetched::Page(page) => {
                    met(&page.rows);
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
        let answer = {
            // An error would say that the semaphore is closed, which it never is. The exchange's deadline begins here, so
            // that a request does not time out in a queue.
            let _turn = self.requests.acquire().await;
            self.upstream.exchange(request, MAX_BODY).await.map_err(WaldurError::Exchange)?
        };
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(Fetched::Missing(answer.status)),
            StatusCode::FORBIDDEN if number == 1 => return Ok(Fetched::Missing(answer.status)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(WaldurError::Refused(answer.status)),
            status => return Err(self.error(&url, UpstreamError::Status(status))),
        }
        let page = decode(answer, list.read).await.map_err(|fault| self.error(&url, fault))?;
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
