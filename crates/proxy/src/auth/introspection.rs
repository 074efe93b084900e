//! Token introspection (RFC 7662): asks the realm whether a token is active, so that revoked tokens are refused.

use std::fmt;

use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::SetupError;
use super::realm::{MAX_BODY, Realm};
use crate::config;
use crate::upstream::{ExchangeError, UpstreamError};

/// Credentials of the client that is used for introspection.
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

    /// Whether the token is active. After an error that is unknown.
    pub(super) async fn is_active(&self, realm: &Realm, endpoint: &Url, token: &str) -> Result<bool, ExchangeError> {
        // Not in `Basic`: servers disagree about the encoding of special characters there.
        let form = [
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.client_secret.expose_secret()),
            ("token", token),
            ("token_type_hint", "access_token"),
        ];
        let upstream = realm.upstream();
        let answer = upstream.exchange(upstream.post(endpoint.clone()).form(&form), MAX_BODY).await?;
        let error = |cause| upstream.error(Method::POST, endpoint, cause);
        match answer.status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = "the client may not introspect tokens; check that auth.keycloak_client_id \
                            (CSCS_KEYCLOAK_CLIENT_ID) and auth.keycloak_client_secret (CSCS_KEYCLOAK_CLIENT_SECRET) \
                            belong to a confidential client";
                return Err(error(UpstreamError::Invalid(hint.to_owned())));
            }
            other => return Err(error(UpstreamError::Status(other))),
        }
        let document: Value = answer.json().map_err(error)?;
        let active = document.get("active").and_then(Value::as_bool);
        active.ok_or_else(|| error(UpstreamError::Invalid(String::from("it lacks the boolean `active`"))))
    }
}
