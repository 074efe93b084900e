//! Waldur, as far as the proxy reads it: resources, and the customers of offerings. Complete or an error.

mod page;
mod read;

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};

use catalog::{Customer, Customers, Resource, Skipped};
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tracing::{debug, warn};
use url::Url;
use uuid::Uuid;

use crate::settings::WaldurApi;
use crate::upstream::{Answer, ExchangeError, Fault, Transport, TransportError, USER_AGENT, Upstream};

/// Rows a page: the most that Waldur gives.
const PAGE_SIZE: usize = 300;
/// A page of 300 resources with all fields takes some 2 MB; a larger answer is no page.
const MAX_BODY: usize = 64 << 20;
/// Rows of one list. A list that never ends is cut here.
const MAX_ROWS: usize = 1_000_000;
/// How often a list is read anew when rows moved between its pages.
const ATTEMPTS: usize = 3;
/// Client for Waldur.
#[derive(Debug)]
pub struct Waldur {
    upstream: Upstream,
    root: Url,
    token: SecretString,
    pages_at_once: usize,
    /// How many pages of resources there were last time.
    pages: AtomicUsize,
}

/// Why Waldur could not be read.
#[derive(Debug, Error)]
pub enum WaldurError {
    /// An exchange failed.
    #[error("Waldur cannot be read")]
    Exchange(#[source] ExchangeError),
    /// The token is not accepted.
    #[error("Waldur refuses the token ({0}); check WALDUR_API_TOKEN and that its user belongs to the service provider")]
    Refused(StatusCode),
    /// Rows moved between pages at every attempt.
    #[error("the list of {0} changed while it was read, {ATTEMPTS} times in a row")]
    Unstable(&'static str),
}

/// All resources of some offerings.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that can be mapped, in Waldur's order.
    pub resources: Vec<Resource>,
    /// Those that cannot (decision D8).
    pub malformed: Vec<Skipped>,
}

/// An offering, as the `check` command sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Offering {
    /// Slug of the offering.
    pub slug: String,
}

impl Waldur {
    /// Sets up the client. Nothing is sent yet.
    pub fn new(settings: &WaldurApi) -> Result<Self, TransportError> {
        let upstream = Upstream::new(
            "Waldur",
            &Transport {
                verify_tls: settings.verify_ssl,
                proxy: settings.socks_proxy.clone(),
                user_agent: settings.agent_header.clone().unwrap_or_else(|| USER_AGENT.to_owned()),
                timeout: settings.timeout,
            },
        )?;
        Ok(Self {
            upstream,
            root: settings.api_url.clone(),
            token: settings.access_token.clone(),
            pages_at_once: settings.pages_at_once,
            pages: AtomicUsize::new(1),
        })
    }

    /// All resources of the offerings with these slugs, in a stable order.
    ///
    /// Reads what a service provider's own token sees, and asks the endpoint of staff where Waldur is too old to have
    /// that of providers. There is no filter by state: rows that change their state while pages are read would push
    /// others out of sight.
    ///
    /// `met` is told of each resource as soon as its page is read, in no order and perhaps more than once, so that what
    /// follows from it can be asked for beside the reading.
    ///
    /// # Errors
    ///
    /// Anything less than the complete list (decision D10).
    pub async fn resources(
        &self,
        offering_slugs: &[&str],
        met: &(dyn Fn(&Resource) + Sync),
    ) -> Result<Listing, WaldurError> {
        let mut query = vec![
            ("offering_slug", offering_slugs.join(",")),
            ("visible_to_providers", String::from("true")),
            // The default order has no tie-break, and rows with equal times come back twice or never.
            ("o", String::from("created,name")),
        ];
        query.extend(catalog::FIELDS.map(|field| ("field", field.to_owned())));
        // Old releases ignore the filter by offering.
        let ours = |resource: &Resource| offering_slugs.contains(&resource.offering_slug.as_str());
        let met = |rows: &[Result<Resource, Skipped>]| {
            rows.iter().flatten().filter(|resource| ours(resource)).for_each(met);
        };
        let list = |path| {
            let list =
                List { path, what: "resources", query: &query, read: read::resources, expected: Some(&self.pages) };
            self.list(list, &met)
        };
        let pages = match list("/api/marketplace-provider-resources/").await? {
            Listed::Pages(pages) => pages,
            Listed::Missing(StatusCode::FORBIDDEN) => return Err(WaldurError::Refused(StatusCode::FORBIDDEN)),
            Listed::Missing(status) => {
                warn!(
                    status = status.as_u16(),
                    "Waldur has no provider endpoint for resources; asking the one of staff"
                );
                match list("/api/marketplace-resources/").await? {
                    Listed::Pages(pages) => pages,
                    Listed::Missing(status) => return Err(self.refused_or(status, "/api/marketplace-resources/")),
                }
            }
        };
        let mut listing = Listing::default();
        let mut seen = HashSet::new();
        for row in pages.into_iter().flatten() {
            match row {
                Ok(resource) if !ours(&resource) => {}
                Ok(resource) if seen.insert(resource.uuid) => listing.resources.push(resource),
                Ok(_) => {}
                Err(skipped) => listing.malformed.push(skipped),
            }
        }
        debug!(
            resources = listing.resources.len(),
            malformed = listing.malformed.len(),
            "read the resources from Waldur"
        );
        Ok(listing)
    }

