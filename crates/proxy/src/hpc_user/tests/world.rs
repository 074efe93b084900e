//! An HPC User API and its token endpoint on loopback, whose behaviour a test chooses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::*;
use crate::testing::{broken_body, serve};

#[derive(Clone, Default)]
pub(super) enum Mood {
    #[default]
    Answers,
    Says(u16, &'static str),
    Redirects,
    Breaks,
    Floods,
    Hangs,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) projects: BTreeMap<String, Value>,
    pub(super) users: BTreeMap<String, Value>,
    pub(super) mood: Mood,
    pub(super) token_endpoint_is_down: bool,
    /// Tokens up to this number are refused.
    pub(super) refused_tokens: usize,
    pub(super) tokens: usize,
    /// Longer queries get a 414.
    pub(super) longest_query: Option<usize>,
    /// The slugs of each answered request for projects, in order.
    pub(super) asked: Vec<Vec<String>>,
    pub(super) asked_users: Vec<String>,
    /// When set, requests are answered only in groups of this size.
    pub(super) company: Option<Arc<Barrier>>,
    hanging: usize,
    under_way: usize,
    pub(super) most_under_way: usize,
}

type Context = State<Arc<Mutex<World>>>;

async fn token(State(world): Context) -> Response {
    let mut world = world.lock().expect("a lock");
    world.tokens += 1;
    if world.token_endpoint_is_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({ "access_token": format!("token-{}", world.tokens), "expires_in": 36000 })).into_response()
}

/// The answer that the mood or the token causes; `None` for the normal answer.
async fn obstacle(world: &Mutex<World>, headers: &HeaderMap) -> Option<Response> {
    let mood = {
        let world = world.lock().expect("a lock");
        let bearer = headers["authorization"].to_str().expect("text");
        let number: usize = bearer.strip_prefix("Bearer token-").expect("a bearer token").parse().expect("a number");
        if number <= world.refused_tokens {
            return Some(StatusCode::UNAUTHORIZED.into_response());
        }
        world.mood.clone()
    };
    Some(match mood {
        Mood::Answers => return None,
        Mood::Says(status, body) => (StatusCode::from_u16(status).expect("a status"), body).into_response(),
        Mood::Redirects => Redirect::temporary("https://elsewhere.example.com/x?projects=a").into_response(),
        Mood::Breaks => broken_body(r#"{"projects": ["#),
        Mood::Floods => vec![b' '; MAX_BODY + 1].into_response(),
        Mood::Hangs => {
            world.lock().expect("a lock").hanging += 1;
            std::future::pending().await
        }
    })
}

async fn projects(State(world): Context, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    if let Some(response) = obstacle(&world, &headers).await {
        return response;
    }
    let query = query.expect("never without a filter: that would ask for everything");
    {
        let mut world = world.lock().expect("a lock");
        if world.longest_query.is_some_and(|longest| query.len() > longest) {
            return StatusCode::URI_TOO_LONG.into_response();
        }
        world.under_way += 1;
        world.most_under_way = world.most_under_way.max(world.under_way);
    }
    let company = world.lock().expect("a lock").company.clone();
    if let Some(company) = company {
        company.wait().await;
        // So that a request above the limit could arrive.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
    }
    let mut world = world.lock().expect("a lock");
    world.under_way -= 1;
    let slugs: Vec<String> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(key, value)| {
            assert_eq!(key, "projects");
            value.into_owned()
        })
        .collect();
    let found: Vec<Value> = slugs
        .iter()
        .filter_map(|slug| world.projects.get(slug).map(|gid| json!({ "posixName": slug, "unixGid": gid })))
        .collect();
    world.asked.push(slugs);
    Json(json!({ "projects": found })).into_response()
}

async fn a_user(State(world): Context, Path(name): Path<String>, headers: HeaderMap) -> Response {
    if let Some(response) = obstacle(&world, &headers).await {
        return response;
    }
    let mut world = world.lock().expect("a lock");
    world.asked_users.push(name.clone());
    match world.users.get(&name) {
        Some(user) => Json(user).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A world on loopback with the settings for it.
pub(super) async fn world() -> (Arc<Mutex<World>>, config::HpcUserApi) {
    let world = Arc::new(Mutex::new(World::default()));
    let router = Router::new()
        .route("/token", post(token))
        .route("/base/api/v1/export/waldur/projects", get(projects))
        .route("/base/api/v1/export/cscs/users/{username}", get(a_user))
        .route("/base/api/v1/export/cscs/users/", get(async || Json(json!({ "unixUid": 666 }))))
        .route("/base/api/v1/export/cscs/users", get(async || Json(json!({ "unixUid": 666 }))))
        .with_state(Arc::clone(&world));
    let url = serve(router).await;
    let settings = config::HpcUserApi {
        api_url: Some(url.join("base/").expect("a URL")),
        client_id: Some(String::from("client")),
        client_secret: Some("s3cret".into()),
        oidc_token_url: Some(url.join("token").expect("a URL")),
        oidc_scope: String::from("openid"),
        socks_proxy: None,
        verify_ssl: true,
        timeout: Duration::from_secs(30),
        development_mode: false,
        user_path: Some(String::from("/api/v1/export/cscs/users/{username}")),
        user_uid_field: String::from("unixUid"),
        user_email_field: String::from("email"),
    };
    (world, settings)
}

/// Waits until this many requests hang, and advances the time beyond their timeout.
pub(super) async fn time_out(world: &Mutex<World>, requests: usize) {
    while look(world, |world| world.hanging) < requests {
        tokio::task::yield_now().await;
    }
    advance(Duration::from_secs(30)).await;
}

pub(super) fn client(settings: &config::HpcUserApi) -> HpcUserApi {
    HpcUserApi::new(settings).expect("a client")
}

pub(super) fn change(world: &Mutex<World>, change: impl FnOnce(&mut World)) {
    change(&mut world.lock().expect("a lock"));
}

pub(super) fn look<T>(world: &Mutex<World>, look: impl FnOnce(&World) -> T) -> T {
    look(&world.lock().expect("a lock"))
}

pub(super) fn give(world: &Mutex<World>, slug: &str, gid: impl Into<Value>) {
    change(world, |world| drop(world.projects.insert(slug.to_owned(), gid.into())));
}

pub(super) fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("project-{number:04}")).collect()
}
