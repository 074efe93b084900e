//! Waldur, as far as the proxy reads it: resources, and the customers of offerings. Complete or an error. And callbacks,
//! handed on.

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
use crate::transport::{Transport, TransportError, USER_AGENT};
use crate::upstream::{ExchangeError, Upstream, UpstreamError};
use list::{List, Listed};

/// What a service provider's token sees.
const PROVIDER_LIST: &str = "/api/marketplace-provider-resources/";
/// What staff and support see.
const STAFF_LIST: &str = "/api/marketplace-resources/";

/// Largest description of a user that is read, in bytes.
const MAX_USER: usize = 4 << 20;

/// Client for Waldur.
#[derive(Debug)]
pub struct Waldur {
    upstream: Upstream,
    root: Url,
    token: SecretString,
    pages_at_once: usize,
    /// Requests for pages of any list that run at the same time.
    requests: Semaphore,
    /// How many pages of resources there were last time.
    pages: AtomicUsize,
    /// Whether the provider endpoint has answered.
    has_provider_endpoint: AtomicBool,
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
    #[error("the list of {0} changed while it was read, {times} times in a row", times = list::ATTEMPTS)]
    Unstable(&'static str),
}

/// All resources of some offerings.
#[derive(Debug, Default)]
pub struct Listing {
    /// Those that can be mapped, page by page as they came: one list of all would be copied, into memory that is new to
    /// the process at each reading.
    pages: Vec<Vec<Resource>>,
    /// Those that cannot (decision D8).
    pub malformed: Vec<Rejected>,
    /// Whether there are records and none has an `offering_slug`.
    pub lacks_offering_slugs: bool,
}

/// What a Waldur that is too old lacks, and the remedy.
pub const TOO_OLD: &str = "no record has an `offering_slug`: this Waldur is too old, and every resource is skipped; update \
                           Waldur to 7.8.3 or newer";

impl Listing {
    /// Those that can be mapped, in Waldur's order.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.pages.iter().flatten()
    }
}

/// An offering, as the `check` command sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct Offering {
    /// Slug of the offering.
    pub slug: String,
    /// UUID of the offering, where Waldur says it.
    pub uuid: Option<Uuid>,
    /// UUID of the organization that provides it, where Waldur says it.
    pub customer_uuid: Option<Uuid>,
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
            requests: Semaphore::new(settings.pages_at_once),
            pages: AtomicUsize::new(1),
            has_provider_endpoint: AtomicBool::new(false),
        })
    }

    /// Waldur itself.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
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
        let ours = |slug: &str| offering_slugs.contains(&slug);
        let met = |rows: &[Result<Resource, Rejected>]| {
            rows.iter().flatten().filter(|resource| ours(&resource.offering_slug)).for_each(met);
        };
        let list = |path| {
            let list =
                List { path, what: "resources", query: &query, read: read::resources, expected: Some(&self.pages) };
            self.list(list, &met)
        };
        let pages = match list(PROVIDER_LIST).await? {
            Listed::Pages(pages) => {
                self.has_provider_endpoint.store(true, Ordering::Relaxed);
                pages
            }
            // A provider's token sees nothing at the other endpoint: what was there once and is missing now would look as
            // if all resources were gone.
            Listed::Missing(StatusCode::NOT_FOUND) if !self.has_provider_endpoint.load(Ordering::Relaxed) => {
                warn!("Waldur has no provider endpoint for resources; asking the one of staff");
                match list(STAFF_LIST).await? {
                    Listed::Pages(pages) => {
                        if pages.iter().all(Vec::is_empty) {
                            error!(
                                "the endpoint of staff lists nothing; only a staff or support user's token sees all there"
                            );
                        }
                        pages
                    }
                    Listed::Missing(status) => return Err(self.refused_or(status, STAFF_LIST)),
                }
            }
            Listed::Missing(status) => return Err(self.refused_or(status, PROVIDER_LIST)),
        };
        let names_no_offering = |row: &Result<Resource, Rejected>| match row {
            Ok(_) => false,
            Err(rejected) => rejected.offering_slug.is_none(),
        };
        let mut rows = pages.iter().flatten().peekable();
        let lacks_offering_slugs = rows.peek().is_some() && rows.all(names_no_offering);
        let mut malformed = Vec::new();
        let mut usable = |row: Result<Resource, Rejected>| match row {
            Ok(resource) => Some(resource).filter(|resource| ours(&resource.offering_slug)),
            Err(rejected) => {
                // Whose a record is that does not even name its offering, nobody can tell.
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
                let named = |row: CustomerRow| Some((row.slug?, row.customer));
                Ok(Some(pages.into_iter().flatten().filter_map(named).collect()))
            }
            Listed::Missing(status) => {
                debug!(%offering, status = status.as_u16(), "Waldur does not report the offering's customers");
                Ok(None)
            }
        }
    }

    /// The offerings with this slug that the token sees.
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
            StatusCode::OK => answer.json().map_err(|fault| self.error(&url, fault)),
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

    fn error(&self, url: &Url, fault: UpstreamError) -> WaldurError {
        WaldurError::Exchange(self.upstream.error(http::Method::GET, url, fault))
    }

    fn senseless(&self, path: &str, what: String) -> WaldurError {
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

/// A customer of an offering, with the slug that resources name it by; without one no resource does.
struct CustomerRow {
    slug: Option<String>,
    customer: Customer,
}

#[cfg(test)]
mod tests;
