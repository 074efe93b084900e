//! Token introspection.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::realm::*;
use crate::auth::realm::TIMEOUT;
use crate::auth::{INTROSPECTED_FOR, Verifier};
use crate::config;
use program::Clock;

fn introspecting(realm: &TestRealm) -> config::Auth {
    config::Auth {
        introspection: true,
        keycloak_client_id: Some(String::from("storage")),
        keycloak_client_secret: Some(SecretString::from("s3cret & more")),
        ..realm.settings()
    }
}

fn set_answer(realm: &TestRealm, page: Page) {
    realm.world.lock().unwrap().introspection = page;
}

fn asked(realm: &TestRealm) -> usize {
    realm.world.lock().unwrap().asked.len()
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_refused_within_the_promised_time() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    let token = realm.token(&RSA);
    assert_eq!(status(&verifier, &token).await, 200);
    assert_eq!(status(&verifier, &token).await, 200);
    assert_eq!(asked(&realm), 1);
    let question = realm.world.lock().unwrap().asked[0].clone();
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(question.as_bytes()).into_owned().collect();
    let expected = [
        ("client_id", "storage"),
        ("client_secret", "s3cret & more"),
        ("token", &token),
        ("token_type_hint", "access_token"),
    ];
    assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));

    set_answer(&realm, Page::Json(json!({"active": false})));
    assert_eq!(status(&verifier, &token).await, 200);
    realm.pass(INTROSPECTED_FOR);
    assert_eq!(status(&verifier, &token).await, 401);
    assert_eq!(status(&verifier, &token).await, 401);
    assert_eq!(asked(&realm), 2);
}

