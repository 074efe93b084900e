//! The machine token: client credentials at the identity provider, kept and renewed ahead of its expiry.
//!
//! Absent on purpose: refresh tokens (a client-credentials grant has none) and a background task. A token is renewed
//! by the call that finds it due; whoever calls meanwhile goes on with the old one while that is still valid.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use token_response::{Denied, Granted};
use tokio::time::Instant;
use tracing::{debug, warn};
use url::Url;

use crate::metrics;
use crate::upstream::{ExchangeError, Upstream, UpstreamError, public_part};

#[cfg(test)]
pub(crate) mod tests;

/// After a failed renewal a token that is still valid is used without another attempt for this long, so that a token
/// endpoint that hangs does not delay every request.
pub const RENEWAL_HOLD_OFF: Duration = Duration::from_secs(30);
/// The largest answer read, in bytes: tokens that carry many roles reach some tens of kilobytes.
const MAX_BODY: usize = 256 * 1024;

/// A machine token as the value of an `Authorization` header. Shown nowhere.
#[derive(Debug, Clone)]
pub struct Token(Arc<HeaderValue>);

impl Token {
    /// The value of the `Authorization` header, `Bearer …`, marked as sensitive.
    pub fn authorization(&self) -> HeaderValue {
        HeaderValue::clone(&self.0)
    }
}

/// Why there is no machine token. Neither the client's secret nor the answer's body is ever part of it.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The token endpoint is out of reach, or its answer is not what RFC 6749 says.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The client is unknown, its secret is wrong, or it may not use client credentials.
    #[error(
        "the token endpoint {url} refuses the client ({code}): check HPC_USER_CLIENT_ID and HPC_USER_CLIENT_SECRET, \
         and that the identity provider allows this client the client credentials grant"
    )]
    ClientRefused {
        /// The token endpoint.
        url: String,
        /// The error code of RFC 6749, or `401`.
        code: &'static str,
    },
    /// The client may not ask for this scope.
    #[error("the token endpoint {url} refuses the scope (invalid_scope): check HPC_USER_OIDC_SCOPE")]
    ScopeRefused {
        /// The token endpoint.
        url: String,
    },
    /// What answers is not a token endpoint, or none for client credentials.
    #[error("{url} takes no request for a token by client credentials ({code}): check HPC_USER_OIDC_TOKEN_URL")]
    NotATokenEndpoint {
        /// The configured URL.
        url: String,
        /// The error code of RFC 6749, or the status.
        code: &'static str,
    },
}

/// The machine token of one client at one token endpoint.
#[derive(Debug)]
pub struct MachineToken {
    upstream: Upstream,
    url: Url,
    client_id: String,
    client_secret: SecretString,
    scope: String,
    state: Mutex<State>,
    /// Held by the one call that renews.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    failure: Option<(Instant, Arc<TokenError>)>,
}

#[derive(Debug)]
struct Held {
    token: Token,
    renew_at: Instant,
    expires_at: Instant,
}

/// What is known of the token at one moment.
enum Standing {
    Fresh(Token),
    Due(Token),
    Nothing,
}

impl State {
    fn standing(&self, now: Instant) -> Standing {
        let Some(held) = self.held.as_ref().filter(|held| now < held.expires_at) else { return Standing::Nothing };
        let held_off = self.failure.as_ref().is_some_and(|(at, _)| now < *at + RENEWAL_HOLD_OFF);
        if now < held.renew_at || held_off {
            Standing::Fresh(held.token.clone())
        } else {
            Standing::Due(held.token.clone())
        }
    }
}

impl MachineToken {
    /// Sets up the token of a client. Nothing is sent yet. A blank `scope` is not sent at all.
    pub fn new(upstream: Upstream, url: Url, client_id: String, client_secret: SecretString, scope: String) -> Self {
        Self {
            upstream,
            url,
            client_id,
            client_secret,
            scope,
            state: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
        }
    }

