//! Requests to Waldur: callbacks, directly or through the proxy's relay, and what is read and reported directly.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use program::error_chain;
use provisioner_core::last_order::SET_STATE_OK;
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use storage_driver::DriverError;
use tracing::debug;
use uuid::Uuid;
use waldur_answers::TokenUser;

use super::Source;
use super::link::{Credential, is_meant, not_meant};
use super::response::{base, read_body, reason, unreachable};
use crate::pass::{Answer, Call};

/// The largest accepted response of Waldur, in bytes.
const MAX_RESPONSE: u64 = 1 << 20;
/// Why a version of Waldur without `set_state_ok` refuses it.
const NO_SUCH_CALL: &str = "this Waldur does not have this call";
const NOT_CONFIGURED: &str = "set waldur.api_url and waldur.api_token";

/// Why something could not be read from Waldur.
#[derive(Debug)]
pub enum WaldurError {
    /// Callbacks would fail, too: Waldur cannot be reached, or refuses the token.
    Unusable(String),
    /// The token's user cannot see such an object (404).
    Missing(String),
    /// Waldur's response cannot be read. Callbacks may succeed anyway.
    Unreadable(String),
}

/// The fields of a resource that determine who may approve its orders.
#[derive(Deserialize)]
struct Provided {
    offering_uuid: Option<Uuid>,
    provider_uuid: Option<Uuid>,
}

impl Source {
    /// Sends a callback, once: if there is no response, the document shows what came of it.
    pub fn call(&self, call: &Call) -> Answer {
        let answer = self.send_call(call);
        *program::lock(&self.called) = Some(Instant::now());
        answer
    }

    fn send_call(&self, call: &Call) -> Answer {
        if !is_meant(call) {
            return Answer::Denied(not_meant(call));
        }
        let asked = Instant::now();
        let (request, credential) = match self.addressed(&call.link) {
            Ok(addressed) => addressed,
            Err(why) => return Answer::Denied(why),
        };
        let name = call.action;
        debug!(resource = %call.resource, action = name, "callback");
        let response = match request.json(call.body.as_ref().unwrap_or(&json!({}))).send() {
            Err(error) => return Answer::Unclear(format!("{name}: {}", error_chain(&error.without_url()))),
            Ok(response) => response,
        };
        let status = response.status();
        if status.is_success() {
            return match self.is_from_waldur(response) {
                Ok(true) => Answer::Accepted,
                Ok(false) => Answer::Unclear(format!(
                    "the response to {name} is not from Waldur: check whether Waldur is in maintenance, or behind a login page"
                )),
                Err(error) => Answer::Unclear(format!("{name} returned {status}, but {}", error_chain(&error))),
            };
        }
        match status.as_u16() {
            401 => {
                self.refused(&credential, asked);
                Answer::Denied(format!("{name} is refused (401): {}", reason(response)))
            }
            403 => Answer::Denied(format!("{name} is refused (403): {}", reason(response))),
            400 => Answer::Refused(reason(response)),
            404 if name == SET_STATE_OK => Answer::Refused(NO_SUCH_CALL.to_owned()),
            404 => Answer::Missing(format!("{name} returned 404: {}", reason(response))),
            status => Answer::Unclear(format!("{name} returned {status}: {}", reason(response))),
        }
    }

    /// Whether a response is one of Waldur: JSON, or empty. It is read completely even when the program stops: a call that
    /// Waldur accepted must not look as if it was not.
    fn is_from_waldur(&self, response: Response) -> Result<bool, DriverError> {
        let text = read_body(response, self.settings.proxy.timeout, MAX_RESPONSE, &AtomicBool::new(false))?;
        Ok(text.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_ok())
    }

    /// Records that a credential was refused (401), so that it is not sent again at once.
    pub(super) fn refused(&self, credential: &Credential, asked: Instant) {
        match credential {
            Credential::Bearer(Some(bearer)) => _ = self.forget(bearer, asked),
            Credential::Bearer(None) => {}
            Credential::Waldur => self.waldur.record("Waldur refuses the token (401): check waldur.api_token"),
        }
    }

    /// The user that Waldur's token belongs to.
    pub fn token_user(&self) -> Result<TokenUser, WaldurError> {
        self.waldur_get("users/me/", &TokenUser::FIELDS)
    }

    /// The UUIDs of a resource's offering and of the organization that provides it; `None` if Waldur does not return them.
    pub fn offering(&self, resource: Uuid) -> Result<Option<(Uuid, Uuid)>, WaldurError> {
        let path = format!("marketplace-provider-resources/{}/", resource.simple());
        let provided: Provided = self.waldur_get(&path, &["offering_uuid", "provider_uuid"])?;
        Ok(provided.offering_uuid.zip(provided.provider_uuid))
    }

    /// Reads these fields of one object.
    fn waldur_get<T: DeserializeOwned>(&self, path: &str, fields: &[&str]) -> Result<T, WaldurError> {
        use WaldurError::{Missing, Unreadable, Unusable};
        let waldur = self.settings.waldur.as_ref().ok_or_else(|| Unusable(NOT_CONFIGURED.to_owned()))?;
        let url = format!("{}/{path}", base(&waldur.api_url));
        let fields: Vec<_> = fields.iter().map(|field| ("field", field)).collect();
        let token = self.waldur_token().map_err(Unusable)?;
        let asked = Instant::now();
        let response = self.http.get(&url).query(&fields).header(AUTHORIZATION, token).send();
        let response = response.map_err(|error| Unusable(error_chain(&unreachable(&waldur.api_url, error))))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                self.refused(&Credential::Waldur, asked);
                let why = reason(response);
                return Err(Unusable(format!("Waldur refuses the token (401): {why}; check waldur.api_token")));
            }
            status => {
                let why = format!("Waldur returned {status} for {path}: {}", reason(response));
                return Err(if status == StatusCode::NOT_FOUND { Missing(why) } else { Unreadable(why) });
            }
        }
        let body = self.body(response, MAX_RESPONSE).map_err(|error| Unreadable(error_chain(&error)))?;
        // The parser's error could quote the body.
        serde_json::from_slice(&body).map_err(|_| Unreadable(format!("Waldur's response for {path} cannot be read")))
    }

    /// Reports the usage of one component of a resource.
    pub fn report_usage(&self, resource: Uuid, component: &str, amount: f64) -> Result<(), String> {
        let waldur = self.settings.waldur.as_ref().ok_or(NOT_CONFIGURED)?;
        let url = format!("{}/marketplace-component-usages/set_usage/", base(&waldur.api_url));
        let body =
            json!({"resource": resource.simple().to_string(), "usages": [{"type": component, "amount": amount}]});
        let asked = Instant::now();
        let (request, credential) = self.addressed(&url)?;
        match request.json(&body).send() {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                if response.status() == StatusCode::UNAUTHORIZED {
                    self.refused(&credential, asked);
                }
                Err(format!("Waldur returned {}: {}", response.status(), reason(response)))
            }
            Err(error) => Err(error_chain(&error.without_url())),
        }
    }

    /// The value of the header for Waldur.
    pub(super) fn waldur_token(&self) -> Result<HeaderValue, String> {
        self.waldur.check().map_err(|error| error_chain(&error))?;
        let token = self.settings.waldur.as_ref().map(|waldur| waldur.api_token.expose_secret()).unwrap_or_default();
        let value = HeaderValue::from_str(&format!("Token {token}"));
        let mut value = value.map_err(|_| "waldur.api_token is not a valid header value")?;
        value.set_sensitive(true);
        Ok(value)
    }
}
