//! The realm over the network: its keys, kept current without asking it too often.
//!
//! One fetch runs at a time, in a task of its own (a caller who leaves does not end it), and all who need it wait for it.
//! By age, keys are used as they are, then renewed in the background, then before use, and at last given up:
//!
//! - below [`RENEW_AFTER`]: used;
//! - below [`RENEW_FIRST_AFTER`]: used, and a renewal is started;
//! - below [`GIVE_UP_AFTER`]: a renewal comes first, but when the realm fails or is slow the old keys serve;
//! - older: nobody is judged by them.
//!
//! A token with an unknown key starts a renewal too, at most one in [`FLOOR`]. After a failure none starts within
//! [`AFTER_FAILURE`]: who has keys to be judged by goes on with them, who has none waits for that renewal, so that the first
//! caller after the realm is back is let in.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use http::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use url::Url;

use super::discovery::{self, Endpoints};
use super::keys::KeySet;
use super::{KeysStanding, SetupError};
use crate::config;
use crate::metrics;
use crate::transport::{Transport, USER_AGENT};
use crate::upstream::{ExchangeError, Upstream, UpstreamError};
use program::error_chain;

/// Age of the keys at which they are renewed in the background.
pub(super) const RENEW_AFTER: Duration = Duration::from_mins(5);

/// Age of the keys at which they are renewed before use: how long a withdrawn key works at most while the realm answers.
pub(super) const RENEW_FIRST_AFTER: Duration = Duration::from_mins(10);

/// Age of the keys at which they are not used any more: how long the realm may be down before callers are turned away.
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// Time between two renewals for unknown keys.
pub(super) const FLOOR: Duration = Duration::from_secs(30);

/// Time between a failure and the next attempt. Within an attempt, and between them, [`Upstream`] spares the realm.
pub(super) const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// How long a caller waits for a renewal while there are old keys that will do.
const PATIENCE: Duration = Duration::from_secs(2);

/// Deadline of one exchange with the realm.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of an answer. A realm's keys with their certificates take some thousands.
pub(super) const MAX_BODY: usize = 512 * 1024;

/// The realm whose tokens are accepted.
#[derive(Debug)]
pub(super) struct Realm {
    issuer: Url,
    upstream: Upstream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Current>>,
    /// Closed when the renewal in progress has ended.
    renewal: Option<watch::Receiver<()>>,
    /// The last attempt, if it failed.
    failure: Option<(Instant, Arc<ExchangeError>)>,
    /// When an unknown key last started a renewal.
    asked_for_unknown: Option<Instant>,
}

impl State {
    /// The keys, if they may still be used.
    fn usable(&self) -> Option<&Arc<Current>> {
        self.current.as_ref().filter(|current| current.fetched.elapsed() < GIVE_UP_AFTER)
    }
}

/// What the realm said.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) keys: KeySet,
    /// Where to ask about single tokens.
    pub(super) introspection: Url,
}

/// What the realm said last.
#[derive(Debug)]
pub(super) struct Current {
    found: Found,
    pub(super) fetched: Instant,
    /// Counts the renewals.
    pub(super) generation: u64,
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
    pub(super) fn new(auth: &config::Auth) -> Result<Arc<Self>, SetupError> {
        let issuer = issuer(&auth.keycloak_url, &auth.keycloak_realm).map_err(SetupError::Realm)?;
        let upstream = Upstream::new("Keycloak", &transport(auth.verify_ssl, auth.socks_proxy.clone()))?;
        Ok(Arc::new(Self { issuer, upstream, state: Mutex::default() }))
    }

