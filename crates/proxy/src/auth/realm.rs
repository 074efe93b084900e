//! Fetches the realm's keys and keeps them current with few requests.
//!
//! At most one renewal runs at a time, in its own task, so that it continues when a caller disconnects. All callers that
//! need it wait for it. What happens depends on the age of the keys:
//!
//! - below [`RENEW_AFTER`]: they are used;
//! - below [`RENEW_FIRST_AFTER`]: they are used, and a renewal starts in the background;
//! - below [`GIVE_UP_AFTER`]: they are renewed before use; if the realm fails or is slow, the old keys are used;
//! - older: they are not used.
//!
//! A token with an unknown key starts a renewal too, at most once in [`FLOOR`]. After a failure the next renewal starts
//! [`AFTER_FAILURE`] later. Meanwhile old keys remain in use; callers for whom there are none wait for that renewal, so that
//! the first caller after an outage succeeds.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::FutureExt;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, info, warn};
use url::Url;

use super::discovery::{self, Endpoints};
use super::keys::KeySet;
use super::{KeysStatus, SetupError};
use crate::config;
use crate::metrics;
use crate::transport::Transport;
use crate::upstream::{ExchangeError, Upstream, UpstreamError};
use program::lock;
use program::{Clock, error_chain};

/// Age of the keys at which they are renewed in the background.
pub(super) const RENEW_AFTER: Duration = Duration::from_mins(5);

/// Age of the keys at which they are renewed before use: how long a withdrawn key remains accepted while the realm is up.
pub(super) const RENEW_FIRST_AFTER: Duration = Duration::from_mins(10);

/// Age of the keys from which they are not used: how long the realm may be down before callers are refused.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// Least time between two renewals for unknown keys.
pub(super) const FLOOR: Duration = Duration::from_secs(30);

/// Time between a failure and the next renewal, in addition to the retries and the circuit breaker of [`Upstream`].
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long a caller waits for a renewal while there are old keys to fall back to.
const PATIENCE: Duration = Duration::from_secs(2);

/// Timeout of one exchange with the realm.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Size limit of an answer, in bytes. A realm's keys with their certificates take a few kB.
pub(super) const MAX_BODY: usize = 512 * 1024;

/// The realm whose tokens are accepted.
#[derive(Debug)]
pub(super) struct Realm {
    issuer: Url,
    upstream: Upstream,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Current>>,
    /// Closed when the current renewal ends.
    renewal: Option<watch::Receiver<()>>,
    /// Time and error of the last renewal, if it failed.
    failure: Option<(Instant, Arc<ExchangeError>)>,
    /// When an unknown key last started a renewal.
    asked_for_unknown: Option<Instant>,
}

impl State {
    /// The keys, unless they are too old.
    fn usable(&self, now: Instant) -> Option<&Arc<Current>> {
        self.current.as_ref().filter(|current| current.age(now) < GIVE_UP_AFTER)
    }
}

/// The result of a renewal.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) keys: KeySet,
    pub(super) endpoints: Endpoints,
}

/// The result of the last successful renewal.
#[derive(Debug)]
pub(super) struct Current {
    found: Found,
    pub(super) fetched: Instant,
    /// Number of the renewal, from 1.
    pub(super) generation: u64,
}

impl Current {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetched)
    }
}

impl std::ops::Deref for Current {
    type Target = Found;

    fn deref(&self) -> &Found {
        &self.found
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Age,
    UnknownKey,
}

impl Realm {
    pub(super) fn new(auth: &config::Auth, clock: Clock) -> Result<Arc<Self>, SetupError> {
        let issuer = issuer(&auth.keycloak_url, &auth.keycloak_realm).map_err(SetupError::Realm)?;
        let upstream = Upstream::new("Keycloak", &Transport::new(auth.verify_ssl, auth.socks_proxy.clone(), TIMEOUT))?;
        Ok(Arc::new(Self { issuer, upstream, clock, state: Mutex::default() }))
    }

