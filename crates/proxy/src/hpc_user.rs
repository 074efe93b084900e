//! The HPC User API: the Unix GID of each project, and at some sites the UID and e-mail address of each user.
//!
//! The result for a project is a value, never an error: the catalogue handles projects without a GID (decision D7) and
//! invents identities in development mode (decision D6). An error here means that a request failed and a needed value is not
//! cached (decision D9).
//!
//! Failed exchanges are retried by [`crate::upstream`]; this module retries after a refused token or request line.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config;
use crate::metrics;
use crate::oauth::TokenError;
use crate::transport::TransportError;
use crate::upstream::{ExchangeError, Upstream, UpstreamError};
use program::lock;

mod answer;
mod batches;
mod cache;
mod connection;
mod export;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;
mod users;

pub use export::Export;
pub use users::{INCOMPLETE_MAX_AGE, UserIdentity};

use cache::Cache;
use connection::Connection;

/// A GID is requested again after this time. Until there is an answer, the old one remains in use.
pub const GID_MAX_AGE: Duration = Duration::from_hours(1);
/// After a failed request for a cached GID, the next one is sent this much later.
pub const HOLD_OFF: Duration = Duration::from_mins(1);
/// Maximum number of concurrent exchanges with the API.
const CONCURRENCY: usize = 4;
/// Size limit of an answer about projects, in bytes. A batch takes about 20 kB; ten thousand projects from a server that
/// ignores the filter still fit.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Path of the project export below the configured URL.
const PROJECTS: [&str; 5] = ["api", "v1", "export", "waldur", "projects"];
/// Requested by [`HpcUserApi::check`]; the project need not exist.
const CHECK_SLUG: &str = "hpc-storage-proxy-check";

/// By project slug: the GID (1 to 4294967294), or why there is none.
pub type Gids = HashMap<String, Result<u32, NoGid>>;

/// Why a project has no GID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum NoGid {
    /// The answer does not contain the project.
    #[error("the HPC User API does not know the project")]
    Unknown,
    /// The project's GID is null or absent.
    #[error("the HPC User API has no GID for the project")]
    Null,
    /// The answer contains the project more than once with different GIDs.
    #[error("the HPC User API gives more than one GID for the project")]
    Conflicting,
    /// The answer to a request for this project alone contains only other projects.
    #[error("the HPC User API answers for another project than the requested one")]
    Mismatched,
    /// The GID is not an integer from 1 to 4294967294. 0 is root's group and 4294967295 means no group.
    #[error("the HPC User API gives something that is not a GID")]
    Invalid,
    #[error("the project's slug is empty or too long for a request to the HPC User API")]
    InvalidSlug,
    /// The request failed. In development mode only; otherwise this is an error.
    #[error("the request to the HPC User API failed")]
    Unreachable,
    /// In development mode only; otherwise this is an error.
    #[error("the HPC User API is not configured")]
    NotConfigured,
}

