//! Validation of a token's claims. Pure: the time is an argument.

use serde_json::{Map, Value};

use super::refusal::{AuthError, Quoted, Refusal};

/// Tolerated difference between the realm's clock and ours, in seconds.
pub(super) const LEEWAY: i64 = 30;

/// The end of the year 9999, in seconds since 1970. Later times are invalid.
const LAST_TIME: i64 = 253_402_300_799;

/// Requirements for a token.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Required `iss`.
    pub(super) issuer: String,
    /// Required value in `aud` (decision D13).
    pub(super) audience: Option<String>,
    /// `auth.required_roles`.
    pub(super) required_roles: Vec<String>,
    /// `callbacks.required_roles`.
    pub(super) callback_roles: Vec<String>,
}

/// The claims that are used after validation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Approved {
    /// `preferred_username`.
    pub(super) username: String,
    /// `exp`, in seconds since 1970.
    pub(super) expires: i64,
}

impl Rules {
    /// Checks all claims except the roles. `now` is in seconds since 1970.
    pub(super) fn check(&self, claims: &Map<String, Value>, now: i64) -> Result<Approved, Refusal> {
        let issuer = string(claims, "iss")?.ok_or(Refusal::Missing("iss"))?;
        if issuer != self.issuer {
            return Err(Refusal::Issuer { wanted: self.issuer.clone(), was: Quoted::new(issuer) });
        }
        // ID and refresh tokens of the same realm are signed with the same keys.
        if let Some(kind) = string(claims, "typ")?
            && kind != "Bearer"
        {
            return Err(Refusal::TokenType { was: Quoted::new(kind) });
        }
        let expires = time(claims, "exp")?.ok_or(Refusal::Missing("exp"))?;
        if has_expired(expires, now) {
            return Err(Refusal::Expired { at: expires, seconds_ago: now - expires });
        }
        for claim in ["nbf", "iat"] {
            if let Some(from) = time(claims, claim)?
                && from - LEEWAY > now
            {
                return Err(Refusal::NotYet { claim, seconds: from - now });
            }
        }
        if let Some(wanted) = &self.audience
            && !names(claims.get("aud"), wanted)
        {
            return Err(Refusal::Audience { wanted: wanted.clone() });
        }
        let username = string(claims, "preferred_username")?.ok_or(Refusal::Missing("preferred_username"))?;
        if username.trim().is_empty() {
            return Err(Refusal::Malformed { claim: "preferred_username", wanted: "a name" });
        }
        Ok(Approved { username: username.to_owned(), expires })
    }

    /// Checks the roles required for reading.
    pub(super) fn check_roles(&self, claims: &Map<String, Value>) -> Result<(), AuthError> {
        let missing = self.missing(&self.required_roles, claims);
        if missing.is_empty() { Ok(()) } else { Err(AuthError::Forbidden { missing }) }
    }

    /// The roles required for callbacks that the caller lacks.
    pub(super) fn missing_for_callbacks(&self, claims: &Map<String, Value>) -> Vec<String> {
        self.missing(&self.callback_roles, claims)
    }

    /// Those of some roles that the caller lacks. A required `name` is a role of the realm or of the client `auth.keycloak_client_id`;
    /// `client:name` is also that role of that client, wherever the colon is that makes it so.
    fn missing(&self, roles: &[String], claims: &Map<String, Value>) -> Vec<String> {
        let of_realm = |role: &str| claims.get("realm_access").is_some_and(|access| names(access.get("roles"), role));
        let of_client = |client: &str, role: &str| {
            let access = claims.get("resource_access").and_then(|all| all.get(client));
            access.is_some_and(|access| names(access.get("roles"), role))
        };
        let has = |required: &str| {
            of_realm(required)
                || self.audience.as_deref().is_some_and(|own| of_client(own, required))
                || required.match_indices(':').any(|(at, _)| of_client(&required[..at], &required[at + 1..]))
        };
        roles.iter().filter(|role| !has(role)).cloned().collect()
    }
}

/// Whether `exp` is in the past by more than [`LEEWAY`].
pub(super) fn has_expired(expires: i64, now: i64) -> bool {
    now >= expires.saturating_add(LEEWAY)
}

fn string<'a>(claims: &'a Map<String, Value>, claim: &'static str) -> Result<Option<&'a str>, Refusal> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::Malformed { claim, wanted: "a string" }),
    }
}

/// A time in whole seconds. Fractions and numbers in strings are refused; Keycloak does not write them.
fn time(claims: &Map<String, Value>, claim: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(claim) else { return Ok(None) };
    match value.as_i64() {
        Some(time @ 0..=LAST_TIME) => Ok(Some(time)),
        _ => Err(Refusal::Malformed { claim, wanted: "a time in whole seconds since 1970" }),
    }
}

/// Whether a string or a list of strings contains `wanted`.
fn names(value: Option<&Value>, wanted: &str) -> bool {
    match value {
        Some(Value::String(one)) => one == wanted,
        Some(Value::Array(all)) => all.iter().any(|one| one == wanted),
        _ => false,
    }
}
