use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::json;

use super::*;

fn ok(body: &Value) -> Result<Granted, Denied> {
    read(200, body.to_string().as_bytes())
}

fn lifetime_of(expires_in: &Value) -> Option<Duration> {
    ok(&json!({ "access_token": "t", "expires_in": expires_in })).ok().map(|granted| granted.lifetime)
}

#[test]
fn a_lifetime_is_a_number_of_seconds_in_any_spelling() {
    for (expires_in, seconds) in [
        (json!(60), 60.0),
        (json!("60"), 60.0),
        (json!(" 300 "), 300.0),
        (json!(300.0), 300.0),
        (json!("300.0"), 300.0),
        (json!(59.5), 59.5),
        (json!(null), 3600.0),
        (json!(1), 1.0),
        (json!(u32::MAX), f64::from(u32::MAX)),
    ] {
        assert_eq!(lifetime_of(&expires_in), Some(Duration::from_secs_f64(seconds)), "{expires_in}");
    }
    assert_eq!(ok(&json!({ "access_token": "t" })).unwrap().lifetime, Duration::from_hours(1));
}

#[test]
fn an_implausible_lifetime_is_an_error() {
    for expires_in in [
        json!(-1),
        json!(0),
        json!(1e-12),
        json!(1e300),
        json!("NaN"),
        json!("inf"),
        json!("soon"),
        json!(""),
        json!([]),
        json!(true),
    ] {
        assert_eq!(lifetime_of(&expires_in), None, "{expires_in}");
    }
}

#[test]
fn a_token_is_renewed_five_minutes_before_expiry_or_at_half_a_short_lifetime() {
    let renewed = |lifetime| {
        Granted { access_token: "t".into(), lifetime: Duration::from_secs(lifetime) }.renew_after().as_millis()
    };
    assert_eq!([renewed(1), renewed(60), renewed(599)], [500, 30_000, 299_500]);
    assert_eq!([renewed(600), renewed(3600)], [300_000, 3_300_000]);
}

#[test]
fn only_bearer_tokens_valid_in_a_header_are_accepted() {
    let good = ok(&json!({ "access_token": "t.u-v_w", "token_type": "bEARER" })).unwrap();
    assert_eq!(good.access_token.expose_secret(), "t.u-v_w");
    assert!(!format!("{good:?}").contains("t.u-v_w"));
    for bad in [
        json!({ "access_token": "t", "token_type": "mac" }),
        json!({ "access_token": "t", "token_type": 1 }),
        json!({ "access_token": "" }),
        json!({ "access_token": "a b" }),
        json!({ "access_token": "tökén" }),
        json!({ "access_token": "a\r\nX-Evil: 1" }),
        json!({ "access_token": 7 }),
        json!({ "access_token": null }),
        json!({}),
        json!([]),
        json!("t"),
    ] {
        assert!(matches!(ok(&bad), Err(Denied::Unusable(_))), "{bad} must not be a token");
    }
}

#[test]
fn refusals_differ_from_outages() {
    let refusal = |status, body: &str| read(status, body.as_bytes()).unwrap_err();
    assert_eq!(refusal(401, r#"{"error": "invalid_client"}"#), Denied::Client("invalid_client"));
    assert_eq!(refusal(400, r#"{"error": "unauthorized_client"}"#), Denied::Client("unauthorized_client"));
    assert_eq!(refusal(400, r#"{"error": "invalid_scope"}"#), Denied::Scope);
    assert_eq!(refusal(400, r#"{"error": "unsupported_grant_type"}"#), Denied::Request("unsupported_grant_type"));
    assert_eq!(refusal(401, "<html>"), Denied::Client("401"));
    assert_eq!(refusal(400, r#"{"error": "my own words"}"#), Denied::Status(400));
    assert_eq!(refusal(404, ""), Denied::Request("404"));
    assert_eq!(refusal(503, r#"{"error": "invalid_client"}"#), Denied::Status(503));
    assert_eq!(refusal(200, "<html>"), Denied::NotJson { line: 1, column: 1 });
}

proptest! {
    #[test]
    fn no_answer_panics(status in 200u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(status, &body);
    }

    #[test]
    fn no_lifetime_panics(text in r"-?[0-9]{0,25}(\.[0-9]{0,25})?([eE]-?[0-9]{1,3})?") {
        if let Some(lifetime) = lifetime(Some(&Value::String(text))) {
            prop_assert!(!lifetime.is_zero() && u32::try_from(lifetime.as_secs()).is_ok());
        }
    }
}