#[tokio::test(start_paused = true)]
async fn unclear_answers_admit_nobody() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    let token = realm.token(&RSA);
    let answers: [Page; 12] = [
        Page::Json(json!({})),
        Page::Json(json!({"active": "true"})),
        Page::Json(json!({"active": 1})),
        Page::Json(json!([true])),
        Page::Json(Value::Null),
        Page::Raw(401, json!({"error": "invalid_client"}).to_string()),
        Page::Raw(500, json!({"active": true}).to_string()),
        Page::Raw(200, String::from("<html>")),
        Page::Redirect("/active"),
        Page::Raw(200, String::from(r#"{"active": false, "active": true}"#)),
        Page::Raw(200, format!(r#"{{"active": true, "x": "{}"}}"#, "x".repeat(600 * 1024))),
        Page::Raw(403, json!({"error": "access_denied", "error_description": "Realm not enabled"}).to_string()),
    ];
    for answer in answers {
        set_answer(&realm, answer);
        let error = authenticate(&verifier, &token).await.unwrap_err();
        let rejection = verifier.rejection(&error);
        assert_eq!(rejection.status, 502, "{error:?}");
        assert!(!format!("{error:?} {}", rejection.body).contains("s3cret"));
        assert!(verifier.check().await.is_err());
    }
    set_answer(&realm, Page::Json(json!({"active": true})));
    assert_eq!(status(&verifier, &token).await, 200);
    assert!(verifier.check().await.is_ok());
}

/// Claims of a lightweight token.
fn lightweight(realm: &TestRealm) -> Value {
    let mut claims = realm.claims();
    for name in ["aud", "acr", "realm_access", "resource_access", "preferred_username", "clientId"] {
        claims.as_object_mut().unwrap().remove(name);
    }
    claims
}

/// Keycloak's answer about the token with all claims or its lightweight form.
fn active(realm: &TestRealm) -> Value {
    let mut answer = realm.claims();
    answer["active"] = true.into();
    answer["token_type"] = "Bearer".into();
    answer
}

#[tokio::test(start_paused = true)]
async fn lightweight_tokens_are_completed_by_introspection() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let token = RSA.token(&lightweight(&realm));
    let with = |roles: &[&str], callback_roles: &[&str]| {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        config::Auth { required_roles: list(roles), callback_roles: list(callback_roles), ..introspecting(&realm) }
    };
    let verifier = realm.verifier_with(&with(&["hpc:read", "storage:reader"], &["reader", "relay"]));
    set_answer(&realm, Page::Json(active(&realm)));
    for _ in 0..2 {
        let caller = authenticate(&verifier, &token).await.unwrap();
        assert_eq!(caller.username, "service-account-provisioner");
        assert_eq!(caller.missing_for_callbacks, ["relay"]);
    }
    assert_eq!(asked(&realm), 1, "the claims are cached");

    // Roles that are withdrawn are noticed like a revocation.
    let mut fewer = active(&realm);
    fewer["realm_access"]["roles"] = json!([]);
    set_answer(&realm, Page::Json(fewer));
    realm.pass(INTROSPECTED_FOR);
    assert_eq!(status(&verifier, &token).await, 403);
    assert_eq!(status(&verifier, &token).await, 403);
    assert_eq!(asked(&realm), 2, "a refused caller does not ask the realm each time");

    let nameless = json!({"active": true, "aud": "storage"});
    let mut about_it = lightweight(&realm);
    about_it.as_object_mut().unwrap().extend(nameless.as_object().unwrap().clone());
    set_answer(&realm, Page::Json(about_it));
    let verifier = realm.verifier_with(&introspecting(&realm));
    let error = authenticate(&verifier, &token).await.unwrap_err();
    assert!(error.to_string().starts_with("neither the token nor the realm's introspection"), "{error}");
    assert!(verifier.rejection(&error).body["help"].as_str().unwrap().contains("client scope `profile`"));
}

#[tokio::test(start_paused = true)]
async fn without_introspection_the_answer_says_what_to_switch_on() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    for client_id in [None, Some(String::from("storage"))] {
        let verifier = realm.verifier_with(&config::Auth { keycloak_client_id: client_id, ..realm.settings() });
        let error = authenticate(&verifier, &RSA.token(&lightweight(&realm))).await.unwrap_err();
        let rejection = verifier.rejection(&error);
        assert_eq!(rejection.status, 401);
        assert!(rejection.body["detail"].as_str().unwrap().contains("lacks the claim `preferred_username`"));
        let help = rejection.body["help"].as_str().unwrap();
        assert!(
            help.contains("`Always use lightweight access token`") && help.contains("`auth.introspection`"),
            "{help}"
        );
    }
    assert_eq!(asked(&realm), 0);
}

#[tokio::test(start_paused = true)]
async fn answers_about_other_tokens_admit_nobody() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    for token in [realm.token(&RSA), RSA.token(&lightweight(&realm))] {
        for (name, value) in [
            ("sub", json!("somebody")),
            ("iss", json!("https://evil.example.org/realms/cscs")),
            ("azp", json!("dashboard")),
            ("exp", json!(NOW + 301)),
            ("jti", json!("other")),
            ("sub", json!(["f3a1"])),
        ] {
            let mut forged = active(&realm);
            forged[name] = value;
            set_answer(&realm, Page::Json(forged));
            assert_eq!(status(&verifier, &token).await, 502, "{name}");
        }
        set_answer(&realm, Page::Json(json!({"active": true, "preferred_username": "admin", "aud": "storage"})));
        let expected = if token == realm.token(&RSA) { 200 } else { 502 };
        assert_eq!(status(&verifier, &token).await, expected, "an answer that names no token adds nothing");
        realm.pass(INTROSPECTED_FOR);
        set_answer(&realm, Page::Json(json!({"active": false, "preferred_username": "admin", "aud": "storage"})));
        assert_eq!(status(&verifier, &token).await, 401);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_introspection_ends_within_the_timeout() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    set_answer(&realm, Page::Silence);
    let started = tokio::time::Instant::now();
    let error = authenticate(&verifier, &RSA.token(&lightweight(&realm))).await.unwrap_err();
    assert_eq!(verifier.rejection(&error).status, 502);
    assert!(started.elapsed() <= TIMEOUT + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_disabled_realm_is_named_in_the_log() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    set_answer(&realm, Page::Raw(403, json!({"error": "access_denied"}).to_string()));
    let error = verifier.check().await.unwrap_err();
    assert!(program::error_chain(&error).contains("the realm is enabled"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn keys_that_change_during_introspection_are_used_for_the_next_request() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = std::sync::Arc::new(realm.verifier_with(&introspecting(&realm)));
    set_answer(&realm, Page::Json(active(&realm)));
    let old = RSA.token(&lightweight(&realm));
    assert_eq!(status(&verifier, &old).await, 200);
    // The key is withdrawn, and the renewal is caused by a token with the new key.
    realm.publish(&[RSA_NEW.jwk()]);
    let new = RSA_NEW.token(&lightweight(&realm));
    let (first, second) = tokio::join!(status(&verifier, &new), status(&verifier, &old));
    assert_eq!(first, 200);
    assert!([200, 401].contains(&second));
    assert_eq!(status(&verifier, &old).await, 401, "the result of the withdrawn key is not used");
}

#[tokio::test(start_paused = true)]
async fn invalid_tokens_are_not_introspected() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    for claims in [realm.claims(), lightweight(&realm)] {
        let forged = RSA_NEW.token_as(&RSA.header(), &claims);
        assert_eq!(status(&verifier, &forged).await, 401);
    }
    for (name, value) in [("exp", json!(NOW - 60)), ("typ", json!("ID")), ("aud", json!("account"))] {
        let mut claims = realm.claims();
        claims[name] = value;
        assert_eq!(status(&verifier, &RSA.token(&claims)).await, 401, "{name}");
    }
    assert_eq!(asked(&realm), 0);
}

#[tokio::test(start_paused = true)]
async fn credentials_are_required_and_never_shown() {
    let realm = TestRealm::start(&[]).await;
    let clock = || Clock::from_fn(|| std::time::UNIX_EPOCH + Duration::from_secs(NOW));
    let complete = introspecting(&realm);
    let shown = format!("{:?}", Verifier::new(&complete, clock()).unwrap());
    assert!(shown.contains("storage") && !shown.contains("s3cret"), "{shown}");
    for incomplete in [
        config::Auth { keycloak_client_id: None, ..complete.clone() },
        config::Auth { keycloak_client_secret: None, ..complete },
    ] {
        let error = Verifier::new(&incomplete, clock()).unwrap_err().to_string();
        assert!(error.contains("auth.keycloak_client_secret"), "{error}");
    }
}
