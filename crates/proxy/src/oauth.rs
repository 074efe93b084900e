//! The machine token: obtained with client credentials from the identity provider, cached, and renewed before it expires.
//!
//! There are no refresh tokens (the client credentials grant has none) and no background task: the first call that finds the
//! token due renews it; other calls use the old token while it is valid.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};
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
use program::lock;

#[cfg(test)]
mod tests;

/// After a failed renewal, a valid token is used for this long before the next attempt, so that a hanging token endpoint
/// does not delay every request.
pub const RENEWAL_HOLD_OFF: Duration = Duration::from_secs(30);
/// Size limit of an answer, in bytes. Tokens with many roles reach tens of kilobytes.
const MAX_BODY: usize = 256 * 1024;

/// A machine token as the value of an `Authorization` header. Redacted in `Debug` output.
#[derive(Debug, Clone)]
pub struct Token(Arc<HeaderValue>);

impl Token {
    /// `Bearer …`, marked as sensitive.
    pub fn authorization(&self) -> HeaderValue {
        HeaderValue::clone(&self.0)
    }
}

/// No machine token could be obtained. Contains neither the client's secret nor the body of the answer.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The token endpoint cannot be reached, or its answer violates RFC 6749.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The client is unknown, its secret is wrong, or it may not use client credentials.
    #[error(
        "the token endpoint {url} refuses the client ({code}): check HPC_USER_CLIENT_ID and HPC_USER_CLIENT_SECRET, \
         and that the identity provider allows this client the client credentials grant"
    )]
    ClientRefused {
        url: String,
        /// The error code of RFC 6749, or `401`.
        code: &'static str,
    },
    /// The client may not use this scope.
    #[error("the token endpoint {url} refuses the scope (invalid_scope): check HPC_USER_OIDC_SCOPE")]
    ScopeRefused { url: String },
    /// The URL is not a token endpoint, or not one for client credentials.
    #[error("{url} does not accept requests for tokens by client credentials ({code}): check HPC_USER_OIDC_TOKEN_URL")]
    NotATokenEndpoint {
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
    /// Held by the call that renews the token.
    renewing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    failure: Option<(Instant, Arc<TokenError>)>,
}

#[derive(Debug)]
struct Current {
    token: Token,
    renew_at: Instant,
    expires_at: Instant,
}

enum Available {
    /// A valid token that need not be renewed yet.
    Fresh(Token),
    /// A valid token that is due for renewal.
    Due(Token),
    Nothing,
}

impl State {
    fn available(&self, now: Instant) -> Available {
        let Some(current) = self.current.as_ref().filter(|current| now < current.expires_at) else {
            return Available::Nothing;
        };
        let held_off = self.failure.as_ref().is_some_and(|(at, _)| now < *at + RENEWAL_HOLD_OFF);
        if now < current.renew_at || held_off {
            Available::Fresh(current.token.clone())
        } else {
            Available::Due(current.token.clone())
        }
    }
}

impl MachineToken {
    /// Sends nothing yet. A blank `scope` is never sent.
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

    /// A valid token: the cached one, or a new one if that is due, expired or [invalidated].
    ///
    /// One renewal runs at a time. Calls without a valid token wait for it and share its outcome, including errors. While
    /// the token endpoint is down, the cached token is used until it expires.
    ///
    /// [invalidated]: Self::invalidate
    pub async fn get(&self) -> Result<Token, Arc<TokenError>> {
        let asked = Instant::now();
        let available = self.state().available(asked);
        match available {
            Available::Fresh(token) => Ok(token),
            Available::Due(token) => {
                let Ok(_turn) = self.renewing.try_lock() else { return Ok(token) };
                self.renew_unless_done(asked).await.or_else(|error| self.fall_back(error))
            }
            Available::Nothing => {
                let _turn = self.renewing.lock().await;
                self.renew_unless_done(asked).await
            }
        }
    }

    /// Drops a token that the API has refused, so that the next [`get`](Self::get) requests a new one. Has no effect if it
    /// has been replaced already.
    pub fn invalidate(&self, token: &Token) {
        let mut state = self.state();
        if state.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.token.0, &token.0)) {
            debug!(upstream = self.upstream.name(), "the machine token was refused; requesting a new one");
            state.current = None;
        }
    }

    /// Renews the token, unless another call has done so or failed to since `asked`. The caller holds `renewing`.
    async fn renew_unless_done(&self, asked: Instant) -> Result<Token, Arc<TokenError>> {
        {
            let state = self.state();
            if let Available::Fresh(token) = state.available(Instant::now()) {
                return Ok(token);
            }
            if let Some((_, error)) = state.failure.as_ref().filter(|(at, _)| *at > asked) {
                return Err(Arc::clone(error));
            }
        }
        // The lifetime is counted from before the request, so that it is never overestimated.
        let sent = Instant::now();
        let outcome = self.request().await;
        metrics::token_renewal(outcome.is_ok());
        let mut state = self.state();
        match outcome {
            Ok((token, granted)) => {
                let life = granted.lifetime;
                debug!(upstream = self.upstream.name(), life_seconds = life.as_secs(), "new machine token");
                let renew_at = sent + granted.renew_after();
                state.current = Some(Current { token: token.clone(), renew_at, expires_at: sent + life });
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

    /// The cached token, if it is still valid after a failed renewal.
    fn fall_back(&self, error: Arc<TokenError>) -> Result<Token, Arc<TokenError>> {
        match self.state().available(Instant::now()) {
            Available::Nothing => Err(error),
            Available::Fresh(token) | Available::Due(token) => {
                warn!(
                    upstream = self.upstream.name(),
                    error = &error as &dyn Error,
                    "the machine token cannot be renewed; the current one is used until it expires"
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
        let cause = match token_response::read(answer.status.as_u16(), &answer.body) {
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
        Err(self.upstream.error(Method::POST, &self.url, cause).into())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
