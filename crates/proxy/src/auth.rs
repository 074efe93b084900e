//! Authentication of callers by access tokens of one Keycloak realm.
//!
//! A token is validated by [`token`] (format), [`claims`] and [`keys`] (signature), which are pure. [`realm`] fetches the
//! realm's keys and keeps them current; [`introspection`] asks the realm about single tokens, and adds claims that they lack. Validation stops at the first
//! failed rule, so an invalid token causes few requests to the realm. The answer names the rule, never a library's error text.
//!
//! [`code_flow`] is the sign-in of people with a browser, whose tokens are validated by the same modules.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::extract::{FromRef, FromRequestParts};
use http::HeaderMap;
use http::request::Parts;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::config;
use crate::transport::TransportError;
use crate::upstream::{ExchangeError, Upstream};
use program::Clock;
use program::error_chain;

mod claims;
mod code_flow;
mod discovery;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod introspection;
mod keys;
mod realm;
mod refusal;
#[cfg(test)]
mod tests;
mod token;
mod verdicts;

pub(crate) use code_flow::{Attempt, CodeFlow, Grant, GrantError};
pub use keys::KeySummary;
pub use refusal::{AuthError, Quoted, Refusal, Rejection};

use claims::Rules;
use introspection::Introspection;
use keys::Unfit;
use realm::{Current, Realm};
use verdicts::Verdicts;

/// User name of all callers when authentication is disabled.
pub const DEV_USER: &str = "dev_user";

/// How long the result for a token is cached. `exp` is checked at each use regardless.
const CACHED_FOR: Duration = Duration::from_mins(1);

/// The same with introspection: how long a revoked token may remain accepted.
const INTROSPECTED_FOR: Duration = Duration::from_secs(30);

/// The sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The claim `preferred_username`, never blank; [`DEV_USER`] when authentication is disabled.
    pub username: String,
    /// The roles of `callbacks.required_roles` that the caller lacks.
    pub missing_for_callbacks: Vec<String>,
    /// The roles of `provisioners.required_roles` that the caller lacks.
    pub missing_for_reports: Vec<String>,
}

impl Caller {
    /// The caller when authentication is disabled; has all roles.
    fn developer() -> Self {
        Self { username: DEV_USER.to_owned(), missing_for_callbacks: Vec::new(), missing_for_reports: Vec::new() }
    }
}

/// A request extension that receives the caller's name for the log.
#[derive(Debug, Clone, Default)]
pub struct CallerSlot(Arc<OnceLock<String>>);

impl CallerSlot {
    /// The caller's name, once authenticated.
    pub fn username(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Sets the caller's name, unless it is already set.
    pub(crate) fn set(&self, username: &str) {
        let _ = self.0.set(username.to_owned());
    }
}

/// Authenticates callers; caches the realm's keys. Empty when authentication is disabled.
#[derive(Debug)]
pub struct Verifier(Option<TokenVerifier>);

#[derive(Debug)]
struct TokenVerifier {
    realm: Arc<Realm>,
    realm_name: String,
    rules: Rules,
    introspection: Option<Introspection>,
    verdicts: Verdicts,
    clock: Clock,
}

/// Invalid settings of `auth`.
#[derive(Debug, Error)]
pub enum SetupError {
    #[error("invalid auth.keycloak_url or auth.keycloak_realm: {0}")]
    Realm(&'static str),
    #[error("auth.introspection needs auth.keycloak_client_id and auth.keycloak_client_secret")]
    Introspection,
    #[error("cannot set up the connection to Keycloak")]
    Transport(#[from] TransportError),
}

/// State of the realm's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysStatus {
    /// Time since they were fetched; `None` before that.
    pub age: Option<Duration>,
    /// Whether they are young enough to verify tokens.
    pub usable: bool,
}

/// What `check` reports about the realm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealmReport {
    /// The required `iss` of tokens.
    pub issuer: String,
    /// The keys whose signatures are accepted. Without any, every token is refused.
    pub keys: Vec<KeySummary>,
    /// Number of published keys that cannot be used: for encryption, too short, or of an unknown type.
    pub skipped: usize,
}

impl Verifier {
    /// Sends nothing yet. Logs a warning when authentication is disabled.
    pub fn new(auth: &config::Auth, clock: Clock) -> Result<Self, SetupError> {
        if auth.disable_auth {
            warn!(
                "AUTHENTICATION IS DISABLED (auth.disable_auth): everybody who can reach this port can read everything, \
                 as `{DEV_USER}`. For development only"
            );
            return Ok(Self(None));
        }
        let introspection = auth.introspection.then(|| Introspection::new(auth)).transpose()?;
        let realm = Realm::new(auth, clock.clone())?;
        Ok(Self(Some(TokenVerifier {
            rules: Rules {
                issuer: realm.issuer().to_owned(),
                audience: auth.keycloak_client_id.clone(),
                required_roles: auth.required_roles.clone(),
                callback_roles: auth.callback_roles.clone(),
                report_roles: auth.report_roles.clone(),
                introspected: auth.introspection,
            },
            realm,
            realm_name: auth.keycloak_realm.clone(),
            introspection,
            verdicts: Verdicts::default(),
            clock,
        })))
    }

    /// Whether authentication is enabled.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Authenticates a request by its headers.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let Some(verifier) = &self.0 else { return Ok(Caller::developer()) };
        verifier.authenticate(headers).await
    }

    /// Fetches the realm's keys, so that the first caller need not wait. After a failure they are fetched on demand.
    pub async fn warm(&self) {
        if let Some(verifier) = &self.0 {
            // Logs its failure.
            let _ = verifier.realm.keys().await;
        }
    }