/// A request to the API failed. Contains neither a credential nor a body.
#[derive(Debug, Error)]
pub enum HpcUserError {
    /// A setting is missing.
    #[error("the HPC User API is not configured: {0} is missing")]
    NotConfigured(&'static str),
    #[error(transparent)]
    Token(Arc<TokenError>),
    /// The API refused a new machine token too (401), or the token lacks rights (403).
    #[error(
        "the HPC User API refuses the machine token: check the rights of HPC_USER_CLIENT_ID and HPC_USER_OIDC_SCOPE"
    )]
    Refused(#[source] ExchangeError),
    #[error("the HPC User API has no project export at the configured URL: check HPC_USER_API_URL")]
    NotFound(#[source] ExchangeError),
    /// The exchange failed, or the answer has another format than agreed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl HpcUserError {
    /// Whether other requests would most likely fail in the same way and take as long.
    fn concerns_all(&self) -> bool {
        match self {
            Self::NotConfigured(_) | Self::Token(_) | Self::Refused(_) => true,
            Self::NotFound(_) => false,
            Self::Exchange(error) => {
                matches!(error.cause, UpstreamError::Unreachable(_) | UpstreamError::TimedOut)
            }
        }
    }
}

/// The result of [`HpcUserApi::check`].
#[derive(Debug)]
pub struct Check {
    pub token: Result<(), HpcUserError>,
    /// Whether the API accepted the token and answered in the agreed format; `None` without a token.
    pub api: Option<Result<(), HpcUserError>>,
}

/// Client of the HPC User API, with its caches.
#[derive(Debug)]
pub struct HpcUserApi {
    /// `Err` contains the missing setting.
    connection: Result<Connection, &'static str>,
    development_mode: bool,
    gids: Mutex<Cache<u32>>,
    user_endpoint: Option<users::Endpoint>,
    users: Mutex<Cache<UserIdentity>>,
    /// Limits concurrent exchanges.
    exchanges: Semaphore,
}

impl HpcUserApi {
    /// Sends nothing yet. Missing settings are no error here: development mode works without the API, and otherwise
    /// [`resolve`](Self::resolve) reports them.
    pub fn new(settings: &config::HpcUserApi) -> Result<Self, TransportError> {
        Ok(Self {
            connection: Connection::new(settings)?,
            development_mode: settings.development_mode,
            gids: Mutex::default(),
            user_endpoint: users::Endpoint::new(settings),
            users: Mutex::default(),
            exchanges: Semaphore::new(CONCURRENCY),
        })
    }

    /// The API and its token endpoint, if configured.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.connection.iter().flat_map(Connection::upstreams)
    }

    pub fn cached_gids(&self) -> usize {
        lock(&self.gids).len()
    }

    /// The GID of each project, by slug: exactly one entry for each slug given.
    ///
    /// Only GIDs are cached. A project without one is requested each time, so that a new GID is used at once. Calls may run
    /// concurrently; [`keep_only`](Self::keep_only) limits the size of the caches.
    ///
    /// A GID older than [`GID_MAX_AGE`] is requested again, and remains in use while requests fail. A definite answer replaces
    /// it, also if there is no GID any more.
    ///
    /// Fails if a request for a slug that is not cached fails (decision D9), except in development mode: then such slugs are
    /// [`NoGid::Unreachable`] or [`NoGid::NotConfigured`].
    pub async fn resolve<S: Into<String>>(&self, slugs: impl IntoIterator<Item = S>) -> Result<Gids, HpcUserError> {
        let slugs: BTreeSet<String> = slugs.into_iter().map(Into::into).collect();
        let due = lock(&self.gids).due(&slugs, Instant::now());
        metrics::gids(slugs.len() - due.len(), due.len());
        let (mut answered, failure) = self.request(&due).await;

        let mut cache = lock(&self.gids);
        let now = Instant::now();
        let mut gids = Gids::with_capacity(slugs.len());
        let (mut unanswered, mut kept) = (0_usize, 0_usize);
        for slug in &slugs {
            let cached = cache.get(slug).copied();
            let outcome = match answered.remove(slug.as_str()) {
                Some(Ok(gid)) => {
                    if let Some(old) = cached.filter(|old| *old != gid) {
                        warn!(project = slug, old, new = gid, "the GID of a project has changed");
                    }
                    cache.put(slug, gid, now + GID_MAX_AGE);
                    Ok(gid)
                }
                Some(Err(reason)) => {
                    cache.remove(slug);
                    Err(reason)
                }
                None => {
                    cache.postpone(slug, now + HOLD_OFF, now);
                    *if cached.is_some() { &mut kept } else { &mut unanswered } += 1;
                    cached.ok_or(if self.connection.is_ok() { NoGid::Unreachable } else { NoGid::NotConfigured })
                }
            };
            gids.insert(slug.clone(), outcome);
        }
        debug!(projects = slugs.len(), requested = due.len(), unanswered, "GIDs resolved");
        match failure {
            Some(failure) if unanswered > 0 && !self.development_mode => Err(failure),
            Some(HpcUserError::NotConfigured(_)) | None => Ok(gids),
            Some(failure) => {
                let error = &failure as &dyn Error;
                if unanswered > 0 {
                    warn!(
                        error,
                        invented = unanswered,
                        kept,
                        "requests to the HPC User API failed; GIDs are invented (development mode)"
                    );
                } else {
                    warn!(error, kept, "requests to the HPC User API failed; cached GIDs remain in use");
                }
                Ok(gids)
            }
        }
    }

    /// Projects and users whose cached values have to be requested again.
    pub fn expired(&self) -> (Vec<String>, Vec<String>) {
        let now = Instant::now();
        (lock(&self.gids).expired(now), lock(&self.users).expired(now))
    }

    /// Drops all other projects and users from the caches.
    pub fn keep_only(&self, projects: &HashSet<String>, users: &HashSet<String>) {
        lock(&self.gids).retain(projects);
        lock(&self.users).retain(users);
    }

    /// Tests whether a token can be obtained and whether the API accepts it.
    pub async fn check(&self) -> Check {
        let connection = match &self.connection {
            Ok(connection) => connection,
            Err(missing) => return Check { token: Err(HpcUserError::NotConfigured(missing)), api: None },
        };
        if let Err(error) = connection.token().await {
            return Check { token: Err(error), api: None };
        }
        Check { token: Ok(()), api: Some(projects(connection, &[CHECK_SLUG]).await.map(|_| ())) }
    }

    /// Requests `slugs` in concurrent batches until one fails. Returns the answers so far, and the failure.
    async fn request<'a>(&self, slugs: &[&'a str]) -> (HashMap<&'a str, Result<u32, NoGid>>, Option<HpcUserError>) {
        let mut answered = HashMap::with_capacity(slugs.len());
        if slugs.is_empty() {
            return (answered, None);
        }
        let connection = match &self.connection {
            Ok(connection) => connection,
            Err(missing) => return (answered, Some(HpcUserError::NotConfigured(missing))),
        };
        let batches::Batches { batches, invalid } = batches::of(slugs);
        answered.extend(invalid.into_iter().map(|slug| (slug, Err(NoGid::InvalidSlug))));
        let exchange = |batch| async {
            // Fails only if the semaphore is closed, which it never is.
            let _turn = self.exchanges.acquire().await;
            projects_or_halves(connection, batch).await
        };
        let exchanges: Vec<_> = batches.into_iter().map(exchange).collect();
        let mut exchanges = futures::stream::iter(exchanges).buffer_unordered(CONCURRENCY);
        while let Some(batch) = exchanges.next().await {
            match batch {
                Ok(outcomes) => answered.extend(outcomes),
                // Cancels the other batches, to spare the failing API.
                Err(failure) => return (answered, Some(failure)),
            }
        }
        (answered, None)
    }
}

