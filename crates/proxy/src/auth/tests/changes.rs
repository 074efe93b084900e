//! Key sets that change, vanish and come back.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::realm::*;
use crate::auth::realm::{FLOOR, GIVE_UP_AFTER, RENEW_AFTER, RENEW_FIRST_AFTER, TIMEOUT};
use crate::auth::{AuthError, Verifier};
use crate::upstream::ATTEMPTS;

const SECOND: Duration = Duration::from_secs(1);

fn unknown(realm: &TestRealm, id: &str) -> String {
    let mut header = RSA.header();
    header["kid"] = id.into();
    RSA.token_as(&header, &realm.claims())
}

fn lasting(realm: &TestRealm) -> String {
    let mut claims = realm.claims();
    claims["exp"] = json!(NOW + 10_000_000);
    RSA.token(&claims)
}

#[tokio::test]
async fn many_callers_at_once_are_one_fetch() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = realm.token(&RSA);
    let all = join_all((0..50).map(|_| status(&verifier, &token))).await;
    assert!(all.iter().all(|status| *status == 200));
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test]
async fn a_new_key_works_at_once_and_a_withdrawn_one_no_more() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    verifier.warm().await;
    let (old, new) = (realm.token(&RSA), realm.token(&RSA_NEW));
    assert_eq!(status(&verifier, &old).await, 200);
    assert_eq!(status(&verifier, &new).await, 401);
    pass(FLOOR).await;
    realm.publish(&[RSA.jwk(), RSA_NEW.jwk()]);
    assert_eq!(status(&verifier, &new).await, 200);
    assert_eq!(status(&verifier, &old).await, 200);
    realm.publish(&[RSA_NEW.jwk()]);
    // Nothing has told us yet.
    assert_eq!(status(&verifier, &old).await, 200);
    pass(RENEW_FIRST_AFTER).await;
    assert_eq!(status(&verifier, &old).await, 401);
    assert_eq!(status(&verifier, &new).await, 200);
}

#[tokio::test]
async fn a_rotation_right_after_the_start_needs_no_patience() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    verifier.warm().await;
    let old = realm.token(&RSA);
    assert_eq!(status(&verifier, &old).await, 200);
    realm.publish(&[RSA_NEW.jwk()]);
    assert_eq!(status(&verifier, &realm.token(&RSA_NEW)).await, 200);
    // Verified a moment ago, but by keys that are gone.
    assert_eq!(status(&verifier, &old).await, 401);
    assert_eq!(realm.fetched(), 2);
}

#[tokio::test]
async fn a_withdrawn_key_goes_in_the_background_while_callers_come() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = realm.token(&RSA);
    assert_eq!(status(&verifier, &token).await, 200);
    realm.publish(&[]);
    pass(RENEW_AFTER).await;
    // Starts the renewal and does not wait.
    assert_eq!(status(&verifier, &token).await, 200);
    realm.fetches.clone().wait_for(|count| *count == 2).await.unwrap();
    while status(&verifier, &token).await == 200 {
        tokio::task::yield_now().await;
    }
    // The key is unknown by then, for which the realm is asked once more.
    assert_eq!(realm.fetched(), 3);
}

#[tokio::test]
async fn floods_of_unknown_keys_reach_the_realm_seldom() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    verifier.warm().await;
    let flood = async || {
        let tokens: Vec<String> = (0..200).map(|number| unknown(&realm, &format!("k{number}"))).collect();
        let all = join_all(tokens.iter().map(|token| status(&verifier, token))).await;
        assert!(all.iter().all(|status| *status == 401));
    };
    flood().await;
    flood().await;
    assert_eq!(realm.fetched(), 2);
    pass(FLOOR.checked_sub(SECOND).unwrap()).await;
    flood().await;
    assert_eq!(realm.fetched(), 2);
    pass(SECOND).await;
    flood().await;
    assert_eq!(realm.fetched(), 3);
    assert_eq!(status(&verifier, &realm.token(&RSA)).await, 200);
    // The same while the realm is down.
    realm.set_keys(Page::Raw(503, String::new()));
    pass(FLOOR).await;
    flood().await;
    flood().await;
    assert_eq!(realm.fetched(), 3 + ATTEMPTS);
    pass(FLOOR).await;
    flood().await;
    assert_eq!(realm.fetched(), 3 + 2 * ATTEMPTS);
    assert_eq!(status(&verifier, &realm.token(&RSA)).await, 200);
}

