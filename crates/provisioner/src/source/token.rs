//! The access token for the proxy, from Keycloak or another identity provider.

use std::time::Instant;

use program::error_chain;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use storage_driver::DriverError;
use token_response::Denied;
use tracing::warn;
use url::Url;

use super::Source;
use super::response::{Failure, public, unreachable};
use program::lock;

/// The largest accepted response of the token endpoint, in bytes.
const MAX_GRANT: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(super) bearer: HeaderValue,
    /// When the token was requested.
    obtained: Instant,
    pub(super) renew_at: Instant,
    pub(super) expires_at: Instant,
}

impl Source {
    /// The value of the header for the proxy; `None` if no client is configured.
    pub(super) fn bearer(&self) -> Result<Option<HeaderValue>, Failure> {
        let proxy = &self.settings.proxy;
        let (Some(url), Some(id), Some(secret)) = (&proxy.token_url, &proxy.client_id, &proxy.client_secret) else {
            return Ok(None);
        };
        // Locked during the exchange: other threads wait for the same token or the same refusal.
        let mut held = lock(&self.token);
        if let Some(token) = held.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(Some(token.bearer.clone()));
        }
        match self.grant(url, id, secret) {
            Ok(token) => Ok(Some(held.insert(token).bearer.clone())),
            Err(failure) => match held.as_ref().filter(|token| Instant::now() < token.expires_at) {
                Some(token) => {
                    let why = error_chain(&failure.into_error());
                    warn!("cannot renew the token for the proxy, using the old one until it expires: {why}");
                    Ok(Some(token.bearer.clone()))
                }
                None => Err(failure),
            },
        }
    }

    /// Requests a new token. A refused client is not sent again at once.
    fn grant(&self, url: &Url, id: &str, secret: &SecretString) -> Result<Token, Failure> {
        self.client.check().map_err(Failure::Permanent)?;
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret.expose_secret())];
        // The lifetime counts from before the request, so it is never overestimated.
        let obtained = Instant::now();
        let request = self.http.post(url.clone()).form(&form);
        let response = request.send().map_err(|error| Failure::Temporary(unreachable(url, error)))?;
        let status = response.status();
        let body = self.body(response, MAX_GRANT).map_err(Failure::Temporary)?;
        let granted = token_response::read(status.as_u16(), &body).map_err(|denied| {
            let endpoint = format!("the token endpoint {}", public(url));
            let what = match &denied {
                Denied::Client(code) => format!(
                    "{endpoint} refuses the client ({code}): check proxy.client_id and proxy.client_secret, and that \
                     the identity provider allows this client the client credentials grant"
                ),
                Denied::Scope | Denied::Request(_) | Denied::NotJson { .. } | Denied::Unusable(_) => {
                    format!("{endpoint} grants no token: {denied}; check proxy.token_url")
                }
                Denied::Status(_) => format!("{endpoint} grants no token: {status}"),
            };
            if matches!(denied, Denied::Client(_)) {
                self.client.record(&*what);
            }
            Failure::of_status(status, DriverError::temporary(what))
        })?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", granted.access_token.expose_secret()));
        let mut bearer = bearer.map_err(|_| {
            Failure::Permanent(DriverError::temporary("the token from the token endpoint is not a valid header value"))
        })?;
        bearer.set_sensitive(true);
        let (renew_at, expires_at) = (obtained + granted.renew_after(), obtained + granted.lifetime);
        Ok(Token { bearer, obtained, renew_at, expires_at })
    }

    /// Forgets a token that the proxy refused. Returns whether it was obtained before `asked`.
    pub(super) fn forget(&self, refused: &HeaderValue, asked: Instant) -> bool {
        let mut held = lock(&self.token);
        match &*held {
            Some(token) if token.bearer == refused => {
                let is_old = token.obtained < asked;
                *held = None;
                is_old
            }
            // Another thread has forgotten or replaced it.
            _ => true,
        }
    }
}
