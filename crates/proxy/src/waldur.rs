//! Client for Waldur: reads lists of resources, customers and offerings, completely or with an error, relays callbacks, and
//! registers for events.

mod events;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod list;
mod page;
mod read;
pub mod relay;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use catalog::{Customer, Customers, OpenOrder, Rejected, Resource, Row, Stamp};
use http::StatusCode;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{debug, error, warn};
use url::Url;
use uuid::Uuid;
use waldur_answers::TokenUser;

use crate::config::WaldurApi;
use crate::transport::{Transport, TransportError};
use crate::upstream::{Answer, ExchangeError, Upstream, UpstreamError};
pub use events::Consumer;
use list::{List, Listed};

/// Lists what a service provider's token can see.
const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";
/// Lists what staff and support can see.
const STAFF_LIST: &str = "/api/marketplace-resources/";

/// Size limit of an answer about a user, in bytes.
const MAX_USER: usize = 4 << 20;
/// Size limit of an answer about a resource, in bytes.
const MAX_RESOURCE: usize = 4 << 20;
/// Fields of a resource for its order: the order itself, and what only the order has.
const FIELDS_OF_ORDER: [&str; 3] = ["order_in_progress", "type", "url"];

#[derive(Debug)]
pub struct Waldur {
    upstream: Upstream,
    root: Url,
    token: SecretString,
    pages_at_once: usize,
    /// Limits concurrent requests for pages and resources.
    requests: Semaphore,
    /// Number of pages of resources in the last full reading.
    pages: AtomicUsize,
    /// Number of pages of open orders in the last reading.
    pages_of_orders: AtomicUsize,
    /// Whether the provider endpoint has ever answered.
    has_provider_endpoint: AtomicBool,
}

#[derive(Debug, Error)]
pub enum WaldurError {
    #[error("cannot read from Waldur")]
    Exchange(#[source] ExchangeError),
    #[error("Waldur refuses the token ({0}); check WALDUR_API_TOKEN and that its user belongs to the service provider")]
    Refused(StatusCode),
    /// Rows moved between pages at each attempt.
    #[error("the list of {0} changed while it was read, {times} times in a row", times = list::ATTEMPTS)]
    Unstable(&'static str),
}

/// Resources of some offerings.
#[derive(Debug, Default)]
pub struct Listing {
    /// Rows by page, to avoid copying them into one list.
    pub pages: Vec<Vec<Row>>,
    /// `Date` of the first page.
    pub date: Option<Stamp>,
    /// Whether there are records and none has an `offering_slug`.
    pub lacks_offering_slugs: bool,
}

impl Listing {
    /// The valid resources, in Waldur's order.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.pages.iter().flatten().filter_map(|row| row.resource.as_ref().ok())
    }

    /// The malformed records (decision D8).
    pub fn malformed(&self) -> impl Iterator<Item = &Rejected> {
        self.pages.iter().flatten().filter_map(|row| row.resource.as_ref().err().map(AsRef::as_ref))
    }
}

/// Which resources to list.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// All, with their orders in progress: expensive for Waldur.
    WithOrders,
    /// All, without orders.
    All {
        /// Whether to leave room for other requests.
        in_background: bool,
    },
    /// Those with a `modified` of this time or later, without orders.
    ModifiedSince(Stamp),
}

/// Error message for a Waldur that is too old.
pub const TOO_OLD: &str = "no record has an `offering_slug`: this Waldur is too old, and every resource is skipped; update \
                           Waldur to 7.8.3 or newer";

#[derive(Debug, Clone, Deserialize)]
pub struct Offering {
    pub slug: String,
    pub uuid: Option<Uuid>,
    /// UUID of the organization that provides the offering.
    pub customer_uuid: Option<Uuid>,
}

