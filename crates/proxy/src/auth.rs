//! Inbound authentication: a caller shows an access token of one Keycloak realm.
//!
//! What makes a token good is in [`token`] (its form), [`claims`] (what it says) and [`keys`] (who signed it); all three
//! are pure. [`realm`] keeps the realm's keys current and asks it about single tokens. A token is refused as soon as one
//! rule refuses it, so a bad one costs the realm nothing. Callers are told which rule that was, never what a library said.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::{FromRef, FromRequestParts};
use http::HeaderMap;
use http::request::Parts;
use thiserror::Error;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::config;
use crate::transport::TransportError;
use crate::upstream::{ExchangeError, Upstream};
use program::Clock;
use program::error_chain;

mod claims;
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

pub use keys::KeySummary;
pub use refusal::{AuthError, Quoted, Refusal, Rejection};

use claims::Rules;
use introspection::Introspection;
use keys::Unfit;
use realm::Realm;
use verdicts::{Verdict, Verdicts};

/// Name of the caller when authentication is disabled.
pub const DEV_USER: &str = "dev_user";

/// How long a verified token needs no second verification; its `exp` is checked at each use all the same.
const VERDICT_FOR: Duration = Duration::from_mins(1);

/// The same with introspection: how long a revoked token may go on working.
const INTROSPECTED_FOR: Duration = Duration::from_secs(30);

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The claim `preferred_username`, not blank; [`DEV_USER`] when authentication is disabled.
    pub username: String,
    /// Those of `callbacks.required_roles` that the caller lacks.
    pub missing_for_callbacks: Vec<String>,
}

impl Caller {
    /// The one when authentication is disabled, who may do everything.
    fn developer() -> Self {
        Self { username: DEV_USER.to_owned(), missing_for_callbacks: Vec::new() }
    }
}

/// Where a request's caller is noted, for the log: a request carries it in its extensions.
#[derive(Debug, Clone, Default)]
pub struct CallerSlot(Arc<OnceLock<String>>);

impl CallerSlot {
    /// The caller's name, once the caller is known.
    pub fn username(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// Judges who may call. One for the process: it keeps the realm's keys.
#[derive(Debug)]
pub struct Verifier(Option<Guard>);

/// What a verifier with authentication enabled knows.
#[derive(Debug)]
struct Guard {
    realm: Arc<Realm>,
    realm_name: String,
    rules: Rules,
    introspection: Option<Introspection>,
    verdicts: Verdicts,
    clock: Clock,
}

/// Settings of `auth` with which nobody could be judged.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The realm's URL cannot be made.
    #[error("auth.keycloak_url and auth.keycloak_realm make no realm: {0}")]
    Realm(&'static str),
    /// Introspection without credentials.
    #[error("auth.introspection needs auth.keycloak_client_id and auth.keycloak_client_secret")]
    Introspection,
    /// The connection cannot be set up.
    #[error("Keycloak cannot be asked")]
    Transport(#[from] TransportError),
}

/// How the realm's keys stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeysStanding {
    /// Time since they were fetched; `None`: never.
    pub age: Option<Duration>,
    /// Whether callers are judged by them.
    pub usable: bool,
}

/// What the realm has, for the command `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealmReport {
    /// The realm, as `iss` in its tokens must name it.
    pub issuer: String,
    /// The keys whose signatures are accepted; when there are none, every token is refused.
    pub keys: Vec<KeySummary>,
    /// How many published keys are of no use here: for encryption, too short, or of an unknown type.
    pub skipped: usize,
}

impl Verifier {
    /// Sets up the judge. Nothing is sent yet; when authentication is disabled a warning says so.
    pub fn new(auth: &config::Auth, clock: Clock) -> Result<Self, SetupError> {
        if auth.disable_auth {
            warn!(
                "AUTHENTICATION IS DISABLED (auth.disable_auth): everybody who reaches this port reads everything, \
                 as `{DEV_USER}`. For development only"
            );
            return Ok(Self(None));
        }
        let introspection = auth.introspection.then(|| Introspection::new(auth)).transpose()?;
        let realm = Realm::new(auth)?;
        Ok(Self(Some(Guard {
            rules: Rules {
                issuer: realm.issuer().to_owned(),
                audience: auth.keycloak_client_id.clone(),
                required_roles: auth.required_roles.clone(),
                callback_roles: auth.callback_roles.clone(),
            },
            realm,
            realm_name: auth.keycloak_realm.clone(),
            introspection,
            verdicts: Verdicts::default(),
            clock,
        })))
    }

    /// Whether callers are judged at all.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Judges a request by its headers.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let Some(guard) = &self.0 else { return Ok(Caller::developer()) };
        guard.judge(headers).await
    }

    /// Fetches the realm's keys, so that the first caller need not wait. A failure is logged and tried again on demand.
    pub async fn warm(&self) {
        if let Some(guard) = &self.0 {
            // The refresh itself logs what went wrong.
            let _ = guard.realm.keys().await;
        }
    }

    /// How the realm's keys stand; `None`: authentication is disabled.
    pub fn keys(&self) -> Option<KeysStanding> {
        self.0.as_ref().map(|guard| guard.realm.standing())
    }

