//! Authentication as seen by HTTP clients and in the log.

use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Request, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tower::Service;

use super::realm::*;
use crate::auth::{Caller, Verifier};
use crate::config;

#[tokio::test(start_paused = true)]
async fn handlers_run_only_for_authenticated_callers() {
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let verifier: Arc<Verifier> = Arc::new(realm.verifier());
    let mut router: Router =
        Router::new().route("/", get(async |caller: Caller| caller.username)).with_state(verifier.clone());
    let mut get = async |authorization: Option<String>| {
        let mut request = Request::get("/");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let response = router.call(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, axum::body::to_bytes(body, 10_000).await.unwrap())
    };

    let (parts, body) = get(Some(format!("Bearer {}", realm.token(&RSA)))).await;
    assert_eq!((parts.status, &body[..]), (StatusCode::OK, &b"service-account-provisioner"[..]));

    for authorization in [None, Some(String::from("Bearer x"))] {
        let (parts, body) = get(authorization).await;
        assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
        assert_eq!(parts.headers[CONTENT_TYPE], "application/json");
        assert!(parts.headers.contains_key(WWW_AUTHENTICATE));
        let body: Value = serde_json::from_slice(&body).unwrap();
        let names: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["detail", "error", "help"]);
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_has_the_reasons_of_refusals_and_no_tokens() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber in the process, tracing caches for all threads whether the first thread that reaches an event
    // is interested in it; other tests' threads have no subscriber.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let guard = tracing::subscriber::set_default(subscriber);
    let realm = TestRealm::start(&[RSA.jwk()]).await;
    let auth = config::Auth {
        introspection: true,
        keycloak_client_id: Some(String::from("storage")),
        keycloak_client_secret: Some(SecretString::from("s3cret")),
        ..realm.settings()
    };
    let verifier = realm.verifier_with(&auth);
    let mut claims = realm.claims();
    let good = RSA.token(&claims);
    claims["typ"] = json!("ID");
    claims["preferred_username"] = json!("mallory\nINFO all is well");
    let bad = RSA.token(&claims);
    let foreign = RSA_NEW.token(&realm.claims());
    assert_eq!(status(&verifier, &good).await, 200);
    assert_eq!(status(&verifier, &bad).await, 401);
    assert_eq!(status(&verifier, &foreign).await, 401);
    realm.set_keys(Page::Raw(200, String::from("surprise")));
    realm.pass(crate::auth::realm::FLOOR);
    assert_eq!(status(&verifier, &foreign).await, 401);
    drop(guard);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains(r"claimed_username=`mallory\nINFO all is well` reason=the token is of type `ID`"), "{log}");
    let keys = log.lines().find(|line| line.contains("the realm's signing keys")).unwrap();
    assert!(keys.contains(r#"(RS256)""#) && !keys.contains("KeySummary"), "{keys}");
    assert!(log.contains("the realm's keys cannot be fetched"), "{log}");
    assert!(log.contains("not the expected JSON"), "{log}");
    for secret in [good, bad, foreign, String::from("s3cret"), String::from("surprise"), String::from("f3a1")] {
        let signature = secret.rsplit('.').next().unwrap();
        assert!(!log.contains(signature), "{signature} is in the log");
    }
}
