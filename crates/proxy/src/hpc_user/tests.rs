//! The client against an HPC User API and its token endpoint on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::oauth::tests::{broken_body, pass, serve};

#[derive(Clone, Default)]
enum Mood {
    /// As agreed.
    #[default]
    Answers,
    Says(u16, &'static str),
    Redirects,
    Breaks,
    Floods,
    Hangs,
}

#[derive(Default)]
struct World {
    projects: BTreeMap<String, Value>,
    users: BTreeMap<String, Value>,
    mood: Mood,
    token_endpoint_is_down: bool,
    /// Tokens up to this number are refused.
    refused_tokens: usize,
    tokens: usize,
    /// Longer queries get a 414.
    longest_query: Option<usize>,
    /// The slugs of each answered request for projects, in order.
    asked: Vec<Vec<String>>,
    asked_users: Vec<String>,
    under_way: usize,
    most_under_way: usize,
}

type Shared = State<Arc<Mutex<World>>>;

async fn token(State(world): Shared) -> Response {
    let mut world = world.lock().expect("a lock");
    world.tokens += 1;
    if world.token_endpoint_is_down {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    Json(json!({ "access_token": format!("token-{}", world.tokens), "expires_in": 36000 })).into_response()
}

/// What the mood and the token make of any request; `None`: it is answered as agreed.
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
        Mood::Hangs => std::future::pending().await,
    })
}

async fn projects(State(world): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
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
    // So that requests that are sent at once are under way at once.
    for _ in 0..100 {
        tokio::task::yield_now().await;
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

async fn a_user(State(world): Shared, Path(name): Path<String>, headers: HeaderMap) -> Response {
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

/// A world on loopback, and the settings that lead to it.
async fn world() -> (Arc<Mutex<World>>, settings::HpcUserApi) {
    let world = Arc::new(Mutex::new(World::default()));
    let router = Router::new()
        .route("/token", post(token))
        .route("/base/api/v1/export/waldur/projects", get(projects))
        .route("/base/api/v1/export/cscs/users/{username}", get(a_user))
        .with_state(Arc::clone(&world));
    let url = serve(router).await;
    let settings = settings::HpcUserApi {
        api_url: Some(url.join("base/").expect("a URL")),
        client_id: Some(String::from("client")),
        client_secret: Some("s3cret".into()),
        oidc_token_url: Some(url.join("token").expect("a URL")),
        oidc_scope: String::from("openid"),
        socks_proxy: None,
        verify_ssl: true,
        development_mode: false,
        user_path: Some(String::from("/api/v1/export/cscs/users/{username}")),
        user_uid_field: String::from("unixUid"),
        user_email_field: String::from("email"),
    };
    (world, settings)
}

fn client(settings: &settings::HpcUserApi) -> HpcUserApi {
    HpcUserApi::new(settings, Duration::from_secs(30)).expect("a client")
}

fn change(world: &Mutex<World>, change: impl FnOnce(&mut World)) {
    change(&mut world.lock().expect("a lock"));
}

fn look<T>(world: &Mutex<World>, look: impl FnOnce(&World) -> T) -> T {
    look(&world.lock().expect("a lock"))
}

fn give(world: &Mutex<World>, slug: &str, gid: impl Into<Value>) {
    change(world, |world| drop(world.projects.insert(slug.to_owned(), gid.into())));
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("project-{number:04}")).collect()
}

/// The error and its causes, as a log shows them.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn gids_come_from_the_api_once_and_unknown_projects_are_asked_for_again() {
    let (world, settings) = world().await;
    give(&world, "a", 30500);
    give(&world, "ä & =+/?#%", 7);
    give(&world, "null", Value::Null);
    let slugs = ["a", "ä & =+/?#%", "null", "new", "a"];
    let api = client(&settings);
    let gids = api.resolve(slugs).await.expect("GIDs");
    let expected = [("a", Ok(30500)), ("ä & =+/?#%", Ok(7)), ("null", Err(NoGid::Null)), ("new", Err(NoGid::Unknown))];
    assert_eq!(gids, expected.map(|(slug, gid)| (slug.to_owned(), gid)).into());

    give(&world, "new", 9);
    let gids = api.resolve(slugs).await.expect("GIDs");
    assert_eq!(gids["new"], Ok(9));
    assert_eq!(look(&world, |world| world.asked[1].clone()), ["new", "null"]);
    assert_eq!(look(&world, |world| world.tokens), 1);
}

#[tokio::test]
async fn many_projects_are_asked_for_in_bounded_batches_a_few_at_once() {
    let (world, settings) = world().await;
    let slugs = numbered(1000);
    for (slug, gid) in slugs.iter().zip(1..) {
        give(&world, slug, gid);
    }
    let api = client(&settings);
    // Another task, as in the service: the future must be able to move between threads.
    let gids = tokio::spawn({
        let slugs = slugs.clone();
        async move { (api.users(["anna"]).await, api.resolve(slugs).await) }
    });
    let gids = gids.await.expect("no panic").1.expect("GIDs");
    for (slug, gid) in slugs.iter().zip(1..) {
        assert_eq!(gids[slug], Ok(gid));
    }
    look(&world, |world| {
        assert_eq!(world.asked.len(), 1000 / batches::MAX_SLUGS);
        assert!(world.most_under_way <= CONCURRENCY, "{} at once", world.most_under_way);
        assert!(world.most_under_way > 1, "one after another");
        assert_eq!(world.tokens, 1);
    });
}

#[tokio::test]
async fn a_batch_that_is_too_long_for_the_server_is_halved() {
    let (world, settings) = world().await;
    let slugs = numbered(100);
    for slug in &slugs {
        give(&world, slug, 5);
    }
    change(&world, |world| world.longest_query = Some(200));
    let gids = client(&settings).resolve(&slugs).await.expect("GIDs");
    assert!(slugs.iter().all(|slug| gids[slug] == Ok(5)));
    change(&world, |world| world.longest_query = Some(3));
    let error = client(&settings).resolve(&slugs).await.expect_err("a single slug is too long");
    assert!(error.to_string().contains("414"), "{error}");
}

#[tokio::test]
async fn slugs_that_cannot_be_asked_for_are_data_too() {
    let (world, settings) = world().await;
    let long = "x".repeat(5000);
    let gids = client(&settings).resolve(["", &long]).await.expect("GIDs");
    assert_eq!(gids, [(String::new(), Err(NoGid::Unaskable)), (long, Err(NoGid::Unaskable))].into());
    assert!(look(&world, |world| world.asked.is_empty()));
}

#[tokio::test]
async fn a_refused_token_is_renewed_at_once_and_only_once() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    change(&world, |world| world.refused_tokens = 1);
    let api = client(&settings);
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(1));
    assert_eq!(look(&world, |world| world.tokens), 2);

    change(&world, |world| world.refused_tokens = usize::MAX);
    let error = api.resolve(["a", "b"]).await.expect_err("every token is refused");
    assert!(matches!(error, HpcUserError::Refused(_)), "{error}");
    assert!(error.to_string().contains("check the rights of HPC_USER_CLIENT_ID"));
    assert_eq!(look(&world, |world| world.tokens), 3);
}