impl Waldur {
    /// Sends nothing yet.
    pub fn new(settings: &WaldurApi) -> Result<Self, TransportError> {
        let mut transport = Transport::new(settings.verify_ssl, settings.socks_proxy.clone(), settings.timeout);
        if let Some(user_agent) = &settings.agent_header {
            transport.user_agent.clone_from(user_agent);
        }
        Ok(Self {
            upstream: Upstream::new("Waldur", &transport)?,
            root: settings.api_url.clone(),
            token: settings.access_token.clone(),
            pages_at_once: settings.pages_at_once,
            requests: Semaphore::new(settings.pages_at_once),
            pages: AtomicUsize::new(1),
            pages_of_orders: AtomicUsize::new(1),
            has_provider_endpoint: AtomicBool::new(false),
        })
    }

    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Resources of the offerings with these slugs, in a stable order.
    ///
    /// Uses the provider endpoint, or the staff endpoint if Waldur is too old to have the former. There is no filter by state:
    /// rows that change their state during the reading would shift others between pages.
    ///
    /// Calls `found` for each resource as soon as its page has been read, in any order and possibly more than once, so that
    /// dependent requests can start during the reading. `found` may replace a resource by an equal one that is already in memory.
    ///
    /// # Errors
    ///
    /// Anything less than the complete list (decision D10).
    pub async fn resources(
        &self,
        offering_slugs: &[&str],
        which: Which,
        found: &(dyn Fn(&mut Arc<Resource>) + Sync),
    ) -> Result<Listing, WaldurError> {
        let mut query = resource_query(offering_slugs, matches!(which, Which::WithOrders));
        // The default order has no tie-break: rows with equal times could be repeated or missing.
        query.push(("o", String::from("created,name")));
        if let Which::ModifiedSince(time) = which {
            query.push(("modified", time.to_string()));
        }
        let in_background = matches!(which, Which::All { in_background: true });
        // Each change adds a row: usage reports change thousands of resources one by one.
        let grows = matches!(which, Which::ModifiedSince(_));
        // The number of pages of all resources says nothing about the changed ones.
        let expected = (!grows).then_some(&self.pages);
        let ours = |row: &Row| is_of(row, offering_slugs);
        let found = |rows: &mut [Row]| {
            let ours = rows.iter_mut().filter(|row| ours(row));
            ours.filter_map(|row| row.resource.as_mut().ok()).for_each(found);
        };
        let list = |path| {
            let read = read::resources;
            let list = List { path, what: "resources", query: &query, read, expected, in_background, grows };
            self.list(list, &found)
        };
        let (mut pages, date) = match list(PROVIDER_LIST).await? {
            Listed::Pages(pages, date) => {
                self.has_provider_endpoint.store(true, Ordering::Relaxed);
                (pages, date)
            }
            // Only if it never answered: a provider's token sees nothing at the staff endpoint, so all resources would seem to
            // be gone.
            Listed::Missing(StatusCode::NOT_FOUND) if !self.has_provider_endpoint.load(Ordering::Relaxed) => {
                warn!("Waldur has no provider endpoint for resources; using the staff endpoint");
                match list(STAFF_LIST).await? {
                    Listed::Pages(pages, date) => {
                        if pages.iter().all(Vec::is_empty) {
                            error!(
                                "the staff endpoint lists no resources; it needs the token of a staff or support user"
                            );
                        }
                        (pages, date)
                    }
                    Listed::Missing(status) => return Err(self.refused_or(status, STAFF_LIST)),
                }
            }
            Listed::Missing(status) => return Err(self.refused_or(status, PROVIDER_LIST)),
        };
        let lacks_slug = |row: &Row| row.offering_slug().is_none();
        let mut rows = pages.iter().flatten().peekable();
        let lacks_offering_slugs = rows.peek().is_some() && rows.all(lacks_slug);
        for page in &mut pages {
            page.retain(ours);
        }
        debug!(resources = pages.iter().map(Vec::len).sum::<usize>(), ?which, "read the resources from Waldur");
        Ok(Listing { pages, date, lacks_offering_slugs })
    }