    /// `iss` of the realm's tokens.
    pub(super) fn issuer(&self) -> &str {
        self.issuer.as_str()
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The keys to judge by; an error when there are none that may still be used.
    pub(super) async fn keys(self: &Arc<Self>) -> Result<Arc<Current>, Arc<ExchangeError>> {
        let current = self.state().current.clone();
        let age = current.as_ref().map(|current| current.fetched.elapsed());
        match (current, age) {
            (Some(current), Some(age)) if age < RENEW_AFTER => return Ok(current),
            (Some(current), Some(age)) if age < RENEW_FIRST_AFTER => {
                self.renew(Cause::Age);
                return Ok(current);
            }
            (Some(_), Some(age)) if age < GIVE_UP_AFTER => {
                if let Some(renewal) = self.renew(Cause::Age) {
                    // Past that, the old keys do.
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

    /// The keys after a renewal for the sake of an unknown one, if one is allowed now; else those there are.
    pub(super) async fn newer_keys(self: &Arc<Self>) -> Result<Arc<Current>, Arc<ExchangeError>> {
        if let Some(renewal) = self.renew(Cause::UnknownKey) {
            ended(renewal).await;
        }
        self.usable()
    }

    /// How the keys stand.
    pub(super) fn standing(&self) -> KeysStanding {
        let state = self.state();
        let age = state.current.as_ref().map(|current| current.fetched.elapsed());
        KeysStanding { age, usable: state.usable().is_some() }
    }

    /// Starts a renewal for which nobody waits, if one is allowed now.
    pub(super) fn prompt(self: &Arc<Self>) {
        drop(self.renew(Cause::Age));
    }

    fn usable(&self) -> Result<Arc<Current>, Arc<ExchangeError>> {
        let state = self.state();
        state.usable().cloned().ok_or_else(|| {
            state.failure.as_ref().map_or_else(
                || Arc::new(self.upstream.error(Method::GET, &self.issuer, UpstreamError::TimedOut)),
                |(_, error)| error.clone(),
            )
        })
    }

    /// The renewal in progress, or a new one if it is allowed now.
    fn renew(self: &Arc<Self>, cause: Cause) -> Option<watch::Receiver<()>> {
        let mut state = self.state();
        if let Some(renewal) = &state.renewal
            && renewal.has_changed().is_ok()
        {
            return Some(renewal.clone());
        }
        let pause = state.failure.as_ref().map_or(Duration::ZERO, |(at, _)| AFTER_FAILURE.saturating_sub(at.elapsed()));
        if !pause.is_zero() && state.usable().is_some() {
            return None;
        }
        if cause == Cause::UnknownKey {
            if state.asked_for_unknown.is_some_and(|at| at.elapsed() < FLOOR) {
                return None;
            }
            state.asked_for_unknown = Some(Instant::now());
        }
        let (running, renewal) = watch::channel(());
        state.renewal = Some(renewal.clone());
        drop(state);
        let realm = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let outcome = realm.whole(realm.fetch()).await;
            realm.store(outcome);
            drop(running);
        });
        Some(renewal)
    }

    /// The outcome of a fetch, even if that panics: who waits for a renewal has to learn that it failed, and the next one
    /// has to wait its time.
    async fn whole(&self, fetch: impl Future<Output = Result<Found, ExchangeError>>) -> Result<Found, ExchangeError> {
        // The panic itself is reported where it happens.
        AssertUnwindSafe(fetch).catch_unwind().await.unwrap_or_else(|_| {
            let fault = UpstreamError::Invalid(String::from("reading it was cut short by a fault of this program"));
            Err(self.upstream.error(Method::GET, &self.issuer, fault))
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
                state.current = Some(Arc::new(Current { found, fetched: Instant::now(), generation }));
            }
            Err(error) => {
                let age = state.current.as_ref().map(|current| current.fetched.elapsed().as_secs());
                warn!(error = %error_chain(&error), age_of_keys_s = age, "the realm's keys cannot be fetched");
                state.failure = Some((Instant::now(), Arc::new(error)));
            }
        }
    }

    /// Asks the realm where its keys are, and for the keys.
    pub(super) async fn fetch(&self) -> Result<Found, ExchangeError> {
        let Endpoints { keys: url, introspection } = self.discover().await?;
        let answer = self.upstream.exchange(self.upstream.get(url.clone()), MAX_BODY).await?;
        let fault = |fault| self.upstream.error(Method::GET, &url, fault);
        if answer.status != StatusCode::OK {
            return Err(fault(UpstreamError::Status(answer.status)));
        }
        let document: Value = answer.json().map_err(fault)?;
        let keys = KeySet::read(&document)
            .ok_or_else(|| fault(UpstreamError::Invalid(String::from("it has no list of keys"))))?;
        Ok(Found { keys, introspection })
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
        // No step under the lock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the realm is reached.
fn transport(verify_tls: bool, proxy: Option<Url>) -> Transport {
    Transport { verify_tls, proxy, user_agent: USER_AGENT.to_owned(), timeout: TIMEOUT }
}

/// Waits until a renewal has ended, however.
async fn ended(mut renewal: watch::Receiver<()>) {
    // Nothing is ever sent: an error is the end of the sender.
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
    async fn a_fetch_that_panics_is_a_failed_one() {
        let realm = Realm {
            issuer: Url::parse("https://idp.example.org/realms/cscs").unwrap(),
            upstream: Upstream::new("Keycloak", &transport(true, None)).unwrap(),
            state: Mutex::default(),
        };
        let outcome = realm.whole(async { panic!("by the test") }).await;
        realm.store(outcome);
        assert!(realm.usable().unwrap_err().to_string().contains("gives no usable answer"));
        assert!(realm.state().failure.is_some());
    }

    #[test]
    fn the_issuer_has_no_doubled_slash() {
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
