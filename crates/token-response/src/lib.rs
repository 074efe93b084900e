//! Parses the answer of an OAuth 2.0 token endpoint (RFC 6749, sections 5.1 and 5.2): [`read`] returns a token with its
//! lifetime, or why there is none. No I/O.
//!
//! ```
//! use token_response::{Denied, read};
//!
//! let granted = read(200, br#"{"access_token": "abc", "token_type": "Bearer", "expires_in": "300"}"#).unwrap();
//! assert_eq!((granted.lifetime.as_secs(), granted.renew_after().as_secs()), (300, 150));
//!
//! let denied = read(401, br#"{"error": "invalid_client", "error_description": "secret"}"#).unwrap_err();
//! assert_eq!(denied, Denied::Client("invalid_client"));
//! ```

use std::time::Duration;

use secrecy::SecretString;
use serde_json::Value;
use thiserror::Error;

/// The lifetime of a token if the answer does not contain one.
pub const DEFAULT_LIFETIME: Duration = Duration::from_hours(1);
/// A token is renewed this long before it expires.
pub const RENEW_BEFORE_EXPIRY: Duration = Duration::from_mins(5);
/// A token with a shorter lifetime is renewed at half of it instead.
pub const SHORT_LIFETIME: Duration = Duration::from_mins(10);

/// A bearer token.
#[derive(Debug)]
pub struct Granted {
    /// Visible ASCII, never empty, so that it is valid in a header.
    pub access_token: SecretString,
    /// Lifetime, counted from the request. Above zero and below 2^32 seconds.
    pub lifetime: Duration,
}

impl Granted {
    /// When to renew the token, counted from the request.
    pub fn renew_after(&self) -> Duration {
        if self.lifetime < SHORT_LIFETIME {
            self.lifetime / 2
        } else {
            self.lifetime.saturating_sub(RENEW_BEFORE_EXPIRY)
        }
    }
}

/// An answer without a token. Contains codes of RFC 6749, never text from the answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// The client is unknown, its secret is wrong, or it may not use this grant. The error code, or `401`.
    #[error("the client is refused ({0})")]
    Client(&'static str),
    /// The client may not ask for this scope.
    #[error("the scope is refused (invalid_scope)")]
    Scope,
    /// The URL is not a token endpoint, or the endpoint does not support this grant. The error code, or the status.
    #[error("the request is refused ({0})")]
    Request(&'static str),
    /// Any other status.
    #[error("status {0}")]
    Status(u16),
    /// Status 200 with a body that is not JSON.
    #[error("the answer is not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the body, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// Status 200 with JSON that is not a bearer token.
    #[error("{0}")]
    Unusable(&'static str),
}

/// Parses an answer.
pub fn read(status: u16, body: &[u8]) -> Result<Granted, Denied> {
    match status {
        200 => granted(&serde_json::from_slice(body).map_err(|error| not_json(&error))?),
        400 | 401 => Err(denied(status, body)),
        404 => Err(Denied::Request("404")),
        405 => Err(Denied::Request("405")),
        status => Err(Denied::Status(status)),
    }
}

fn not_json(error: &serde_json::Error) -> Denied {
    Denied::NotJson { line: error.line(), column: error.column() }
}

fn denied(status: u16, body: &[u8]) -> Denied {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("error").and_then(Value::as_str) {
        Some("invalid_client") => Denied::Client("invalid_client"),
        // Keycloak's code for a wrong secret, and for a client without a service account.
        Some("unauthorized_client") => Denied::Client("unauthorized_client"),
        Some("invalid_grant") => Denied::Client("invalid_grant"),
        Some("invalid_scope") => Denied::Scope,
        Some("invalid_request") => Denied::Request("invalid_request"),
        Some("unsupported_grant_type") => Denied::Request("unsupported_grant_type"),
        _ if status == 401 => Denied::Client("401"),
        _ => Denied::Status(status),
    }
}

fn granted(body: &Value) -> Result<Granted, Denied> {
    match body.get("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(_) => return Err(Denied::Unusable("`token_type` is not Bearer")),
    }
    let token = body
        .get("access_token")
        .and_then(Value::as_str)
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(Denied::Unusable("`access_token` is missing or does not fit into a header"))?;
    let lifetime = lifetime(body.get("expires_in"))
        .ok_or(Denied::Unusable("`expires_in` is not a number of seconds above 0 and below 2^32"))?;
    Ok(Granted { access_token: token.into(), lifetime })
}

/// Parses `expires_in`. Absent or null gives the default; a number, or a text with a number, gives seconds. `None` for
/// anything else.
fn lifetime(expires_in: Option<&Value>) -> Option<Duration> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Some(DEFAULT_LIFETIME),
        Some(Value::Number(number)) => number.as_f64()?,
        Some(Value::String(text)) => text.trim().parse().ok()?,
        Some(_) => return None,
    };
    // A longer lifetime is not plausible, and could overflow time arithmetic.
    let is_plausible = seconds > 0.0 && seconds <= f64::from(u32::MAX);
    if is_plausible { Duration::try_from_secs_f64(seconds).ok().filter(|lifetime| !lifetime.is_zero()) } else { None }
}

#[cfg(test)]
mod tests;