    /// A resource with its order in progress; `None` if the token cannot see it, or if it belongs to another offering.
    ///
    /// # Errors
    ///
    /// Any other failure (decision D10).
    pub async fn resource(&self, offering_slugs: &[&str], uuid: Uuid) -> Result<Option<Row>, WaldurError> {
        let list = if self.has_provider_endpoint.load(Ordering::Relaxed) { PROVIDER_LIST } else { STAFF_LIST };
        let url = self.url(&format!("{list}{}/", uuid.simple()));
        let request = self.get(url.clone()).query(&resource_query(offering_slugs, true));
        let answer = self.exchange(request, MAX_RESOURCE).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(WaldurError::Refused(answer.status)),
            status => return Err(self.error(&url, UpstreamError::Status(status))),
        }
        let record: Box<RawValue> = answer.json().map_err(|cause| self.error(&url, cause))?;
        let invalid = |what| Err(self.error(&url, UpstreamError::Invalid(what)));
        match Row::parse(&record) {
            Ok(row) if row.uuid != uuid => invalid(format!("it is the resource {}", row.uuid)),
            Ok(row) => Ok(Some(row).filter(|row| is_of(row, offering_slugs))),
            Err(rejected) => invalid(format!("it is not a record: {}", rejected.error)),
        }
    }

    /// All open orders of the offerings with these slugs, possibly with others, and the `Date` of the answer; `None` if the
    /// token may not list orders.
    ///
    /// # Errors
    ///
    /// Anything less than the complete list (decision D10).
    pub async fn open_orders(
        &self,
        offering_slugs: &[&str],
    ) -> Result<Option<(Vec<OpenOrder>, Option<Stamp>)>, WaldurError> {
        let mut query = vec![("offering_slug", offering_slugs.join(",")), ("o", String::from("created"))];
        query.extend(catalog::OPEN_STATES.map(|state| ("state", state.to_owned())));
        query.extend(catalog::ORDER_FIELDS.map(|field| ("field", field.to_owned())));
        let path = "/api/marketplace-orders/";
        let expected = Some(&self.pages_of_orders);
        match self
            .list(
                List {
                    path,
                    what: "orders",
                    query: &query,
                    read: read::orders,
                    expected,
                    in_background: false,
                    grows: false,
                },
                &|_| {},
            )
            .await?
        {
            Listed::Pages(pages, date) => Ok(Some((pages.into_iter().flatten().flatten().collect(), date))),
            Listed::Missing(status) => {
                debug!(status = status.as_u16(), "Waldur does not list orders");
                Ok(None)
            }
        }
    }

    /// The customers of an offering; `None` if the token may not list them (decision D18).
    ///
    /// # Errors
    ///
    /// Any other failure (decision D10).
    pub async fn customers(&self, offering: Uuid) -> Result<Option<Customers>, WaldurError> {
        let path = format!("/api/marketplace-provider-offerings/{offering}/customers/");
        let query = ["uuid", "slug", "name"].map(|field| ("field", field.to_owned()));
        let list = List {
            path: &path,
            what: "customers",
            query: &query,
            read: read::customers,
            expected: None,
            in_background: false,
            grows: false,
        };
        match self.list(list, &|_| {}).await? {
            Listed::Pages(pages, _) => {
                let named = |row: CustomerRow| Some((row.slug?, row.customer));
                Ok(Some(pages.into_iter().flatten().filter_map(named).collect()))
            }
            Listed::Missing(status) => {
                debug!(%offering, status = status.as_u16(), "Waldur does not report the offering's customers");
                Ok(None)
            }
        }
    }

    /// The offerings with this slug that the token can see.
    pub async fn offerings(&self, slug: &str) -> Result<Vec<Offering>, WaldurError> {
        let mut query = vec![("slug", slug.to_owned())];
        query.extend(["slug", "uuid", "customer_uuid"].map(|field| ("field", field.to_owned())));
        let path = "/api/marketplace-provider-offerings/";
        let list = List {
            path,
            what: "offerings",
            query: &query,
            read: read::offerings,
            expected: None,
            in_background: false,
            grows: false,
        };
        match self.list(list, &|_| {}).await? {
            Listed::Pages(pages, _) => {
                Ok(pages.into_iter().flatten().filter(|offering| offering.slug == slug).collect())
            }
            Listed::Missing(status) => Err(self.refused_or(status, path)),
        }
    }

    /// The user that the token belongs to.
    pub async fn token_user(&self) -> Result<TokenUser, WaldurError> {
        let url = self.url("/api/users/me/");
        let request = self.get(url.clone()).query(&TokenUser::FIELDS.map(|field| ("field", field)));
        let answer = self.upstream.exchange(request, MAX_USER).await.map_err(WaldurError::Exchange)?;
        match answer.status {
            StatusCode::OK => answer.json().map_err(|cause| self.error(&url, cause)),
            StatusCode::UNAUTHORIZED => Err(WaldurError::Refused(answer.status)),
            status => Err(self.refused_or(status, url.path())),
        }
    }

    /// Starts a GET request with the token.
    fn get(&self, url: Url) -> RequestBuilder {
        self.upstream
            .get(url)
            .header(http::header::AUTHORIZATION, format!("Token {}", self.token.expose_secret()))
            .header(http::header::ACCEPT, "application/json")
    }

    /// Sends a request for a page or a resource when its turn has come. `most` limits the size of the answer, in bytes.
    async fn exchange(&self, request: RequestBuilder, most: usize) -> Result<Answer, WaldurError> {
        // Fails only if the semaphore is closed, which it never is. The timeout starts afterwards, so that requests do not time
        // out in a queue.
        let _turn = self.requests.acquire().await;
        self.upstream.exchange(request, most).await.map_err(WaldurError::Exchange)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(&format!("{}{path}", self.root.path().trim_end_matches('/')));
        url
    }

    fn error(&self, url: &Url, cause: UpstreamError) -> WaldurError {
        WaldurError::Exchange(self.upstream.error(http::Method::GET, url, cause))
    }

    fn invalid(&self, path: &str, what: String) -> WaldurError {
        self.error(&self.url(path), UpstreamError::Invalid(what))
    }

    fn refused_or(&self, status: StatusCode, path: &str) -> WaldurError {
        if status == StatusCode::FORBIDDEN {
            WaldurError::Refused(status)
        } else {
            self.error(&self.url(path), UpstreamError::Status(status))
        }
    }
}

/// Whether a row belongs to one of these offerings, or may do so. Old releases ignore the filter by offering.
fn is_of(row: &Row, offering_slugs: &[&str]) -> bool {
    row.offering_slug().is_none_or(|slug| offering_slugs.contains(&slug))
}

/// The query for resources of these offerings. Waldur applies it to single resources too.
fn resource_query(offering_slugs: &[&str], with_orders: bool) -> Vec<(&'static str, String)> {
    let mut query = vec![("offering_slug", offering_slugs.join(",")), ("visible_to_providers", String::from("true"))];
    let fields = catalog::FIELDS.iter().filter(|field| with_orders || !FIELDS_OF_ORDER.contains(field));
    query.extend(fields.map(|field| ("field", (*field).to_owned())));
    query
}

/// A customer of an offering, and the slug by which resources refer to it.
struct CustomerRow {
    slug: Option<String>,
    customer: Customer,
}

#[cfg(test)]
mod tests;