#[tokio::test]
async fn concurrent_refusals_cost_one_new_token() {
    let (world, settings) = world().await;
    change(&world, |world| world.refused_tokens = 1);
    client(&settings).resolve(numbered(400)).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.tokens), 2);
}

#[tokio::test]
async fn cached_gids_outlive_the_api_and_are_asked_for_again_when_old() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    let api = client(&settings);
    api.resolve(["a"]).await.expect("GIDs");
    give(&world, "a", 2);
    pass(GID_MAX_AGE - Duration::from_mins(1)).await;
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(1));
    assert_eq!(look(&world, |world| world.asked.len()), 1);

    change(&world, |world| world.mood = Mood::Says(500, ""));
    pass(Duration::from_mins(2)).await;
    assert_eq!(api.resolve(["a"]).await.expect("the old GID stays in use")["a"], Ok(1));
    let error = api.resolve(["a", "b"]).await.expect_err("b is not cached");
    assert!(error.to_string().contains("HPC User API: it answered 500"), "{error}");

    change(&world, |world| world.mood = Mood::Answers);
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(1), "left in peace for a while");
    pass(HOLD_OFF).await;
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Ok(2));

    change(&world, |world| drop(world.projects.remove("a")));
    pass(GID_MAX_AGE).await;
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Err(NoGid::Unknown), "a definite answer counts");
}

#[tokio::test]
async fn the_cache_is_bounded_by_what_is_wanted() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    give(&world, "b", 2);
    let api = client(&settings);
    for slugs in [vec!["a"], vec!["b"], vec!["a"]] {
        api.resolve(slugs).await.expect("GIDs");
    }
    assert_eq!(look(&world, |world| world.asked.clone()), [["a"], ["b"], ["a"]]);
}