    /// The `iss` of the realm's tokens.
    pub(super) fn issuer(&self) -> &str {
        self.issuer.as_str()
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The current keys; an error if there are none that can be used.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<Current>, Arc<ExchangeError>> {
        let current = self.state().current.clone();
        let age = current.as_ref().map(|current| current.age(self.clock.instant()));
        match (current, age) {
            (Some(current), Some(age)) if age < RENEW_AFTER => return Ok(current),
            (Some(current), Some(age)) if age < RENEW_FIRST_AFTER => {
                self.renew(Cause::Age);
                return Ok(current);
            }
            (Some(_), Some(age)) if age < GIVE_UP_AFTER => {
                if let Some(renewal) = self.renew(Cause::Age) {
                    // After that time the old keys are used.
                    let _ = tokio::time::timeout(PATIENCE, ended(renewal)).await;
                }
            }
            _ => {
                if let Some(renewal) = self.renew(Cause::Age) {
                    ended(renewal).await;
                }
            }
        }
        self.usable()
    }

    /// The keys after a renewal because of an unknown key, if one may start now; otherwise the current keys.
    pub(super) async fn newer_keys(self: &Arc<Self>) -> Result<Arc<Current>, Arc<ExchangeError>> {
        if let Some(renewal) = self.renew(Cause::UnknownKey) {
            ended(renewal).await;
        }
        self.usable()
    }

    pub(super) fn keys_status(&self) -> KeysStatus {
        let state = self.state();
        let now = self.clock.instant();
        let age = state.current.as_ref().map(|current| current.age(now));
        KeysStatus { age, usable: state.usable(now).is_some() }
    }

    /// Starts a renewal in the background, if one may start now.
    pub(super) fn prompt(self: &Arc<Self>) {
        drop(self.renew(Cause::Age));
    }

    fn usable(&self) -> Result<Arc<Current>, Arc<ExchangeError>> {
        let state = self.state();
        state.usable(self.clock.instant()).cloned().ok_or_else(|| {
            state.failure.as_ref().map_or_else(
                || Arc::new(self.upstream.error(Method::GET, &self.issuer, UpstreamError::TimedOut)),
                |(_, error)| error.clone(),
            )
        })
    }

    /// The current renewal, or a new one if it may start now.
    fn renew(self: &Arc<Self>, cause: Cause) -> Option<watch::Receiver<()>> {
        let mut state = self.state();
        if let Some(renewal) = &state.renewal
            && renewal.has_changed().is_ok()
        {
            return Some(renewal.clone());
        }
        let now = self.clock.instant();
        let since = |at: Instant| now.saturating_duration_since(at);
        let pause = state.failure.as_ref().map_or(Duration::ZERO, |(at, _)| AFTER_FAILURE.saturating_sub(since(*at)));
        if !pause.is_zero() && state.usable(now).is_some() {
            return None;
        }
        if cause == Cause::UnknownKey {
            if state.asked_for_unknown.is_some_and(|at| since(at) < FLOOR) {
                return None;
            }
            state.asked_for_unknown = Some(now);
        }
        let (running, renewal) = watch::channel(());
        state.renewal = Some(renewal.clone());
        drop(state);
        let realm = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let outcome = realm.catch_panic(realm.fetch()).await;
            realm.store(outcome);
            drop(running);
        });
        Some(renewal)
    }

    /// Turns a panic of a fetch into an error, so that the renewal counts as failed.
    async fn catch_panic(
        &self,
        fetch: impl Future<Output = Result<Found, ExchangeError>>,
    ) -> Result<Found, ExchangeError> {
        // The panic hook reports the panic itself.
        AssertUnwindSafe(fetch).catch_unwind().await.unwrap_or_else(|_| {
            let cause = UpstreamError::Invalid(String::from("this program panicked while reading it"));
            Err(self.upstream.error(Method::GET, &self.issuer, cause))
        })
    }

    fn store(&self, outcome: Result<Found, ExchangeError>) {
        metrics::key_renewal(outcome.is_ok());
        let mut state = self.state();
        match outcome {
            Ok(found) => {
                let (generation, before) = match &state.current {
                    Some(current) => (current.generation + 1, Some(current.keys.summary())),
                    None => (1, None),
                };
                let now = found.keys.summary();
                if now.is_empty() {
                    warn!(issuer = %self.issuer, "the realm publishes no signing key: every token is refused");
                } else if before.as_ref() != Some(&now) {
                    let keys = now.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                    info!(issuer = %self.issuer, keys, "the realm's signing keys");
                }
                state.failure = None;
                state.current = Some(Arc::new(Current { found, fetched: self.clock.instant(), generation }));
            }
            Err(error) => {
                let age = state.current.as_ref().map(|current| current.age(self.clock.instant()).as_secs());
                warn!(error = %error_chain(&error), age_of_keys_s = age, "the realm's keys cannot be fetched");
                state.failure = Some((self.clock.instant(), Arc::new(error)));
            }
        }
    }

