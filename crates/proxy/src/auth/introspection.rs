//! Token introspection (RFC 7662): asks the realm whether a token is active, so that revoked tokens are refused, and for the
//! claims that a lightweight token lacks.

use std::fmt;

use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use url::Url;

use super::realm::{MAX_BODY, Realm};
use super::token::{Strict, Token};
use super::{SetupError, claims};
use crate::config;
use crate::upstream::{Answer, ExchangeError, UpstreamError};

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

    /// The claims of the token, completed by the realm; `None` if the token is inactive.
    pub(super) async fn claims(
        &self,
        realm: &Realm,
        endpoint: &Url,
        token: &Token<'_>,
    ) -> Result<Option<Map<String, Value>>, ExchangeError> {
        let Some(answer) = self.ask(realm, endpoint, token.text).await? else { return Ok(None) };
        let completed = claims::complete(&token.claims, &answer);
        completed
            .map(Some)
            .map_err(|other| realm.upstream().error(Method::POST, endpoint, UpstreamError::Invalid(other.to_string())))
    }

    /// The realm's answer about a token; `None` if it is inactive.
    pub(super) async fn ask(
        &self,
        realm: &Realm,
        endpoint: &Url,
        token: &str,
    ) -> Result<Option<Map<String, Value>>, ExchangeError> {
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
            StatusCode::FORBIDDEN if names_error(&answer, "access_denied") => {
                let hint =
                    "it refuses to introspect tokens (`access_denied`); check that the realm is enabled in Keycloak";
                return Err(error(UpstreamError::Invalid(hint.to_owned())));
            }
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let hint = "the client may not introspect tokens; check that auth.keycloak_client_id \
                            (CSCS_KEYCLOAK_CLIENT_ID) and auth.keycloak_client_secret (CSCS_KEYCLOAK_CLIENT_SECRET) \
                            belong to a confidential client";
                return Err(error(UpstreamError::Invalid(hint.to_owned())));
            }
            other => return Err(error(UpstreamError::Status(other))),
        }
        let Strict(document) = answer.json().map_err(error)?;
        match document {
            Value::Object(document) => match document.get("active") {
                Some(Value::Bool(true)) => Ok(Some(document)),
                Some(Value::Bool(false)) => Ok(None),
                _ => Err(error(UpstreamError::Invalid(String::from("it lacks the boolean `active`")))),
            },
            _ => Err(error(UpstreamError::Invalid(String::from("it is not a JSON object")))),
        }
    }
}

/// Whether the answer has this error code (RFC 6749 section 5.2).
fn names_error(answer: &Answer, code: &str) -> bool {
    answer.json::<Value>().is_ok_and(|document| document["error"] == code)
}