#[tokio::test]
async fn an_unknown_key_among_the_first_callers_is_looked_up_once() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let tokens: Vec<String> = (0..20).map(|number| unknown(&realm, &format!("k{number}"))).collect();
    let all = join_all(tokens.iter().map(|token| status(&verifier, token))).await;
    assert!(all.iter().all(|status| *status == 401));
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test]
async fn a_realm_that_is_down_at_the_start_leaves_callers_unjudged_until_it_is_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let auth = settings_for(address);
    let verifier =
        Verifier::new(&auth, program::Clock::from_fn(|| std::time::UNIX_EPOCH + Duration::from_secs(NOW))).unwrap();
    verifier.warm().await;
    assert!(verifier.check().await.is_err());
    let claims = |iss: String| json!({"iss": iss, "exp": NOW + 300, "preferred_username": "x"});
    let issuer = format!("http://{address}/auth/realms/cscs");
    let token = RSA.token(&claims(issuer.clone()));
    let error = judge(&verifier, &token).await.unwrap_err();
    assert!(matches!(error, AuthError::Undecidable(_)), "{error:?}");
    let rejection = verifier.rejection(&error);
    assert_eq!(rejection.status, 502);
    assert_eq!(rejection.body["error"], "UpstreamServiceError");
    let detail = rejection.body["detail"].as_str().unwrap();
    assert!(detail.contains("cannot be checked") && !detail.contains("127.0.0.1"), "{detail}");
    // What is wrong in itself needs no realm.
    assert_eq!(status(&verifier, "x.y.z").await, 401);
    assert_eq!(status(&verifier, &RSA.token(&claims(format!("{issuer}x")))).await, 401);
    assert_eq!(verifier.rejection(&verifier.caller(&HeaderMap::new()).await.unwrap_err()).status, 401);

    let realm = TestRealm::serve(TcpListener::bind(address).await.unwrap(), &[RSA.jwk()]);
    // Whoever comes now waits for the next attempt, and all for the same one.
    let all = join_all((0..20).map(|_| status(&verifier, &token))).await;
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test]
async fn keys_outlive_a_failing_realm_but_not_for_ever() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = lasting(&realm);
    assert_eq!(status(&verifier, &token).await, 200);
    let huge = format!("{{\"keys\":[\"{}\"]}}", "x".repeat(600 * 1024));
    let failures = [
        Page::Raw(503, String::new()),
        Page::Raw(404, String::from("{}")),
        Page::Raw(200, String::from("<html>")),
        Page::Raw(200, String::from("{\"keys\":[")),
        Page::Raw(200, huge),
        Page::Json(json!({"error": "x"})),
        Page::Json(json!([RSA_NEW.jwk()])),
        Page::Redirect("/elsewhere"),
    ];
    for failure in failures {
        let attempts = if matches!(failure, Page::Raw(503, _)) { ATTEMPTS } else { 1 };
        realm.set_keys(failure);
        pass(RENEW_FIRST_AFTER).await;
        let before = realm.fetched();
        assert_eq!(status(&verifier, &token).await, 200);
        assert_eq!(status(&verifier, &realm.token(&RSA_NEW)).await, 401);
        assert_eq!(realm.fetched(), before + attempts);
    }
    pass(GIVE_UP_AFTER.checked_sub(8 * RENEW_FIRST_AFTER + SECOND).unwrap()).await;
    assert_eq!(status(&verifier, &token).await, 200);
    pass(SECOND).await;
    assert_eq!(status(&verifier, &token).await, 502);
    realm.publish(&[RSA.jwk()]);
    assert_eq!(status(&verifier, &token).await, 200);
}