    /// Fetches the discovery document and the keys.
    pub(super) async fn fetch(&self) -> Result<Found, ExchangeError> {
        let endpoints = self.discover().await?;
        let url = endpoints.keys.clone();
        let answer = self.upstream.exchange(self.upstream.get(url.clone()), MAX_BODY).await?;
        let error = |cause| self.upstream.error(Method::GET, &url, cause);
        if answer.status != StatusCode::OK {
            return Err(error(UpstreamError::Status(answer.status)));
        }
        let document: Value = answer.json().map_err(error)?;
        let keys = KeySet::read(&document)
            .ok_or_else(|| error(UpstreamError::Invalid(String::from("it has no list of keys"))))?;
        Ok(Found { keys, endpoints })
    }

    async fn discover(&self) -> Result<Endpoints, ExchangeError> {
        let url = discovery::below(&self.issuer, &[".well-known", "openid-configuration"]);
        let document = match self.upstream.exchange(self.upstream.get(url.clone()), MAX_BODY).await {
            Ok(answer) if answer.status == StatusCode::OK => answer.json().unwrap_or(Value::Null),
            Ok(_) => Value::Null,
            Err(error) if matches!(error.cause, UpstreamError::Redirected(_) | UpstreamError::TooLarge(_)) => {
                Value::Null
            }
            Err(error) => return Err(error),
        };
        let endpoints = discovery::read(&document, &self.issuer);
        let endpoints =
            endpoints.map_err(|text| self.upstream.error(Method::GET, &url, UpstreamError::Invalid(text)))?;
        Ok(endpoints.unwrap_or_else(|| {
            debug!(%url, "no discovery document: Keycloak's fixed paths are used");
            discovery::fixed(&self.issuer)
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Waits for the end of a renewal, successful or not.
async fn ended(mut renewal: watch::Receiver<()>) {
    // Nothing is ever sent; an error means that the sender was dropped.
    let _ = renewal.changed().await;
}

/// `{keycloak_url without trailing slash}/realms/{realm}`.
fn issuer(keycloak_url: &Url, realm: &str) -> Result<Url, &'static str> {
    if !matches!(keycloak_url.scheme(), "http" | "https") {
        return Err("the URL must begin with http:// or https://");
    }
    if keycloak_url.query().is_some() || keycloak_url.fragment().is_some() {
        return Err("the URL must have neither a query nor a fragment");
    }
    if !keycloak_url.username().is_empty() || keycloak_url.password().is_some() {
        return Err("the URL must have no user name and no password");
    }
    if realm.trim().is_empty() || matches!(realm, "." | "..") {
        return Err("the realm needs a name");
    }
    let mut issuer = keycloak_url.clone();
    let path = issuer.path().trim_end_matches('/').to_owned();
    issuer.set_path(&path);
    match issuer.path_segments_mut() {
        Ok(mut segments) => segments.pop_if_empty().extend(["realms", realm]),
        Err(()) => return Err("the URL has no host"),
    };
    Ok(issuer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_fetch_counts_as_failed() {
        let realm = Realm {
            issuer: Url::parse("https://idp.example.org/realms/cscs").unwrap(),
            upstream: Upstream::new("Keycloak", &Transport::new(true, None, TIMEOUT)).unwrap(),
            clock: Clock::system(),
            state: Mutex::default(),
        };
        let outcome = realm.catch_panic(async { panic!("as the test wants") }).await;
        realm.store(outcome);
        assert!(realm.usable().unwrap_err().to_string().contains("returned no usable answer"));
        assert!(realm.state().failure.is_some());
    }

    #[test]
    fn the_issuer_is_built_from_url_and_realm() {
        let made = |url: &str, realm: &str| issuer(&Url::parse(url).unwrap(), realm).map(String::from);
        assert_eq!(made("https://idp.example.org", "cscs").unwrap(), "https://idp.example.org/realms/cscs");
        assert_eq!(made("https://idp.example.org/", "cscs").unwrap(), "https://idp.example.org/realms/cscs");
        assert_eq!(made("https://idp.example.org/auth/", "cscs").unwrap(), "https://idp.example.org/auth/realms/cscs");
        assert_eq!(made("https://idp.example.org/auth//", "cscs").unwrap(), "https://idp.example.org/auth/realms/cscs");
        assert_eq!(made("http://127.0.0.1:8080", "my realm").unwrap(), "http://127.0.0.1:8080/realms/my%20realm");
        assert_eq!(made("https://idp.example.org", "a/b").unwrap(), "https://idp.example.org/realms/a%2Fb");
        for (url, realm) in [
            ("ftp://idp.example.org", "cscs"),
            ("https://idp.example.org/?x=1", "cscs"),
            ("https://user:secret@idp.example.org", "cscs"),
            ("https://idp.example.org", " "),
            ("https://idp.example.org", ".."),
        ] {
            let error = made(url, realm).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