    /// The customers of an offering; `None` when Waldur does not let this token see them (decision D18).
    ///
    /// # Errors
    ///
    /// Any other failure (decision D10).
    pub async fn customers(&self, offering: Uuid) -> Result<Option<Customers>, WaldurError> {
        let path = format!("/api/marketplace-provider-offerings/{offering}/customers/");
        let query = ["uuid", "slug", "name"].map(|field| ("field", field.to_owned()));
        let list = List { path: &path, what: "customers", query: &query, read: read::customers, expected: None };
        match self.list(list, &|_| {}).await? {
            Listed::Pages(pages) => {
                let pairs = pages.into_iter().flatten().map(|row: CustomerRow| (row.slug, row.customer));
                Ok(Some(pairs.collect()))
            }
            Listed::Missing(status) => {
                debug!(%offering, status = status.as_u16(), "Waldur does not tell the customers of the offering");
                Ok(None)
            }
        }
    }

    /// The offerings with this slug that the token sees.
    pub async fn offerings(&self, slug: &str) -> Result<Vec<Offering>, WaldurError> {
        let query = [("slug", slug.to_owned()), ("field", String::from("slug"))];
        let path = "/api/marketplace-provider-offerings/";
        let list = List { path, what: "offerings", query: &query, read: read::offerings, expected: None };
        match self.list(list, &|_| {}).await? {
            Listed::Pages(pages) => Ok(pages.into_iter().flatten().filter(|offering| offering.slug == slug).collect()),
            Listed::Missing(status) => Err(self.refused_or(status, path)),
        }
    }

