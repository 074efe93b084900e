//! The HPC User API: the Unix GID of each project, and at some sites the UID and e-mail address of each user.
//!
//! What the API says about one project is a value, never an error: a project without a GID is the catalogue's affair
//! (decision D7), and so are identities invented in development mode (decision D6). An error here means that the API
//! could not be asked and something needed is not cached (decision D9).
//!
//! An exchange that fails is repeated by [`crate::upstream`] alone; here, a refused token and a refused request line are tried
//! again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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

mod answer;
mod batches;
mod cache;
mod connection;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod known;
#[cfg(test)]
mod tests;
mod users;

pub use known::Known;
pub use users::{INCOMPLETE_MAX_AGE, UserIdentity};

use cache::Cache;
use connection::Connection;

/// A GID that the API gave is asked for again after this time. Until there is an answer, the old one stays in use.
pub const GID_MAX_AGE: Duration = Duration::from_hours(1);
/// When the API could not be asked about a GID that is cached, it is left in peace for this long.
pub const HOLD_OFF: Duration = Duration::from_mins(1);
/// Exchanges with the API at one time.
const CONCURRENCY: usize = 4;
/// The largest answer about projects that is read, in bytes. A batch needs some 20 kB; a server that ignores the
/// filter and sends some ten thousand projects still fits.
const MAX_BODY: usize = 8 * 1024 * 1024;
/// Path of the project export below the configured URL.
const PROJECTS: [&str; 5] = ["api", "v1", "export", "waldur", "projects"];
/// Asked for by [`HpcUserApi::check`]: an answer with or without it will do.
const CHECK_SLUG: &str = "hpc-storage-proxy-check";

/// By project slug: the GID (1 to 4294967294), or why there is none.
pub type Gids = HashMap<String, Result<u32, NoGid>>;

/// Why a project has no GID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum NoGid {
    /// The API left the project out of its answer.
    #[error("the HPC User API does not know the project")]
    Unknown,
    /// The API knows the project, but its GID is null or absent.
    #[error("the HPC User API has no GID for the project")]
    Null,
    /// The API named the project more than once and not always with the same GID.
    #[error("the HPC User API gives more than one GID for the project")]
    Conflicting,
    /// Asked for this project alone, the API answered with others only.
    #[error("the HPC User API answers for another project than the one asked for")]
    Mismatched,
    /// The GID is not an integer from 1 to 4294967294. 0 is root's group and 4294967295 is no group at all.
    #[error("the HPC User API gives something that is not a GID")]
    Invalid,
    /// The slug is empty or too long for a request.
    #[error("the HPC User API cannot be asked for a project with such a slug")]
    Unaskable,
    /// The API could not be asked. In development mode only; otherwise this is an error.
    #[error("the HPC User API could not be asked")]
    Unreachable,
    /// The settings name no API. In development mode only; otherwise this is an error.
    #[error("the HPC User API is not configured")]
    NotConfigured,
}