/// Requests a batch, in halves if the request line is too long for the server.
async fn projects_or_halves<'a>(
    connection: &Connection,
    batch: Vec<&'a str>,
) -> Result<HashMap<&'a str, Result<u32, NoGid>>, HpcUserError> {
    let mut outcomes = HashMap::with_capacity(batch.len());
    let mut waiting = vec![batch];
    while let Some(mut batch) = waiting.pop() {
        match projects(connection, &batch).await {
            Ok(some) => outcomes.extend(some),
            Err(HpcUserError::Exchange(error)) if line_too_long(&error.cause) && batch.len() > 1 => {
                debug!(slugs = batch.len(), "the request line is too long for the HPC User API, the batch is halved");
                waiting.push(batch.split_off(batch.len() / 2));
                waiting.push(batch);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(outcomes)
}

/// 414, or 431, which some servers give for a long request line too.
fn line_too_long(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Status(StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
}

/// Requests `slugs` in one request.
async fn projects<'a>(
    connection: &Connection,
    slugs: &[&'a str],
) -> Result<HashMap<&'a str, Result<u32, NoGid>>, HpcUserError> {
    let mut url = connection.url(PROJECTS);
    url.query_pairs_mut().extend_pairs(slugs.iter().map(|slug| (batches::PARAMETER, slug)));
    let answer = match connection.get(&url, MAX_BODY).await? {
        answer if answer.status == StatusCode::OK => answer,
        answer if answer.status == StatusCode::NOT_FOUND => {
            return Err(HpcUserError::NotFound(connection.error(&url, UpstreamError::Status(answer.status))));
        }
        answer => return Err(connection.error(&url, UpstreamError::Status(answer.status)).into()),
    };
    let read = answer::read(&answer, slugs).map_err(|cause| connection.error(&url, cause))?;
    if read.unrequested > 0 || read.nameless > 0 {
        warn!(
            unrequested = read.unrequested,
            nameless = read.nameless,
            "ignoring projects in the HPC User API's answer that were not requested or have no name"
        );
    }
    Ok(read.outcomes)
}
