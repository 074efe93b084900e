//! Waldur, as far as the proxy reads it: resources, and the customers of offerings. Complete or an error.

mod page;
mod read;

use std::collections::{HashMap, HashSet};

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
/// Pages read at once. Waldur answers each from its database, so more would only queue there.
const PAGES_AT_ONCE: usize = 4;
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
        Ok(Self { upstream, root: settings.api_url.clone(), token: settings.access_token.clone() })
    }

    /// All resources of the offerings with these slugs, in a stable order.
    ///
    /// Reads what a service provider's own token sees, and asks the endpoint of staff where Waldur is too old to have
    /// that of providers. There is no filter by state: rows that change their state while pages are read would push
    /// others out of sight.
    ///
    /// # Errors
    ///
    /// Anything less than the complete list (decision D10).
    pub async fn resources(&self, offering_slugs: &[&str]) -> Result<Listing, WaldurError> {
        let mut query = vec![
            ("offering_slug", offering_slugs.join(",")),
            ("visible_to_providers", String::from("true")),
            // The default order has no tie-break, and rows with equal times come back twice or never.
            ("o", String::from("created,name")),
        ];
        query.extend(catalog::FIELDS.map(|field| ("field", field.to_owned())));
        let list = |path| self.list(path, "resources", &query, read::resources);
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
                // Old releases ignore the filter by offering.
                Ok(resource) if !offering_slugs.contains(&resource.offering_slug.as_str()) => {}
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
        match self.list(&path, "customers", &query, read::customers).await? {
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

    /// The customers of all these offerings; a later offering wins. `None` for those that Waldur does not tell.
    pub async fn customers_of(&self, offerings: &[Uuid]) -> Result<HashMap<Uuid, Option<Customers>>, WaldurError> {
        stream::iter(offerings.iter().copied())
            .map(|offering| async move { Ok((offering, self.customers(offering).await?)) })
            .buffered(PAGES_AT_ONCE)
            .try_collect()
            .await
    }

    /// The offerings with this slug that the token sees.
    pub async fn offerings(&self, slug: &str) -> Result<Vec<Offering>, WaldurError> {
        let query = [("slug", slug.to_owned()), ("field", String::from("slug"))];
        match self.list("/api/marketplace-provider-offerings/", "offerings", &query, read::offerings).await? {
            Listed::Pages(pages) => Ok(pages.into_iter().flatten().filter(|offering| offering.slug == slug).collect()),
            Listed::Missing(status) => Err(self.refused_or(status, "/api/marketplace-provider-offerings/")),
        }
    }

    /// Reads a list, page by page, several at once, again where rows moved meanwhile.
    async fn list<T: Send + 'static>(
        &self,
        path: &str,
        what: &'static str,
        query: &[(&str, String)],
        read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
    ) -> Result<Listed<T>, WaldurError> {
        for attempt in 1..=ATTEMPTS {
            match self.attempt(path, query, read).await? {
                Attempt::Complete(pages) => return Ok(Listed::Pages(pages)),
                Attempt::Missing(status) => return Ok(Listed::Missing(status)),
                Attempt::Moved => debug!(attempt, what, "rows moved while the list was read"),
            }
        }
        Err(WaldurError::Unstable(what))
    }

    async fn attempt<T: Send + 'static>(
        &self,
        path: &str,
        query: &[(&str, String)],
        read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
    ) -> Result<Attempt<T>, WaldurError> {
        let first = match self.page(path, query, 1, read).await? {
            Fetched::Page(page) => page,
            Fetched::Missing(status) => return Ok(Attempt::Missing(status)),
        };
        let mut pages = vec![first];
        match pages[0].more {
            page::More::Count(count) => {
                if count > MAX_ROWS {
                    return Err(self.senseless(path, format!("it counts {count} rows, more than {MAX_ROWS}")));
                }
                // A server may give fewer rows a page than asked for.
                let size = pages[0].rows.len();
                if size == 0 && count > 0 {
                    return Err(self.senseless(path, format!("it counts {count} rows and shows none")));
                }
                let last = count.div_ceil(size.max(1)).max(1);
                let rest: Vec<_> = stream::iter(2..=last)
                    .map(|number| self.page(path, query, number, read))
                    .buffered(PAGES_AT_ONCE)
                    .try_collect()
                    .await?;
                for fetched in rest {
                    match fetched {
                        Fetched::Page(page) if page.more == page::More::Count(count) => pages.push(page),
                        // The count changed, or the last page is gone.
                        Fetched::Page(_) | Fetched::Missing(_) => return Ok(Attempt::Moved),
                    }
                }
                if page::distinct(&pages) != count || pages.iter().map(|page| page.rows.len()).sum::<usize>() != count {
                    return Ok(Attempt::Moved);
                }
            }
            page::More::Next(_) | page::More::Unknown => {
                let mut rows = pages[0].rows.len();
                while pages.last().is_some_and(|page| page.more.goes_on(page.rows.len(), PAGE_SIZE)) {
                    match self.page(path, query, pages.len() + 1, read).await? {
                        Fetched::Page(page) => {
                            rows += page.rows.len();
                            if rows > MAX_ROWS {
                                return Err(self.senseless(path, format!("it has more than {MAX_ROWS} rows")));
                            }
                            // A page without rows ends a list whose links never do.
                            let ended = page.rows.is_empty();
                            pages.push(page);
                            if ended {
                                break;
                            }
                        }
                        Fetched::Missing(_) => break,
                    }
                }
                if page::distinct(&pages) != rows {
                    return Ok(Attempt::Moved);
                }
            }
        }
        Ok(Attempt::Complete(pages.into_iter().map(|page| page.rows).collect()))
    }

    async fn page<T: Send + 'static>(
        &self,
        path: &str,
        query: &[(&str, String)],
        number: usize,
        read: fn(&[&RawValue]) -> Result<page::Rows<T>, String>,
    ) -> Result<Fetched<T>, WaldurError> {
        let url = self.url(path);
        let request = self
            .upstream
            .get(url.clone())
            .header(http::header::AUTHORIZATION, format!("Token {}", self.token.expose_secret()))
            .header(http::header::ACCEPT, "application/json")
            .query(query)
            .query(&[("page", number.to_string()), ("page_size", PAGE_SIZE.to_string())]);
        let answer = self.upstream.exchange(request, MAX_BODY).await.map_err(WaldurError::Exchange)?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(Fetched::Missing(answer.status)),
            StatusCode::UNAUTHORIZED => return Err(WaldurError::Refused(answer.status)),
            status => return Err(self.error(&url, Fault::Status(status))),
        }
        let page = decode(answer, read).await.map_err(|fault| self.error(&url, fault))?;
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
