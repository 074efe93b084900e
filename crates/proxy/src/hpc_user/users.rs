//! The optional user endpoint: Unix UID and e-mail address of the user that a resource's slug names (decision D5).
//!
//! It differs between sites: its path and the names of its fields are settings. Its failures never fail a listing; unknown
//! values are null.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;
use url::Url;

use super::{CONCURRENCY, Connection, GID_MAX_AGE, HOLD_OFF, HpcUserApi, HpcUserError, answer};
use crate::config;
use crate::upstream::UpstreamError;
use program::lock;

/// An unknown or incomplete user is requested again after this time: one request per user is too expensive for every
/// refresh.
pub const INCOMPLETE_MAX_AGE: Duration = Duration::from_mins(5);
/// Size limit of an answer, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// Placeholder for the user's name in the path.
const PLACEHOLDER: &str = "{username}";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIdentity {
    /// Unix UID, 1 to 4294967294.
    pub uid: Option<u32>,
    /// Never blank.
    pub email: Option<String>,
}

/// The configured user endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Segments, with the placeholder.
    path: Vec<String>,
    uid_field: String,
    email_field: String,
}

impl Endpoint {
    pub(super) fn new(settings: &config::HpcUserApi) -> Option<Self> {
        let path = settings.user_path.as_deref()?.trim_matches('/').split('/').map(String::from).collect();
        Some(Self { path, uid_field: settings.user_uid_field.clone(), email_field: settings.user_email_field.clone() })
    }

    fn url(&self, connection: &Connection, name: &str) -> Url {
        connection.url(self.path.iter().map(|segment| segment.replace(PLACEHOLDER, name)))
    }

    /// Reads an object. A field that is absent, null or invalid is `None`.
    fn read(&self, body: &Value) -> Result<UserIdentity, UpstreamError> {
        let Value::Object(user) = body else { return Err(UpstreamError::Invalid(String::from("it is not an object"))) };
        let email = user.get(&self.email_field).and_then(Value::as_str).map(str::trim);
        Ok(UserIdentity {
            uid: user.get(&self.uid_field).and_then(answer::posix_id),
            email: email.filter(|email| !email.is_empty()).map(String::from),
        })
    }
}

impl HpcUserApi {
    /// UID and e-mail address of each user, by name: exactly one entry for each name given.
    ///
    /// All fields are null without `hpc_user_api.user_path`, and for unknown users (404). When the endpoint fails, cached
    /// values remain in use, others are null, and a warning is logged. A complete answer is cached for [`GID_MAX_AGE`],
    /// others for [`INCOMPLETE_MAX_AGE`].
    pub async fn users<S: Into<String>>(&self, names: impl IntoIterator<Item = S>) -> HashMap<String, UserIdentity> {
        let names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        if let (Some(endpoint), Ok(connection)) = (&self.user_endpoint, &self.connection) {
            self.refresh_users(&names, endpoint, connection).await;
        }
        let cache = lock(&self.users);
        names
            .into_iter()
            .map(|name| {
                let user = cache.get(&name).cloned().unwrap_or_default();
                (name, user)
            })
            .collect()
    }

    /// Updates the cache for `names`, as far as the endpoint answers.
    async fn refresh_users(&self, names: &BTreeSet<String>, endpoint: &Endpoint, connection: &Connection) {
        let due = lock(&self.users).due(names, Instant::now());
        let exchange = |name| async move {
            // Fails only if the semaphore is closed, which it never is.
            let _turn = self.exchanges.acquire().await;
            user(endpoint, connection, name).await
        };
        let exchanges: Vec<_> = due.into_iter().map(exchange).collect();
        let mut exchanges = futures::stream::iter(exchanges).buffer_unordered(CONCURRENCY);
        let mut failed = BTreeSet::new();
        let mut failure = None;
        while let Some((name, outcome)) = exchanges.next().await {
            match outcome {
                Ok(user) => {
                    let complete = user.uid.is_some() && user.email.is_some();
                    let age = if complete { GID_MAX_AGE } else { INCOMPLETE_MAX_AGE };
                    lock(&self.users).put(name, user, Instant::now() + age);
                }
                Err(error) => {
                    let concerns_all = error.concerns_all();
                    failed.insert(name);
                    failure = Some(error);
                    if concerns_all {
                        break;
                    }
                }
            }
        }
        let Some(failure) = failure else { return };
        let mut cache = lock(&self.users);
        let now = Instant::now();
        let unanswered = cache.due(names, now);
        warn!(
            error = &failure as &dyn Error,
            users = unanswered.len(),
            "the user endpoint fails; UIDs and e-mail addresses that are not cached are null"
        );
        for name in unanswered {
            let known = cache.get(name).cloned().unwrap_or_default();
            // Users whose request failed come after those that were not requested; otherwise they would fail first each time.
            let pause = if failed.contains(name) { INCOMPLETE_MAX_AGE } else { HOLD_OFF };
            cache.put(name, known, now + pause);
        }
    }
}

/// Requests one user; returns the name with the outcome.
async fn user<'a>(
    endpoint: &Endpoint,
    connection: &Connection,
    name: &'a str,
) -> (&'a str, Result<UserIdentity, HpcUserError>) {
    // These would change the path.
    if matches!(name, "" | "." | "..") {
        return (name, Ok(UserIdentity::default()));
    }
    let url = endpoint.url(connection, name);
    let outcome = connection.get(&url, MAX_BODY).await.and_then(|answer| {
        let read = match answer.status {
            StatusCode::OK => answer.json().and_then(|body| endpoint.read(&body)),
            StatusCode::NOT_FOUND => Ok(UserIdentity::default()),
            status => Err(UpstreamError::Status(status)),
        };
        Ok(read.map_err(|cause| connection.error(&url, cause))?)
    });
    (name, outcome)
}