#[tokio::test]
async fn what_was_answered_before_a_failure_is_kept() {
    let (world, settings) = world().await;
    let slugs = numbered(60);
    for slug in &slugs {
        give(&world, slug, 5);
    }
    let api = client(&settings);
    api.resolve(&slugs[..50]).await.expect("GIDs");
    change(&world, |world| world.mood = Mood::Says(503, ""));
    api.resolve(&slugs).await.expect_err("ten are not cached");
    change(&world, |world| world.mood = Mood::Answers);
    api.resolve(&slugs).await.expect("GIDs");
    assert_eq!(look(&world, |world| world.asked[1].clone()), slugs[50..]);
}

#[tokio::test]
async fn every_lie_of_the_api_is_an_error_that_names_it() {
    let (world, settings) = world().await;
    let cases = [
        (Mood::Says(200, "<html>s3cret</html>"), "HPC User API: the answer is not the JSON expected"),
        (Mood::Says(200, "[]"), "HPC User API: the answer makes no sense"),
        (Mood::Says(200, r#"{"projects": "s3cret"}"#), "it has no list `projects`"),
        (Mood::Says(204, ""), "it answered 204"),
        (Mood::Says(403, "s3cret"), "the machine token is refused"),
        (Mood::Says(404, "s3cret"), "check HPC_USER_API_URL"),
        (Mood::Says(429, "s3cret"), "it answered 429"),
        (Mood::Says(500, "s3cret"), "it answered 500"),
        (Mood::Redirects, "it redirects to https://elsewhere.example.com/x,"),
        (Mood::Breaks, "the answer broke off"),
        (Mood::Floods, "the answer is larger than"),
    ];
    for (mood, words) in cases {
        change(&world, |world| world.mood = mood);
        let error = client(&settings).resolve(["a"]).await.expect_err(words);
        let text = whole(&error);
        assert!(text.contains(words) && text.contains("HPC User API"), "{text} should say {words}");
        assert!(!text.contains("s3cret") && !format!("{error:?}").contains("s3cret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_hanging_api_meets_the_deadline() {
    let (world, settings) = world().await;
    let api = client(&settings);
    api.resolve(["b"]).await.expect("GIDs");
    change(&world, |world| world.mood = Mood::Hangs);
    // With nothing left to do but wait, a stopped clock jumps to the deadline.
    tokio::time::pause();
    let error = api.resolve(["a"]).await.expect_err("no answer");
    assert!(matches!(&error, HpcUserError::Exchange(error) if matches!(error.fault, Fault::TimedOut)), "{error}");
}

#[tokio::test]
async fn without_a_token_the_error_names_the_token_endpoint() {
    let (world, settings) = world().await;
    change(&world, |world| world.token_endpoint_is_down = true);
    let error = client(&settings).resolve(["a"]).await.expect_err("no token");
    assert!(error.to_string().contains("HPC User API's token endpoint: it answered 503"), "{error}");
}

#[tokio::test]
async fn missing_settings_are_named() {
    let (_world, settings) = world().await;
    let without = settings::HpcUserApi { client_secret: None, ..settings };
    let api = client(&without);
    let error = api.resolve(["a"]).await.expect_err("not configured");
    assert!(error.to_string().contains("HPC_USER_CLIENT_SECRET"), "{error}");
    assert!(api.resolve(Vec::<String>::new()).await.expect("nothing is needed").is_empty());
}

#[tokio::test]
async fn development_mode_does_without_the_api() {
    let (world, settings) = world().await;
    give(&world, "a", 1);
    let settings = settings::HpcUserApi { development_mode: true, ..settings };
    let api = client(&settings);
    let gids = api.resolve(["a", "b"]).await.expect("GIDs");
    assert_eq!((gids["a"], gids["b"]), (Ok(1), Err(NoGid::Unknown)));
    change(&world, |world| world.mood = Mood::Says(500, ""));
    let gids = api.resolve(["a", "b"]).await.expect("GIDs");
    assert_eq!((gids["a"], gids["b"]), (Ok(1), Err(NoGid::Unreachable)));
    let api = client(&settings::HpcUserApi { api_url: None, ..settings });
    assert_eq!(api.resolve(["a"]).await.expect("GIDs")["a"], Err(NoGid::NotConfigured));
}

#[tokio::test]
async fn a_check_tells_the_token_from_the_api() {
    let (world, settings) = world().await;
    let check = client(&settings).check().await;
    assert!(matches!(check, Check { token: Ok(()), api: Some(Ok(())) }), "{check:?}");
    change(&world, |world| world.mood = Mood::Says(404, ""));
    let check = client(&settings).check().await;
    assert!(matches!(check, Check { token: Ok(()), api: Some(Err(HpcUserError::NotFound(_))) }), "{check:?}");
    change(&world, |world| world.token_endpoint_is_down = true);
    let check = client(&settings).check().await;
    assert!(matches!(check, Check { token: Err(HpcUserError::Token(_)), api: None }), "{check:?}");
    let check = client(&settings::HpcUserApi { api_url: None, ..settings }).check().await;
    assert!(matches!(check, Check { token: Err(HpcUserError::NotConfigured(_)), api: None }), "{check:?}");
}

fn user(uid: impl Into<Option<u32>>, email: impl Into<Option<&'static str>>) -> UserIdentity {
    UserIdentity { uid: uid.into(), email: email.into().map(String::from) }
}

#[tokio::test]
async fn users_are_looked_up_and_cached() {
    let (world, settings) = world().await;
    change(&world, |world| {
        world.users = [
            ("anna", json!({ "unixUid": 20001, "email": " anna@example.com " })),
            ("a/b ?ä", json!({ "unixUid": 20002.0, "email": "b@example.com", "more": 1 })),
            ("odd", json!({ "unixUid": "20003", "email": 7 })),
            ("root", json!({ "unixUid": 0, "email": "  " })),
            ("list", json!([])),
        ]
        .map(|(name, user)| (name.to_owned(), user))
        .into();
    });
    let api = client(&settings);
    let names = ["anna", "a/b ?ä", "odd", "root", "nobody", "..", "", "list"];
    let expected = [
        ("anna", user(20001, "anna@example.com")),
        ("a/b ?ä", user(20002, "b@example.com")),
        ("odd", user(None, None)),
        ("root", user(None, None)),
        ("nobody", user(None, None)),
        ("..", user(None, None)),
        ("", user(None, None)),
        ("list", user(None, None)),
    ];
    let expected: HashMap<_, _> = expected.map(|(name, user)| (name.to_owned(), user)).into();
    assert_eq!(api.users(names).await, expected);
    assert_eq!(look(&world, |world| world.asked_users.len()), 6);
    assert_eq!(api.users(names).await, expected);
    assert_eq!(look(&world, |world| world.asked_users.len()), 6, "cached");

    change(&world, |world| drop(world.users.insert(String::from("nobody"), json!({ "unixUid": 5 }))));
    pass(INCOMPLETE_MAX_AGE).await;
    assert_eq!(api.users(names).await["nobody"], user(5, None));
    assert_eq!(look(&world, |world| world.asked_users.len()), 6 + 4, "all but the two complete ones");
}

#[tokio::test]
async fn a_failing_user_endpoint_leaves_nulls_and_what_is_cached() {
    let (world, settings) = world().await;
    change(&world, |world| {
        let user = json!({ "unixUid": 20001, "email": "anna@example.com" });
        world.users = [(String::from("anna"), user.clone()), (String::from("ben"), user)].into();
    });
    let api = client(&settings);
    let anna = user(20001, "anna@example.com");
    assert_eq!(api.users(["anna"]).await["anna"], anna);
    pass(GID_MAX_AGE).await;
    for mood in [Mood::Says(500, ""), Mood::Says(403, ""), Mood::Says(200, "<html>"), Mood::Breaks, Mood::Redirects] {
        change(&world, |world| world.mood = mood);
        let users = api.users(["anna", "ben"]).await;
        assert_eq!((&users["anna"], &users["ben"]), (&anna, &UserIdentity::default()));
        pass(INCOMPLETE_MAX_AGE).await;
    }
    assert_eq!(look(&world, |world| world.asked_users.len()), 1);
    change(&world, |world| world.mood = Mood::Answers);
    assert_eq!(api.users(["anna", "ben"]).await["ben"], anna);
}

#[tokio::test]
async fn an_endpoint_that_hangs_for_one_user_is_asked_about_the_others_next() {
    let (world, settings) = world().await;
    let names: Vec<String> = (0..9).map(|number| format!("user-{number}")).collect();
    let api = client(&settings);
    api.resolve(["b"]).await.expect("a token is at hand from here on");
    change(&world, |world| world.mood = Mood::Hangs);
    tokio::time::pause();
    api.users(&names).await;
    tokio::time::resume();
    change(&world, |world| world.mood = Mood::Answers);
    pass(HOLD_OFF).await;
    api.users(&names).await;
    let asked = look(&world, |world| world.asked_users.clone());
    assert!(!asked.is_empty() && asked.len() < names.len(), "{asked:?}");
    assert!(asked.contains(&names[8]), "{asked:?}");
}

#[tokio::test]
async fn without_a_user_endpoint_nothing_is_asked() {
    let (world, settings) = world().await;
    let api = client(&settings::HpcUserApi { user_path: None, ..settings });
    assert_eq!(api.users(["anna"]).await, [(String::from("anna"), UserIdentity::default())].into());
    assert_eq!(look(&world, |world| world.tokens), 0);
}
