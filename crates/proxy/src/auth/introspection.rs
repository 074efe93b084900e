//! Asking the realm whether it still stands by a token (RFC 7662), so that a revoked one is refused.

use std::fmt;

use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::SetupError;
use super::realm::{MAX_BODY, Realm};
use crate::config;
use crate::upstream::{ExchangeError, UpstreamError};

/// The client in whose name the realm is asked.
pub(super) struct Introspection {
    client_id: String,
    client_secret: SecretString,
}

impl fmt::Debug for Introspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Introspection {
    pub(super) fn new(auth: &config::Auth) -> Result<Self, SetupError> {
        match (&auth.keycloak_client_id, &auth.keycloak_client_secret) {
            (Some(id), Some(secret)) => Ok(Self { client_id: id.clone(), client_secret: secret.clone() }),
            _ => Err(SetupError::Introspection),
        }
    }

    /// Whether the token is active. An error says nothing about the token.
    pub(super) async fn is_active(&self, realm: &Realm, endpoint: &Url, token: &str) -> Result<bool, ExchangeError> {
        // Credentials in the form, not in `Basic`: there, servers disagree about the encoding of special characters.
        let form = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose_secret()),
            ("token", token),
            ("token_type_hint", "access_token"),
        ];
        let upstream = realm.upstream();
        let answer = upstream.exchange(upstream.post(endpoint.clone()).form(&form), MAX_BODY).await?;
        let fault = |fault| upstream.error(Method::POST, endpoint, fault);
        match answer.status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = "it does not let the client ask about tokens; are auth.keycloak_client_id \
                            (CSCS_KEYCLOAK_CLIENT_ID) and auth.keycloak_client_secret (CSCS_KEYCLOAK_CLIENT_SECRET) \
                            those of a confidential client?";
                return Err(fault(UpstreamError::Invalid(hint.to_owned())));
            }
            other => return Err(fault(UpstreamError::Status(other))),
        }
        let document: Value = answer.json().map_err(fault)?;
        let active = document.get("active").and_then(Value::as_bool);
        active.ok_or_else(|| fault(UpstreamError::Invalid(String::from("it does not say whether the token is active"))))
    }
}