#[tokio::test]
async fn a_realm_without_keys_has_withdrawn_them_all() {
    let encryption = {
        let mut key = RSA.jwk();
        key["use"] = "enc".into();
        key
    };
    for keys in [vec![], vec![encryption], vec![json!("x"), json!({"kty": "RSA"})]] {
        let realm = TestRealm::start(&keys).await;
        let verifier = realm.verifier();
        assert_eq!(status(&verifier, &realm.token(&RSA)).await, 401);
        let report = verifier.check().await.unwrap().unwrap();
        assert!(report.keys.is_empty());
        assert_eq!(report.skipped, keys.len());
        realm.publish(&[RSA.jwk()]);
        assert_eq!(status(&verifier, &realm.token(&RSA)).await, 200);
    }
}

#[tokio::test]
async fn a_slow_realm_delays_nobody_for_long_while_there_are_keys() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = Arc::new(realm.verifier());
    let token = lasting(&realm);
    assert_eq!(status(&verifier, &token).await, 200);
    realm.set_keys(Page::Silence);
    pass(RENEW_FIRST_AFTER).await;
    let started = Instant::now();
    let waiting = tokio::spawn({
        let (verifier, token) = (verifier.clone(), token.clone());
        async move { status(&verifier, &token).await }
    });
    realm.fetches.clone().wait_for(|count| *count == 2).await.unwrap();
    assert!(!waiting.is_finished());
    // Time that stands still leaps to the next deadline only when nobody has anything to do.
    tokio::time::pause();
    assert_eq!(waiting.await.unwrap(), 200);
    assert!(started.elapsed() < TIMEOUT);
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_end_the_fetch() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = Arc::new(realm.verifier());
    realm.set_keys(Page::Silence);
    let token = realm.token(&RSA);
    let impatient = tokio::spawn({
        let (verifier, token) = (verifier.clone(), token.clone());
        async move { status(&verifier, &token).await }
    });
    realm.fetches.clone().wait_for(|count| *count == 1).await.unwrap();
    impatient.abort();
    let patient = tokio::spawn(async move { status(&verifier, &token).await });
    tokio::task::yield_now().await;
    pass(6 * SECOND).await;
    assert_eq!(patient.await.unwrap(), 502);
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test]
async fn discovery_is_followed_ignored_or_refused() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let good = discovery(realm.address);
    let with = |name: &str, value: String| {
        let mut document: Value = good.clone();
        document[name] = value.into();
        Page::Json(document)
    };
    let table = [
        ("there", Page::Json(good.clone()), 200),
        ("not there", Page::Raw(404, String::from("{}")), 200),
        ("forbidden", Page::Raw(403, String::new()), 200),
        ("not JSON", Page::Raw(200, String::from("<html>")), 200),
        ("another document", Page::Json(json!({"realm": "cscs"})), 200),
        ("redirected", Page::Redirect("/login"), 200),
        ("too large", Page::Raw(200, "x".repeat(600 * 1024)), 200),
        ("another issuer", with("issuer", String::from("https://idp.example.org/realms/cscs")), 502),
        ("issuer with a slash", with("issuer", format!("{}/", realm.issuer())), 502),
        ("keys elsewhere", with("jwks_uri", String::from("http://127.0.0.1:1/certs")), 502),
        ("keys nowhere", with("jwks_uri", String::from("certs")), 502),
        ("keys under another path", with("jwks_uri", format!("http://{}/none", realm.address)), 502),
    ];
    for (name, page, expected) in table {
        realm.set_discovery(page);
        assert_eq!(status(&realm.verifier(), &realm.token(&RSA)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn check_names_the_keys() {
    let realm = TestRealm::start(&[RSA.jwk(), P256.bare_jwk(), json!({"kty": "oct"})]).await;
    let report = realm.verifier().check().await.unwrap().unwrap();
    assert_eq!(report.issuer, realm.issuer());
    let keys: Vec<_> = report.keys.iter().map(|key| (key.id.as_deref(), key.algorithms.join(" "))).collect();
    assert_eq!(keys, [(Some("rsa-1"), String::from("RS256")), (Some("p256"), String::from("ES256"))]);
    assert_eq!(report.skipped, 1);
}