    /// The token endpoint.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// A token that is valid now: the one at hand, or a new one when that is due, expired or [invalidated].
    ///
    /// One renewal runs at a time. Calls that have no valid token wait for it and share its outcome, also its error.
    /// While the token endpoint is down, the token at hand is given out until it really expires.
    ///
    /// [invalidated]: Self::invalidate
    pub async fn get(&self) -> Result<Token, Arc<TokenError>> {
        let asked = Instant::now();
        let standing = self.state().standing(asked);
        match standing {
            Standing::Fresh(token) => Ok(token),
            Standing::Due(token) => {
                let Ok(_turn) = self.renewing.try_lock() else { return Ok(token) };
                self.renew_unless_done(asked).await.or_else(|error| self.make_do(error))
            }
            Standing::Nothing => {
                let _turn = self.renewing.lock().await;
                self.renew_unless_done(asked).await
            }
        }
    }

    /// Forgets a token that its audience has refused, so that the next [`get`](Self::get) asks for a new one. Does
    /// nothing if another token has taken its place already.
    pub fn invalidate(&self, token: &Token) {
        let mut state = self.state();
        if state.held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.token.0, &token.0)) {
            debug!(upstream = self.upstream.name(), "the machine token was refused, a new one is needed");
            state.held = None;
        }
    }

    /// Renews, unless another call did so, or failed to, since `asked`. The caller holds `renewing`.
    async fn renew_unless_done(&self, asked: Instant) -> Result<Token, Arc<TokenError>> {
        {
            let state = self.state();
            if let Standing::Fresh(token) = state.standing(Instant::now()) {
                return Ok(token);
            }
            if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at > asked) {
                return Err(Arc::clone(error));
            }
        }
        // Counted from before the request, so that the token never seems to live longer than its issuer says.
        let sent = Instant::now();
        let outcome = self.request().await;
        metrics::token_renewal(outcome.is_ok());
        let mut state = self.state();
        match outcome {
            Ok((token, granted)) => {
                let life = granted.lifetime;
                debug!(upstream = self.upstream.name(), life_seconds = life.as_secs(), "new machine token");
                let renew_at = sent + granted.renew_after();
                state.held = Some(Held { token: token.clone(), renew_at, expires_at: sent + life });
                state.failure = None;
                Ok(token)
            }
            Err(error) => {
                let error = Arc::new(error);
                state.failure = Some((Instant::now(), Arc::clone(&error)));
                Err(error)
            }
        }
    }

    /// The token at hand, if it outlived a failed renewal.
    fn make_do(&self, error: Arc<TokenError>) -> Result<Token, Arc<TokenError>> {
        match self.state().standing(Instant::now()) {
            Standing::Nothing => Err(error),
            Standing::Fresh(token) | Standing::Due(token) => {
                warn!(
                    upstream = self.upstream.name(),
                    error = &error as &dyn Error,
                    "the machine token cannot be renewed; the one at hand is used until it expires"
                );
                Ok(token)
            }
        }
    }

    async fn request(&self) -> Result<(Token, Granted), TokenError> {
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_id", &self.client_id),
            ("client_secret", self.client_secret.expose_secret()),
        ];
        if !self.scope.trim().is_empty() {
            form.push(("scope", &self.scope));
        }
        let request = self.upstream.post(self.url.clone()).header(http::header::ACCEPT, "application/json").form(&form);
        let answer = self.upstream.exchange(request, MAX_BODY).await?;
        let url = || public_part(&self.url);
        let fault = match token_response::read(answer.status.as_u16(), &answer.body) {
            Ok(granted) => match HeaderValue::from_str(&format!("Bearer {}", granted.access_token.expose_secret())) {
                Ok(mut authorization) => {
                    authorization.set_sensitive(true);
                    return Ok((Token(Arc::new(authorization)), granted));
                }
                Err(_) => UpstreamError::Invalid("`access_token` does not fit into a header".to_owned()),
            },
            Err(Denied::Client(code)) => return Err(TokenError::ClientRefused { url: url(), code }),
            Err(Denied::Scope) => return Err(TokenError::ScopeRefused { url: url() }),
            Err(Denied::Request(code)) => return Err(TokenError::NotATokenEndpoint { url: url(), code }),
            Err(Denied::Status(_)) => UpstreamError::Status(answer.status),
            Err(Denied::NotJson { line, column }) => UpstreamError::NotJson { line, column },
            Err(Denied::Unusable(what)) => UpstreamError::Invalid(what.to_owned()),
        };
        Err(self.upstream.error(Method::POST, &self.url, fault).into())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