    /// State of the realm's keys; `None` when authentication is disabled.
    pub fn keys(&self) -> Option<KeysStatus> {
        self.0.as_ref().map(|verifier| verifier.realm.keys_status())
    }

    /// The realm, unless authentication is disabled.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.0.as_ref().map(|verifier| verifier.realm.upstream())
    }

    /// Starts fetching the keys in the background if there are none that can be used.
    pub fn prompt(&self) {
        if let Some(verifier) = &self.0
            && !verifier.realm.keys_status().usable
        {
            verifier.realm.prompt();
        }
    }

    /// Fetches the realm's keys and, with introspection, tests the client's credentials. `None` when authentication is
    /// disabled.
    pub async fn check(&self) -> Result<Option<RealmReport>, ExchangeError> {
        let Some(verifier) = &self.0 else { return Ok(None) };
        let found = verifier.realm.fetch().await?;
        if let Some(introspection) = &verifier.introspection {
            // This token is inactive; an error means that the realm refused the request itself.
            introspection.ask(&verifier.realm, &found.endpoints.introspection, "none").await?;
        }
        Ok(Some(RealmReport {
            issuer: verifier.realm.issuer().to_owned(),
            keys: found.keys.summary(),
            skipped: found.keys.skipped(),
        }))
    }

    /// The answer to a caller who failed authentication.
    pub fn rejection(&self, error: &AuthError) -> Rejection {
        match &self.0 {
            Some(verifier) => Rejection::new(error, &verifier.realm_name, verifier.realm.issuer()),
            None => Rejection::new(error, "", ""),
        }
    }
}

impl TokenVerifier {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let arrived = self.clock.instant();
        let text = match token::bearer(headers) {
            Ok(text) => text,
            Err(refusal) => {
                info!(reason = %refusal, "caller refused");
                return Err(refusal.into());
            }
        };
        let digest = verdicts::digest(text);
        let now = self.now();
        if let Some((verdict, generation)) = self.verdicts.get(&digest, arrived, now) {
            // Also needed here, so that keys are renewed while the same caller sends requests.
            let keys = self.realm.keys().await.map_err(AuthError::Unavailable)?;
            if keys.generation == generation {
                return verdict;
            }
        }
        let token = match token::Token::parse(text) {
            Ok(token) => token,
            Err(refusal) => {
                info!(reason = %refusal, "caller refused");
                return Err(refusal.into());
            }
        };
        // Boxed, because it is rare: verdicts are cached.
        let outcome = Box::pin(self.verify(&token, digest, arrived, now)).await;
        if let Err(error) = &outcome {
            // May be forged, hence `claimed` and quoted.
            let claimed = token.claims.get("preferred_username").and_then(|name| name.as_str()).map(Quoted::new);
            let claimed = claimed.as_ref().map(tracing::field::display);
            info!(claimed_username = claimed, reason = %error_chain(error), "caller refused");
        }
        outcome
    }

    async fn verify(
        &self,
        token: &token::Token<'_>,
        digest: verdicts::Digest,
        arrived: Instant,
        now: i64,
    ) -> Result<Caller, AuthError> {
        let expires = self.rules.check(&token.claims, now)?;
        let to_complete = self.introspection.is_some() && self.rules.is_incomplete(&token.claims);
        if !to_complete {
            self.rules.username(&token.claims)?;
        }
        let found = self.verify_signature(token, arrived).await?;
        if !to_complete {
            self.rules.check_roles(&token.claims)?;
        }
        // Counted from before the realm is asked: the answer may be as old as that.
        let asked = self.clock.instant();
        let (verdict, cached_for) = match &self.introspection {
            None => (self.rules.admit(&token.claims, now), CACHED_FOR),
            Some(introspection) => {
                let claims = introspection.claims(&self.realm, &found.endpoints.introspection, token).await;
                let verdict = match claims.map_err(|error| AuthError::Unavailable(Arc::new(error)))? {
                    Some(claims) => self.rules.admit(&claims, now),
                    None => Err(Refusal::Inactive.into()),
                };
                (verdict, INTROSPECTED_FOR)
            }
        };
        self.verdicts.put(digest, verdict.clone(), found.generation, expires, (asked, asked + cached_for));
        verdict
    }

    /// Verifies that the realm signed the token; returns its keys.
    async fn verify_signature(&self, token: &token::Token<'_>, arrived: Instant) -> Result<Arc<Current>, AuthError> {
        let mut found = self.realm.keys().await.map_err(AuthError::Unavailable)?;
        let mut outcome = found.keys.verify(token);
        // Keys that were fetched after the request arrived are not fetched again.
        if matches!(outcome, Err(Unfit::UnknownKey)) && found.fetched < arrived {
            found = self.realm.newer_keys().await.map_err(AuthError::Unavailable)?;
            outcome = found.keys.verify(token);
        }
        outcome.map_err(|unfit| match unfit {
            Unfit::UnknownKey => Refusal::UnknownKey,
            Unfit::Refused(refusal) => refusal,
        })?;
        Ok(found)
    }

    /// Seconds since 1970.
    fn now(&self) -> i64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Authenticates the request before the handler runs.
impl<S> FromRequestParts<S> for Caller
where
    Arc<Verifier>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let verifier = Arc::<Verifier>::from_ref(state);
        let caller = verifier.caller(&parts.headers).await.map_err(|error| {
            if let AuthError::Unavailable(source) = &error {
                error!(error = error_chain(&**source), "cannot authenticate a caller");
            }
            verifier.rejection(&error)
        })?;
        if let Some(slot) = parts.extensions.get::<CallerSlot>() {
            slot.set(&caller.username);
        }
        Ok(caller)
    }
}
