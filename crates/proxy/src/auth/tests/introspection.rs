//! Token introspection.

use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::realm::*;
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
    let answers: [Page; 9] = [
        Page::Json(json!({})),
        Page::Json(json!({"active": "true"})),
        Page::Json(json!({"active": 1})),
        Page::Json(json!([true])),
        Page::Json(Value::Null),
        Page::Raw(401, json!({"error": "invalid_client"}).to_string()),
        Page::Raw(500, json!({"active": true}).to_string()),
        Page::Raw(200, String::from("<html>")),
        Page::Redirect("/active"),
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

#[tokio::test(start_paused = true)]
async fn invalid_tokens_are_not_introspected() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier = realm.verifier_with(&introspecting(&realm));
    let forged = RSA_NEW.token_as(&RSA.header(), &realm.claims());
    assert_eq!(status(&verifier, &forged).await, 401);
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