    /// The realm, unless authentication is disabled.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.0.as_ref().map(|guard| guard.realm.upstream())
    }

    /// Has the keys fetched, without waiting, if there are none to judge by.
    pub fn prompt(&self) {
        if let Some(guard) = &self.0
            && !guard.realm.standing().usable
        {
            guard.realm.prompt();
        }
    }

    /// Asks the realm for its keys and, with introspection, whether it accepts the client's credentials.
    /// `None`: authentication is disabled.
    pub async fn check(&self) -> Result<Option<RealmReport>, ExchangeError> {
        let Some(guard) = &self.0 else { return Ok(None) };
        let found = guard.realm.fetch().await?;
        if let Some(introspection) = &guard.introspection {
            // No token at all is known to be inactive; an error says that the question itself is refused.
            introspection.is_active(&guard.realm, &found.introspection, "none").await?;
        }
        Ok(Some(RealmReport {
            issuer: guard.realm.issuer().to_owned(),
            keys: found.keys.summary(),
            skipped: found.keys.skipped(),
        }))
    }

    /// The answer to a caller who was not admitted.
    pub fn rejection(&self, error: &AuthError) -> Rejection {
        match &self.0 {
            Some(guard) => Rejection::new(error, &guard.realm_name, guard.realm.issuer()),
            None => Rejection::new(error, "", ""),
        }
    }
}

impl Guard {
    async fn judge(&self, headers: &HeaderMap) -> Result<Caller, AuthError> {
        let arrived = Instant::now();
        let text = match token::bearer(headers) {
            Ok(text) => text,
            Err(refusal) => {
                info!(reason = %refusal, "caller refused");
                return Err(refusal.into());
            }
        };
        let digest = verdicts::digest(text);
        let now = self.now();
        if let Some((verdict, generation)) = self.verdicts.recall(&digest, now) {
            // Asked for also here, so that keys age while one caller comes again and again.
            let keys = self.realm.keys().await.map_err(AuthError::Undecidable)?;
            if keys.generation == generation {
                return verdict.outcome();
            }
        }
        let token = match token::Token::parse(text) {
            Ok(token) => token,
            Err(refusal) => {
                info!(reason = %refusal, "caller refused");
                return Err(refusal.into());
            }
        };
        let outcome = self.judge_token(&token, digest, arrived, now).await;
        if let Err(error) = &outcome {
            // Possibly forged, hence `claimed` and quoted.
            let claimed = token.claims.get("preferred_username").and_then(|name| name.as_str()).map(Quoted::new);
            let claimed = claimed.as_ref().map(tracing::field::display);
            info!(claimed_username = claimed, reason = %error_chain(error), "caller refused");
        }
        outcome
    }

    async fn judge_token(
        &self,
        token: &token::Token<'_>,
        digest: verdicts::Digest,
        arrived: Instant,
        now: i64,
    ) -> Result<Caller, AuthError> {
        let approved = self.rules.check(&token.claims, now)?;
        let mut found = self.realm.keys().await.map_err(AuthError::Undecidable)?;
        let mut outcome = found.keys.verify(token);
        // Keys that came after the request did need no second look.
        if matches!(outcome, Err(Unfit::UnknownKey)) && found.fetched < arrived {
            found = self.realm.newer_keys().await.map_err(AuthError::Undecidable)?;
            outcome = found.keys.verify(token);
        }
        outcome.map_err(|unfit| match unfit {
            Unfit::UnknownKey => Refusal::UnknownKey,
            Unfit::Refused(refusal) => refusal,
        })?;
        self.rules.check_roles(&token.claims)?;
        let missing_for_callbacks = self.rules.missing_for_callbacks(&token.claims);
        let caller = Caller { username: approved.username, missing_for_callbacks };
        let (verdict, lasting) = match &self.introspection {
            None => (Verdict::Admitted(caller), VERDICT_FOR),
            Some(introspection) => {
                let active = introspection.is_active(&self.realm, &found.introspection, token.text).await;
                let active = active.map_err(|error| AuthError::Undecidable(Arc::new(error)))?;
                (if active { Verdict::Admitted(caller) } else { Verdict::Inactive }, INTROSPECTED_FOR)
            }
        };
        self.verdicts.remember(digest, verdict.clone(), found.generation, approved.expires, lasting);
        verdict.outcome()
    }

    /// Seconds since 1970.
    fn now(&self) -> i64 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

/// Judges the request before the handler runs; the state must give the verifier.
impl<S> FromRequestParts<S> for Caller
where
    Arc<Verifier>: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let verifier = Arc::<Verifier>::from_ref(state);
        let caller = verifier.caller(&parts.headers).await.map_err(|error| {
            if let AuthError::Undecidable(source) = &error {
                error!(error = error_chain(&**source), "a caller cannot be judged");
            }
            verifier.rejection(&error)
        })?;
        if let Some(slot) = parts.extensions.get::<CallerSlot>() {
            // An error says that it is noted already.
            let _ = slot.0.set(caller.username.clone());
        }
        Ok(caller)
    }
}
