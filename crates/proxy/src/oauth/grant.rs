//! What a token endpoint's answer says (RFC 6749, sections 5.1 and 5.2). Pure.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde_json::Value;

use crate::upstream::{Answer, Fault};

/// How long a token lives whose answer does not say.
const DEFAULT_LIFE: Duration = Duration::from_hours(1);

/// A token and how long it lives from the moment it was asked for; above zero.
#[derive(Debug)]
pub(super) struct Granted {
    /// `Bearer …`, marked as sensitive.
    pub(super) authorization: HeaderValue,
    pub(super) life: Duration,
}

/// An answer without a token.
#[derive(Debug)]
pub(super) enum Denied {
    /// The client is refused, with the error code.
    Client(&'static str),
    /// The scope is refused.
    Scope,
    /// The request is refused, with the error code or the status.
    Request(&'static str),
    /// The answer is none of a token endpoint.
    Fault(Fault),
}

impl From<Fault> for Denied {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Reads an answer. Only codes from RFC 6749 are ever passed on, never the answer's own words.
pub(super) fn read(answer: &Answer) -> Result<Granted, Denied> {
    match answer.status {
        StatusCode::OK => Ok(granted(&answer.json()?)?),
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => Err(denied(answer)),
        StatusCode::NOT_FOUND => Err(Denied::Request("404")),
        StatusCode::METHOD_NOT_ALLOWED => Err(Denied::Request("405")),
        status => Err(Denied::Fault(Fault::Status(status))),
    }
}

fn denied(answer: &Answer) -> Denied {
    let body = answer.json::<Value>().unwrap_or_default();
    match body.get("error").and_then(Value::as_str) {
        Some("invalid_client") => Denied::Client("invalid_client"),
        // Keycloak's code for a wrong secret, and for a client without a service account.
        Some("unauthorized_client") => Denied::Client("unauthorized_client"),
        Some("invalid_grant") => Denied::Client("invalid_grant"),
        Some("invalid_scope") => Denied::Scope,
        Some("invalid_request") => Denied::Request("invalid_request"),
        Some("unsupported_grant_type") => Denied::Request("unsupported_grant_type"),
        _ if answer.status == StatusCode::UNAUTHORIZED => Denied::Client("401"),
        _ => Denied::Fault(Fault::Status(answer.status)),
    }
}

fn granted(body: &Value) -> Result<Granted, Fault> {
    let senseless = |what: &str| Fault::Senseless(what.to_owned());
    match body.get("token_type") {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => {}
        Some(_) => return Err(senseless("`token_type` is not Bearer")),
    }
    let token = body
        .get("access_token")
        .and_then(Value::as_str)
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| senseless("`access_token` is missing or cannot stand in a header"))?;
    let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| senseless("`access_token` cannot stand in a header"))?;
    authorization.set_sensitive(true);
    let life = life(body.get("expires_in"))
        .ok_or_else(|| senseless("`expires_in` is not a number of seconds above 0 and below 2^32"))?;
    Ok(Granted { authorization, life })
}

/// `expires_in`: absent or null = one hour; a number of seconds or such a number as text; `None` when it is nonsense.
fn life(expires_in: Option<&Value>) -> Option<Duration> {
    let seconds = match expires_in {
        None | Some(Value::Null) => return Some(DEFAULT_LIFE),
        Some(Value::Number(number)) => number.as_f64()?,
        Some(Value::String(text)) => text.trim().parse().ok()?,
        Some(_) => return None,
    };
    // A longer life is nonsense, and would overflow the clock's arithmetic.
    let sensible = seconds > 0.0 && seconds <= f64::from(u32::MAX);
    if sensible { Duration::try_from_secs_f64(seconds).ok().filter(|life| !life.is_zero()) } else { None }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn answer(status: u16, body: impl Into<bytes::Bytes>) -> Answer {
        Answer { status: StatusCode::from_u16(status).expect("a status"), headers: HeaderMap::new(), body: body.into() }
    }

    fn life_of(expires_in: &Value) -> Option<Duration> {
        let body = json!({ "access_token": "t", "expires_in": expires_in });
        read(&answer(200, body.to_string())).ok().map(|granted| granted.life)
    }

    #[test]
    fn a_life_is_a_number_of_seconds_in_any_spelling() {
        for (expires_in, seconds) in
            [(json!(60), 60.0), (json!("60"), 60.0), (json!(59.5), 59.5), (json!(null), 3600.0), (json!(1), 1.0)]
        {
            assert_eq!(life_of(&expires_in), Some(Duration::from_secs_f64(seconds)), "{expires_in}");
        }
        let absent = read(&answer(200, r#"{"access_token": "t"}"#)).expect("a token");
        assert_eq!(absent.life, Duration::from_hours(1));
    }

    #[test]
    fn a_senseless_life_is_an_error() {
        for expires_in in
            [json!(-1), json!(0), json!(1e-12), json!(1e300), json!("NaN"), json!("inf"), json!("soon"), json!([])]
        {
            assert_eq!(life_of(&expires_in), None, "{expires_in}");
        }
    }

    #[test]
    fn only_bearer_tokens_that_fit_a_header_are_taken() {
        let good = json!({ "access_token": "t.u-v_w", "token_type": "bEARER" });
        let granted = read(&answer(200, good.to_string())).expect("a token");
        assert_eq!(granted.authorization, "Bearer t.u-v_w");
        assert!(granted.authorization.is_sensitive());
        for bad in [
            json!({ "access_token": "t", "token_type": "mac" }),
            json!({ "access_token": "t", "token_type": 1 }),
            json!({ "access_token": "" }),
            json!({ "access_token": "a b" }),
            json!({ "access_token": "a\r\nX-Evil: 1" }),
            json!({ "access_token": 7 }),
            json!({}),
            json!([]),
            json!("t"),
        ] {
            assert!(
                matches!(read(&answer(200, bad.to_string())), Err(Denied::Fault(Fault::Senseless(_)))),
                "{bad} must not be a token"
            );
        }
    }

    #[test]
    fn refusals_are_told_apart_from_outages() {
        let refusal = |status, body: &'static str| format!("{:?}", read(&answer(status, body)).expect_err("no token"));
        assert_eq!(refusal(401, r#"{"error": "invalid_client"}"#), r#"Client("invalid_client")"#);
        assert_eq!(refusal(400, r#"{"error": "unauthorized_client"}"#), r#"Client("unauthorized_client")"#);
        assert_eq!(refusal(400, r#"{"error": "invalid_scope"}"#), "Scope");
        assert_eq!(refusal(400, r#"{"error": "unsupported_grant_type"}"#), r#"Request("unsupported_grant_type")"#);
        assert_eq!(refusal(401, "<html>"), r#"Client("401")"#);
        assert_eq!(refusal(400, r#"{"error": "my own words"}"#), "Fault(Status(400))");
        assert_eq!(refusal(404, ""), r#"Request("404")"#);
        assert_eq!(refusal(503, r#"{"error": "invalid_client"}"#), "Fault(Status(503))");
        assert!(refusal(200, "<html>").starts_with("Fault(NotJson"));
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 200u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&answer(status, body));
        }

        #[test]
        fn no_life_panics(text in r"-?[0-9]{0,25}(\.[0-9]{0,25})?([eE]-?[0-9]{1,3})?") {
            if let Some(life) = life(Some(&Value::String(text))) {
                prop_assert!(!life.is_zero() && u32::try_from(life.as_secs()).is_ok());
            }
        }
    }
}
