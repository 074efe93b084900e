//! Client for Waldur: reads lists of resources, customers and offerings, completely or with an error, and relays callbacks.

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod list;
mod page;
mod read;
pub mod relay;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use catalog::{Customer, Customers, Rejected, Resource};
use http::StatusCode;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{debug, error, warn};
use url::Url;
use uuid::Uuid;
use waldur_answers::TokenUser;

use crate::config::WaldurApi;
use crate::transport::{Transport, TransportError};
use crate::upstream::{ExchangeError, Upstream, UpstreamError};
use list::{List, Listed};

/// Lists what a service provider's token can see.
const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";
/// Lists what staff and support can see.
const STAFF_LIST: &str = "/api/marketplace-resources/";

/// Size limit of an answer about a user, in bytes.
const MAX_USER: usize = 4 << 20;

#[derive(Debug)]
pub struct Waldur {
    upstream: Upstream,
    root: Url,
    token: SecretString,
    pages_at_once: usize,
    /// Limits concurrent requests for pages of all lists.
    requests: Semaphore,
    /// Number of pages of resources in the last reading.
    pages: AtomicUsize,
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

/// All resources of some offerings.
#[derive(Debug, Default)]
pub struct Listing {
    /// Valid resources by page, to avoid copying them into one list.
    pages: Vec<Vec<Resource>>,
    /// Malformed records (decision D8).
    pub malformed: Vec<Rejected>,
    /// Whether there are records and none has an `offering_slug`.
    pub lacks_offering_slugs: bool,
}

/// Error message for a Waldur that is too old.
pub const TOO_OLD: &str = "no record has an `offering_slug`: this Waldur is too old, and every resource is skipped; update \
                           Waldur to 7.8.3 or newer";

impl Listing {
    /// The valid resources, in Waldur's order.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.pages.iter().flatten()
    }
}

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
            has_provider_endpoint: AtomicBool::new(false),
        })
    }

    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// All resources of the offerings with these slugs, in a stable order.
    ///
    /// Uses the provider endpoint, or the staff endpoint if Waldur is too old to have the former. There is no filter by state:
    /// rows that change their state during the reading would shift others between pages.
    ///
    /// Calls `found` for each resource as soon as its page has been read, in any order and possibly more than once, so that
    /// dependent requests can start during the reading.
    ///
    /// # Errors
    ///
    /// Anything less than the complete list (decision D10).
    pub async fn resources(
        &self,
        offering_slugs: &[&str],
        found: &(dyn Fn(&Resource) + Sync),
    ) -> Result<Listing, WaldurError> {
        let mut query = vec![
            ("offering_slug", offering_slugs.join(",")),
            ("visible_to_providers", String::from("true")),
            // The default order has no tie-break: rows with equal times could be repeated or missing.
            ("o", String::from("created,name")),
        ];
        query.extend(catalog::FIELDS.map(|field| ("field", field.to_owned())));
        // Old releases ignore the filter by offering.
        let ours = |slug: &str| offering_slugs.contains(&slug);
        let found = |rows: &[Result<Resource, Rejected>]| {
            rows.iter().flatten().filter(|resource| ours(&resource.offering_slug)).for_each(found);
        };
        let list = |path| {
            let list =
                List { path, what: "resources", query: &query, read: read::resources, expected: Some(&self.pages) };
            self.list(list, &found)
        };
        let pages = match list(PROVIDER_LIST).await? {
            Listed::Pages(pages) => {
                self.has_provider_endpoint.store(true, Ordering::Relaxed);
                pages
            }
            // Only if it never answered: a provider's token sees nothing at the staff endpoint, so all resources would seem to
            // be gone.
            Listed::Missing(StatusCode::NOT_FOUND) if !self.has_provider_endpoint.load(Ordering::Relaxed) => {
                warn!("Waldur has no provider endpoint for resources; using the staff endpoint");
                match list(STAFF_LIST).await? {
                    Listed::Pages(pages) => {
                        if pages.iter().all(Vec::is_empty) {
                            error!(
                                "the staff endpoint lists no resources; it needs the token of a staff or support user"
                            );
                        }
                        pages
                    }
                    Listed::Missing(status) => return Err(self.refused_or(status, STAFF_LIST)),
                }
            }
            Listed::Missing(status) => return Err(self.refused_or(status, PROVIDER_LIST)),
        };
        let lacks_slug = |row: &Result<Resource, Rejected>| match row {
            Ok(_) => false,
            Err(rejected) => rejected.offering_slug.is_none(),
        };
        let mut rows = pages.iter().flatten().peekable();
        let lacks_offering_slugs = rows.peek().is_some() && rows.all(lacks_slug);
        let mut malformed = Vec::new();
        let mut usable = |row: Result<Resource, Rejected>| match row {
            Ok(resource) => Some(resource).filter(|resource| ours(&resource.offering_slug)),
            Err(rejected) => {
                // A record without an offering may be ours.
                if rejected.offering_slug.as_deref().is_none_or(ours) {
                    malformed.push(rejected);
                }
                None
            }
        };
        let pages = pages.into_iter().map(|page| page.into_iter().filter_map(&mut usable).collect()).collect();
        let listing = Listing { pages, malformed, lacks_offering_slugs };
        debug!(
            resources = listing.resources().count(),
            malformed = listing.malformed.len(),
            "read the resources from Waldur"
        );
        Ok(listing)
    }

    /// The customers of an offering; `None` if the token may not list them (decision D18).
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
        let list = List { path, what: "offerings", query: &query, read: read::offerings, expected: None };
        match self.list(list, &|_| {}).await? {
            Listed::Pages(pages) => Ok(pages.into_iter().flatten().filter(|offering| offering.slug == slug).collect()),
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

/// A customer of an offering, and the slug by which resources refer to it.
struct CustomerRow {
    slug: Option<String>,
    customer: Customer,
}

#[cfg(test)]
mod tests;