/// The API could not be asked. Neither a credential nor a body is ever part of it.
#[derive(Debug, Error)]
pub enum HpcUserError {
    /// A setting is missing.
    #[error("the HPC User API is not configured: {0} is missing")]
    NotConfigured(&'static str),
    /// There is no machine token.
    #[error(transparent)]
    Token(Arc<TokenError>),
    /// A new machine token was refused as well (401), or it does not permit the request (403).
    #[error(
        "the HPC User API refuses the machine token: check the rights of HPC_USER_CLIENT_ID and HPC_USER_OIDC_SCOPE"
    )]
    Refused(#[source] ExchangeError),
    /// The API has no project export at the configured URL.
    #[error("the HPC User API has no project export at the configured URL: check HPC_USER_API_URL")]
    NotFound(#[source] ExchangeError),
    /// The exchange failed, or the answer is of another shape than agreed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl HpcUserError {
    /// Whether the next request would most likely fail likewise, at the same price.
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

/// What [`HpcUserApi::check`] found.
#[derive(Debug)]
pub struct Check {
    /// Whether there is a machine token.
    pub token: Result<(), HpcUserError>,
    /// Whether the API took the token and answered in the shape agreed; `None` when there was no token to try.
    pub api: Option<Result<(), HpcUserError>>,
}

/// Client of the HPC User API, with its caches.
#[derive(Debug)]
pub struct HpcUserApi {
    /// Or the setting that is missing.
    connection: Result<Connection, &'static str>,
    development_mode: bool,
    gids: Mutex<Cache<u32>>,
    user_endpoint: Option<users::Endpoint>,
    users: Mutex<Cache<UserIdentity>>,
    /// Bounds the exchanges at one time, whoever asks.
    exchanges: Semaphore,
}

impl HpcUserApi {
    /// Sets up the client. Nothing is sent yet.
    ///
    /// Missing settings are no error here: in development mode the proxy does without the API, otherwise
    /// [`resolve`](Self::resolve) says what is missing.
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

    /// The API and its token endpoint, if the settings name them.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        self.connection.iter().flat_map(Connection::upstreams)
    }

    /// Number of projects whose GID is cached.
    pub fn cached_gids(&self) -> usize {
        lock(&self.gids).len()
    }

    /// The GID of each project, by slug: exactly one entry for each slug given.
    ///
    /// Only GIDs are cached. A project without one is asked for each time, so that it comes to life at once when it
    /// is put right. Calls may run beside each other; [`keep_only`](Self::keep_only) bounds the caches.
    ///
    /// A GID older than [`GID_MAX_AGE`] is asked for again, and stays in use while the API cannot be asked. A definite
    /// answer replaces it, also when that says that there is no GID any more.
    ///
    /// Fails when the API cannot be asked about a slug that is not cached (decision D9); in development mode never:
    /// such slugs are [`NoGid::Unreachable`] or [`NoGid::NotConfigured`].
    pub async fn resolve<S: Into<String>>(&self, slugs: impl IntoIterator<Item = S>) -> Result<Gids, HpcUserError> {
        let slugs: BTreeSet<String> = slugs.into_iter().map(Into::into).collect();
        let due = lock(&self.gids).due(&slugs, Instant::now());
        metrics::gids(slugs.len() - due.len(), due.len());
        let (mut answered, failure) = self.ask(&due).await;

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
                    cache.leave_until(slug, now + HOLD_OFF, now);
                    *if cached.is_some() { &mut kept } else { &mut unanswered } += 1;
                    cached.ok_or(if self.connection.is_ok() { NoGid::Unreachable } else { NoGid::NotConfigured })
                }
            };
            gids.insert(slug.clone(), outcome);
        }
        debug!(projects = slugs.len(), asked = due.len(), unanswered, "GIDs resolved");
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
                        "the HPC User API could not be asked; GIDs are invented (development mode)"
                    );
                } else {
                    warn!(error, kept, "the HPC User API could not be asked; cached GIDs stay in use");
                }
                Ok(gids)
            }
        }
    }

    /// Forgets all projects and users but these.
    pub fn keep_only(&self, projects: &HashSet<String>, users: &HashSet<String>) {
        lock(&self.gids).retain(projects);
        lock(&self.users).retain(users);
    }

    /// Whether a token can be had, and the API takes it.
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

    /// Asks about `slugs`, a few batches at once, until one fails: what was answered so far, and the failure.
    async fn ask<'a>(&self, slugs: &[&'a str]) -> (HashMap<&'a str, Result<u32, NoGid>>, Option<HpcUserError>) {
        let mut answered = HashMap::with_capacity(slugs.len());
        if slugs.is_empty() {
            return (answered, None);
        }
        let connection = match &self.connection {
            Ok(connection) => connection,
            Err(missing) => return (answered, Some(HpcUserError::NotConfigured(missing))),
        };
        let batches::Batches { batches, unaskable } = batches::of(slugs);
        answered.extend(unaskable.into_iter().map(|slug| (slug, Err(NoGid::Unaskable))));
        let exchange = |batch| async {
            // An error would say that the semaphore is closed, which it never is.
            let _turn = self.exchanges.acquire().await;
            projects_or_halves(connection, batch).await
        };
        let exchanges: Vec<_> = batches.into_iter().map(exchange).collect();
        let mut exchanges = futures::stream::iter(exchanges).buffer_unordered(CONCURRENCY);
        while let Some(batch) = exchanges.next().await {
            match batch {
                Ok(outcomes) => answered.extend(outcomes),
                // The batches that are under way are dropped: the API is not to be pressed while it fails.
                Err(failure) => return (answered, Some(failure)),
            }
        }
        (answered, None)
    }
}

/// Asks about one batch; in halves when the server finds the request line too long.
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

/// 414, or the 431 that some servers give for a long line as well.
fn line_too_long(fault: &UpstreamError) -> bool {
    matches!(fault, UpstreamError::Status(StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
}

/// Asks about `slugs` in one request.
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
    let read = answer::read(&answer, slugs).map_err(|fault| connection.error(&url, fault))?;
    if read.unasked > 0 || read.nameless > 0 {
        warn!(
            unasked = read.unasked,
            nameless = read.nameless,
            "the HPC User API's answer holds projects that were not asked for or have no name; they are ignored"
        );
    }
    Ok(read.outcomes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
