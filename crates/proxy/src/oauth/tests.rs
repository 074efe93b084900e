//! The machine token with a token endpoint on loopback.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State as Context;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::FutureExt;
use http::StatusCode;
use serde_json::json;
use tokio::time::advance;

use super::*;
use crate::testing::{broken_body, direct, serve};
use crate::upstream::{ATTEMPTS, UpstreamError};

#[derive(Clone)]
enum Mood {
    Grants { life: u32 },
    Answers(StatusCode, &'static str),
    Redirects,
    Breaks,
    Floods,
    Hangs,
}

#[derive(Clone)]
struct World {
    mood: Arc<Mutex<Mood>>,
    requests: Arc<AtomicUsize>,
}

impl World {
    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("a lock") = mood;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn token(Context(world): Context<World>, form: String) -> Response {
    let form: HashMap<_, _> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
    let expected = [
        ("grant_type", "client_credentials"),
        ("client_id", "the client"),
        ("client_secret", "s3cret&="),
        ("scope", "openid profile"),
    ];
    assert_eq!(form, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    let number = world.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let mood = world.mood.lock().expect("a lock").clone();
    match mood {
        Mood::Grants { life } => {
            Json(json!({ "access_token": format!("token-{number}"), "expires_in": life })).into_response()
        }
        Mood::Answers(status, body) => (status, body).into_response(),
        Mood::Redirects => Redirect::temporary("https://elsewhere.example.com/token?x=1").into_response(),
        Mood::Breaks => broken_body(r#"{"access_token": "#),
        Mood::Floods => vec![b' '; MAX_BODY + 1].into_response(),
        Mood::Hangs => std::future::pending().await,
    }
}

async fn world(mood: Mood) -> (World, MachineToken) {
    let world = World { mood: Arc::new(Mutex::new(mood)), requests: Arc::default() };
    let url = serve(Router::new().route("/token", post(token)).with_state(world.clone())).await;
    let url = url.join("token").expect("a URL");
    let upstream = Upstream::new("identity provider", &direct()).expect("a client");
    let tokens = MachineToken::new(
        upstream,
        url,
        String::from("the client"),
        SecretString::from("s3cret&="),
        String::from("openid profile"),
    );
    (world, tokens)
}

async fn bearer(tokens: &MachineToken) -> String {
    let token = tokens.get().await.expect("a token");
    token.authorization().to_str().expect("text").to_owned()
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_share_one_token() {
    let (world, tokens) = world(Mood::Grants { life: 3600 }).await;
    let all = futures::future::join_all((0..20).map(|_| bearer(&tokens))).await;
    assert!(all.iter().all(|bearer| bearer == "Bearer token-1"), "{all:?}");
    assert_eq!(world.requests(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_five_minutes_before_it_expires() {
    let (_world, tokens) = world(Mood::Grants { life: 3600 }).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    advance(Duration::from_mins(54)).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    advance(Duration::from_secs(61)).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_short_lived_token_is_renewed_at_half_its_life() {
    let (_world, tokens) = world(Mood::Grants { life: 500 }).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    advance(Duration::from_secs(200)).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    advance(Duration::from_secs(51)).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-2");
}

#[tokio::test(start_paused = true)]
async fn a_valid_token_remains_in_use_while_the_token_endpoint_is_down() {
    let (world, tokens) = world(Mood::Grants { life: 3600 }).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    world.set(Mood::Answers(StatusCode::SERVICE_UNAVAILABLE, "down"));
    advance(Duration::from_secs(3310)).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    assert_eq!(world.requests(), 1 + ATTEMPTS, "the second call within the hold-off must not renew");
    advance(RENEWAL_HOLD_OFF).await;
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    assert_eq!(world.requests(), 1 + 2 * ATTEMPTS);
    advance(Duration::from_mins(5)).await;
    let error = tokens.get().await.expect_err("the token has expired");
    assert!(
        matches!(&*error, TokenError::Exchange(ExchangeError { cause: UpstreamError::Status(status), .. }) if *status == 503)
    );
    world.set(Mood::Grants { life: 3600 });
    assert_eq!(bearer(&tokens).await, format!("Bearer token-{}", 2 + 3 * ATTEMPTS), "it recovers at once");
}

#[tokio::test(start_paused = true)]
async fn a_valid_token_is_returned_without_waiting_for_its_renewal() {
    let (world, tokens) = world(Mood::Grants { life: 3600 }).await;
    let tokens = Arc::new(tokens);
    assert_eq!(bearer(&tokens).await, "Bearer token-1");
    world.set(Mood::Hangs);
    advance(Duration::from_mins(56)).await;
    let renewal = tokio::spawn({
        let tokens = Arc::clone(&tokens);
        async move { bearer(&tokens).await }
    });
    while world.requests() < 2 {
        tokio::task::yield_now().await;
    }
    let token = tokens.get().now_or_never().expect("no wait").expect("a token");
    assert_eq!(token.authorization(), "Bearer token-1");
    renewal.abort();
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_replaced_once() {
    let (world, tokens) = world(Mood::Grants { life: 3600 }).await;
    let first = tokens.get().await.expect("a token");
    tokens.invalidate(&first);
    assert_eq!(bearer(&tokens).await, "Bearer token-2");
    tokens.invalidate(&first);
    assert_eq!(bearer(&tokens).await, "Bearer token-2", "invalidating the old token again has no effect");
    assert_eq!(world.requests(), 2);
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_share_a_failure() {
    let (world, tokens) = world(Mood::Answers(StatusCode::INTERNAL_SERVER_ERROR, "")).await;
    let all = futures::future::join_all((0..20).map(|_| tokens.get())).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(world.requests(), ATTEMPTS);
}

#[tokio::test(start_paused = true)]
async fn the_error_of_a_refused_client_has_the_remedy_and_no_secret() {
    let body = r#"{"error": "invalid_client", "error_description": "echo s3cret&="}"#;
    let (_world, tokens) = world(Mood::Answers(StatusCode::UNAUTHORIZED, body)).await;
    let error = tokens.get().await.expect_err("no token");
    assert!(matches!(&*error, TokenError::ClientRefused { code: "invalid_client", .. }));
    let text = error.to_string();
    assert!(text.contains("check HPC_USER_CLIENT_ID and HPC_USER_CLIENT_SECRET"), "{text}");
    for shown in [text, format!("{error:?}"), format!("{tokens:?}")] {
        assert!(!shown.contains("s3cret") && !shown.contains("echo"), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_are_not_in_debug_output() {
    let (_world, tokens) = world(Mood::Grants { life: 3600 }).await;
    let token = tokens.get().await.expect("a token");
    assert!(!format!("{token:?} {tokens:?}").contains("token-1"));
}

#[tokio::test(start_paused = true)]
async fn invalid_answers_of_the_token_endpoint_are_errors() {
    let cases = [
        (Mood::Answers(StatusCode::OK, "<html>"), "not the expected JSON"),
        (Mood::Answers(StatusCode::OK, "[]"), "invalid answer"),
        (Mood::Answers(StatusCode::OK, r#"{"access_token": "t", "expires_in": -5}"#), "`expires_in`"),
        (Mood::Answers(StatusCode::FORBIDDEN, ""), "it answered 403"),
        (Mood::Answers(StatusCode::NOT_FOUND, ""), "check HPC_USER_OIDC_TOKEN_URL"),
        (Mood::Answers(StatusCode::BAD_REQUEST, r#"{"error": "invalid_scope"}"#), "check HPC_USER_OIDC_SCOPE"),
        (Mood::Redirects, "it redirects to https://elsewhere.example.com/token;"),
        (Mood::Breaks, "before the answer was complete"),
        (Mood::Floods, "larger than"),
    ];
    for (mood, words) in cases {
        let (_world, tokens) = world(mood).await;
        let error = program::error_chain(&*tokens.get().await.expect_err("no token"));
        assert!(error.contains(words), "{error} should say {words}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_token_endpoint_times_out() {
    let (world, tokens) = world(Mood::Hangs).await;
    let requested = async {
        while world.requests() == 0 {
            tokio::task::yield_now().await;
        }
        advance(direct().timeout).await;
    };
    let (outcome, ()) = futures::future::join(tokens.get(), requested).await;
    let error = outcome.expect_err("no token");
    assert!(matches!(&*error, TokenError::Exchange(ExchangeError { cause: UpstreamError::TimedOut, .. })), "{error}");
}
