//! Key sets that change, and realms that fail and recover.

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

fn long_lived(realm: &TestRealm) -> String {
    let mut claims = realm.claims();
    claims["exp"] = json!(NOW + 10_000_000);
    RSA.token(&claims)
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_fetch() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = realm.token(&RSA);
    let all = join_all((0..50).map(|_| status(&verifier, &token))).await;
    assert!(all.iter().all(|status| *status == 200));
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test(start_paused = true)]
async fn new_keys_are_accepted_at_once_and_withdrawn_keys_after_a_renewal() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    verifier.warm().await;
    let (old, new) = (realm.token(&RSA), realm.token(&RSA_NEW));
    assert_eq!(status(&verifier, &old).await, 200);
    assert_eq!(status(&verifier, &new).await, 401);
    realm.pass(FLOOR);
    realm.publish(&[RSA.jwk(), RSA_NEW.jwk()]);
    assert_eq!(status(&verifier, &new).await, 200);
    assert_eq!(status(&verifier, &old).await, 200);
    realm.publish(&[RSA_NEW.jwk()]);
    // The verifier cannot know yet.
    assert_eq!(status(&verifier, &old).await, 200);
    realm.pass(RENEW_FIRST_AFTER);
    assert_eq!(status(&verifier, &old).await, 401);
    assert_eq!(status(&verifier, &new).await, 200);
}

#[tokio::test(start_paused = true)]
async fn keys_can_be_rotated_right_after_the_start() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    verifier.warm().await;
    let old = realm.token(&RSA);
    assert_eq!(status(&verifier, &old).await, 200);
    realm.publish(&[RSA_NEW.jwk()]);
    assert_eq!(status(&verifier, &realm.token(&RSA_NEW)).await, 200);
    // Its cached result was verified by keys that have been replaced.
    assert_eq!(status(&verifier, &old).await, 401);
    assert_eq!(realm.fetched(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_are_renewed_in_the_background_while_callers_come() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = realm.token(&RSA);
    assert_eq!(status(&verifier, &token).await, 200);
    realm.publish(&[]);
    realm.pass(RENEW_AFTER);
    // Starts the renewal without waiting for it.
    assert_eq!(status(&verifier, &token).await, 200);
    realm.fetches.clone().wait_for(|count| *count == 2).await.unwrap();
    while status(&verifier, &token).await == 200 {
        tokio::task::yield_now().await;
    }
    // The key is unknown then, so the keys are fetched once more.
    assert_eq!(realm.fetched(), 3);
}

#[tokio::test(start_paused = true)]
async fn floods_of_unknown_keys_cause_few_fetches() {
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
    realm.pass(FLOOR.checked_sub(SECOND).unwrap());
    flood().await;
    assert_eq!(realm.fetched(), 2);
    realm.pass(SECOND);
    flood().await;
    assert_eq!(realm.fetched(), 3);
    assert_eq!(status(&verifier, &realm.token(&RSA)).await, 200);
    // The same while the realm is down.
    realm.set_keys(Page::Raw(503, String::new()));
    realm.pass(FLOOR);
    flood().await;
    flood().await;
    assert_eq!(realm.fetched(), 3 + ATTEMPTS);
    realm.pass(FLOOR);
    flood().await;
    assert_eq!(realm.fetched(), 3 + 2 * ATTEMPTS);
    assert_eq!(status(&verifier, &realm.token(&RSA)).await, 200);
}

#[tokio::test(start_paused = true)]
async fn unknown_keys_of_the_first_callers_cause_no_second_fetch() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let tokens: Vec<String> = (0..20).map(|number| unknown(&realm, &format!("k{number}"))).collect();
    let all = join_all(tokens.iter().map(|token| status(&verifier, token))).await;
    assert!(all.iter().all(|status| *status == 401));
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_realm_that_is_down_at_the_start_is_used_once_it_is_up() {
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
    let error = authenticate(&verifier, &token).await.unwrap_err();
    assert!(matches!(error, AuthError::Unavailable(_)), "{error:?}");
    let rejection = verifier.rejection(&error);
    assert_eq!(rejection.status, 502);
    assert_eq!(rejection.body["error"], "UpstreamServiceError");
    let detail = rejection.body["detail"].as_str().unwrap();
    assert!(detail.contains("cannot be checked") && !detail.contains("127.0.0.1"), "{detail}");
    // Invalid tokens are refused without the realm.
    assert_eq!(status(&verifier, "x.y.z").await, 401);
    assert_eq!(status(&verifier, &RSA.token(&claims(format!("{issuer}x")))).await, 401);
    assert_eq!(verifier.rejection(&verifier.caller(&HeaderMap::new()).await.unwrap_err()).status, 401);

    let realm = TestRealm::serve(TcpListener::bind(address).await.unwrap(), &[RSA.jwk()]);
    // All callers wait for the same next renewal.
    let all = join_all((0..20).map(|_| status(&verifier, &token))).await;
    assert!(all.iter().all(|status| *status == 200), "{all:?}");
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test(start_paused = true)]
async fn keys_remain_in_use_for_a_day_while_the_realm_fails() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier();
    let token = long_lived(&realm);
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
        realm.pass(RENEW_FIRST_AFTER);
        let before = realm.fetched();
        assert_eq!(status(&verifier, &token).await, 200);
        assert_eq!(status(&verifier, &realm.token(&RSA_NEW)).await, 401);
        assert_eq!(realm.fetched(), before + attempts);
    }
    realm.pass(GIVE_UP_AFTER.checked_sub(8 * RENEW_FIRST_AFTER + SECOND).unwrap());
    assert_eq!(status(&verifier, &token).await, 200);
    realm.pass(SECOND);
    assert_eq!(status(&verifier, &token).await, 502);
    realm.publish(&[RSA.jwk()]);
    assert_eq!(status(&verifier, &token).await, 200);
}

#[tokio::test(start_paused = true)]
async fn without_published_keys_every_token_is_refused() {
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

#[tokio::test(start_paused = true)]
async fn a_slow_realm_delays_callers_only_briefly_while_there_are_keys() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = Arc::new(realm.verifier());
    let token = long_lived(&realm);
    assert_eq!(status(&verifier, &token).await, 200);
    realm.set_keys(Page::Silence);
    realm.pass(RENEW_FIRST_AFTER);
    let started = Instant::now();
    let waiting = tokio::spawn({
        let (verifier, token) = (verifier.clone(), token.clone());
        async move { status(&verifier, &token).await }
    });
    realm.fetches.clone().wait_for(|count| *count == 2).await.unwrap();
    assert!(!waiting.is_finished());
    assert_eq!(waiting.await.unwrap(), 200);
    assert!(started.elapsed() < TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_continues_when_its_caller_disconnects() {
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
    assert_eq!(patient.await.unwrap(), 502);
    assert_eq!(realm.fetched(), 1);
}

#[tokio::test(start_paused = true)]
async fn discovery_documents_are_used_ignored_or_refused() {
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

#[tokio::test(start_paused = true)]
async fn check_lists_the_keys() {
    let realm = TestRealm::start(&[RSA.jwk(), P256.bare_jwk(), json!({"kty": "oct"})]).await;
    let report = realm.verifier().check().await.unwrap().unwrap();
    assert_eq!(report.issuer, realm.issuer());
    let keys: Vec<_> = report.keys.iter().map(|key| (key.id.as_deref(), key.algorithms.join(" "))).collect();
    assert_eq!(keys, [(Some("rsa-1"), String::from("RS256")), (Some("p256"), String::from("ES256"))]);
    assert_eq!(report.skipped, 1);
}