    /// Reads a list, several pages at once, again where rows moved meanwhile.
    async fn list<T: Send + 'static>(
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
        let first = match pages.get(&1) {
            Some(Fetched::Page(first)) => first,
            Some(Fetched::Missing(status)) => return Ok(Attempt::Missing(*status)),
            None => return Ok(Attempt::Moved),
        };
        let (more, size) = (first.more, first.rows.len());
        match more {
            page::More::Count(count) => {
                if count > MAX_ROWS {
                    return Err(self.senseless(list.path, format!("it counts {count} rows, more than {MAX_ROWS}")));
                }
                if size == 0 && count > 0 {
                    return Err(self.senseless(list.path, format!("it counts {count} rows and shows none")));
                }
                // A server may give fewer rows a page than asked for.
                let pages_in_all = count.div_ceil(size.max(1)).max(1);
                self.pages(list, expected + 1..=pages_in_all, met, &mut pages).await?;
                let mut complete = Vec::with_capacity(pages_in_all);
                for fetched in pages.into_values().take(pages_in_all) {
                    match fetched {
                        Fetched::Page(page) if page.more == more => complete.push(page),
                        // The count changed, or a page is gone.
                        Fetched::Page(_) | Fetched::Missing(_) => return Ok(Attempt::Moved),
                    }
                }
                Ok(Attempt::of(complete, |rows| rows == count))
            }
            page::More::Next(_) | page::More::Unknown => {
                let mut complete: Vec<page::Page<T>> = Vec::new();
                let mut rows = 0;
                while complete.last().is_none_or(|page| page.more.goes_on(page.rows.len(), PAGE_SIZE)) {
                    let number = complete.len() + 1;
                    if !pages.contains_key(&number) {
                        self.pages(list, number..=number, met, &mut pages).await?;
                    }
                    let Some(Fetched::Page(page)) = pages.remove(&number) else { break };
                    rows += page.rows.len();
                    if rows > MAX_ROWS {
                        return Err(self.senseless(list.path, format!("it has more than {MAX_ROWS} rows")));
                    }
                    // A page without rows ends a list whose links never do.
                    let ended = page.rows.is_empty();
                    complete.push(page);
                    if ended {
                        break;
                    }
                }
                Ok(Attempt::of(complete, |_| true))
            }
        }
    }

    /// Reads these pages, several at once.
    async fn pages<T: Send + 'static>(
        &self,
        list: &List<'_, T>,
        numbers: RangeInclusive<usize>,
        met: &(dyn Fn(&[T]) + Sync),
        pages: &mut BTreeMap<usize, Fetched<T>>,
    ) -> Result<(), WaldurError> {
        let read = |number| async move { Ok::<_, WaldurError>((number, self.page(list, number).await?)) };
        let mut reading = stream::iter(numbers).map(read).buffer_unordered(self.pages_at_once);
        while let Some((number, fetched)) = reading.try_next().await? {
            if let Fetched::Page(page) = &fetched {
                met(&page.rows);
            }
            pages.insert(number, fetched);
        }
        Ok(())
    }

    async fn page<T: Send + 'static>(&self, list: &List<'_, T>, number: usize) -> Result<Fetched<T>, WaldurError> {
        let url = self.url(list.path);
        let request = self
            .upstream
            .get(url.clone())
            .header(http::header::AUTHORIZATION, format!("Token {}", self.token.expose_secret()))
            .header(http::header::ACCEPT, "application/json")
            .query(list.query)
            .query(&[("page", number.to_string()), ("page_size", PAGE_SIZE.to_string())]);
        let answer = self.upstream.exchange(request, MAX_BODY).await.map_err(WaldurError::Exchange)?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(Fetched::Missing(answer.status)),
            StatusCode::UNAUTHORIZED => return Err(WaldurError::Refused(answer.status)),
            status => return Err(self.error(&url, Fault::Status(status))),
        }
        let page = decode(answer, list.read).await.map_err(|fault| self.error(&url, fault))?;
        Ok(Fetched::Page(page))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("{}{path}", self.root.path().trim_end_matches('/')));
        url
    }

    fn error(&self, url: &Url, fault: Fault) -> WaldurError {
        WaldurError::Exchange(self.upstream.error(http::Method::GET, url, fault))
    }

    fn senseless(&self, path: &str, what: String) -> WaldurError {
        self.error(&self.url(path), Fault::Senseless(what))
    }

    fn refused_or(&self, status: StatusCode, path: &str) -> WaldurError {
        if status == StatusCode::FORBIDDEN {
            WaldurError::Refused(status)
        } else {
            self.error(&self.url(path), Fault::Status(status))
        }
    }
}

/// A customer of an offering, with the slug that resources name it by.
struct CustomerRow {
    slug: String,
    customer: Customer,
}

enum Listed<T> {
    Pages(Vec<Vec<T>>),
    Missing(StatusCode),
}

enum Attempt<T> {
    Complete(Vec<Vec<T>>),
    Missing(StatusCode),
    Moved,
}

impl<T> Attempt<T> {
    /// Complete when no row is there twice and their number is right.
    fn of(pages: Vec<page::Page<T>>, is_right: impl Fn(usize) -> bool) -> Self {
        let rows = pages.iter().map(|page| page.rows.len()).sum();
        if page::distinct(&pages) != rows || !is_right(rows) {
            return Self::Moved;
        }
        Self::Complete(pages.into_iter().map(|page| page.rows).collect())
    }
}

/// A list to be read.
struct List<'a, T> {
    path: &'a str,
    what: &'static str,
    query: &'a [(&'a str, String)],
    read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
    /// How many pages it had last time.
    expected: Option<&'a AtomicUsize>,
}

enum Fetched<T> {
    Page(page::Page<T>),
    Missing(StatusCode),
}

/// Bodies up to this size are parsed where they arrive; a larger one would hold up other tasks.
const SMALL_BODY: usize = 64 << 10;

async fn decode<T: Send + 'static>(
    answer: Answer,
    read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
) -> Result<page::Page<T>, Fault> {
    if answer.body.len() <= SMALL_BODY {
        return page::decode(&answer, read);
    }
    match tokio::task::spawn_blocking(move || page::decode(&answer, read)).await {
        Ok(page) => page,
        Err(error) => Err(Fault::Senseless(format!("reading it failed: {error}"))),
    }
}
