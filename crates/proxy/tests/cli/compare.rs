//! `compare`, against a scripted proxy.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::site::{Ended, Site};

/// The responses of the scripted proxy, and the requests it received.
#[derive(Default)]
struct Script {
    items: Vec<Value>,
    token: Option<&'static str>,
    /// Maximum page size.
    largest: usize,
    /// Number of times that later pages lack an item.
    torn: usize,
    redirect: Option<String>,
    requests: Vec<HashMap<String, String>>,
    tokens: Vec<String>,
}

#[derive(Clone)]
struct Fake {
    script: Arc<Mutex<Script>>,
    url: String,
}

impl Fake {
    fn start(script: Script) -> Self {
        let script = Arc::new(Mutex::new(script));
        let router = Router::new().route("/api/storage-resources/", get(listing)).with_state(Arc::clone(&script));
        let (sender, receiver) = mpsc::channel::<SocketAddr>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        Self { script, url: format!("http://{}", receiver.recv().unwrap()) }
    }

    fn of(items: Vec<Value>) -> Self {
        Self::start(Script { items, largest: 500, ..Script::default() })
    }

    fn requests(&self) -> Vec<HashMap<String, String>> {
        self.script.lock().unwrap().requests.clone()
    }
}

async fn listing(
    State(script): State<Arc<Mutex<Script>>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let mut script = script.lock().unwrap();
    let token = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    script.tokens.extend(token.clone());
    script.requests.push(query.clone());
    if let Some(place) = &script.redirect {
        return (StatusCode::FOUND, [(header::LOCATION, place.clone())]).into_response();
    }
    if script.token.is_some_and(|wanted| token != Some(format!("Bearer {wanted}"))) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"detail": "no"}))).into_response();
    }
    let [page, size] = ["page", "page_size"].map(|key| query[key].parse::<usize>().unwrap());
    if size > script.largest {
        return (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"detail": []}))).into_response();
    }
    let mut items = script.items.clone();
    if page > 1 && script.torn > 0 {
        script.torn -= 1;
        items.pop();
    }
    let resources: Vec<_> = items.iter().skip((page - 1) * size).take(size).collect();
    Json(json!({"status": "success", "resources": resources, "pagination": {"total": items.len()}})).into_response()
}

fn items(site: &Site) -> Vec<Value> {
    site.run(&["list", "--json"]).json()["resources"].as_array().unwrap().clone()
}

fn compare(site: &Site, fake: &Fake, more: &[&str]) -> Ended {
    site.run(&[&["compare", &fake.url], more].concat())
}

fn file(directory: &TempDir, text: &str) -> String {
    let path = directory.path().join("token");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn identical_listings_have_no_difference() {
    let site = Site::golden("plain");
    let fake = Fake::of(items(&site));
    let ended = compare(&site, &fake, &["--strict"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{ended:?}");
    assert!(ended.stdout.ends_with("compared: no difference\n"), "{}", ended.stdout);
    let answer = compare(&site, &fake, &["--json"]).json();
    let count = answer["compared"].as_u64().unwrap();
    assert!(count > 10 && answer["ours"]["items"] == count && answer["theirs"]["items"] == count, "{answer}");
    assert_eq!((&answer["ok"], &answer["steady"], &answer["differences"]), (&json!(true), &json!(true), &json!([])));
}

#[test]
fn each_difference_is_shown_and_fails() {
    let site = Site::golden("plain");
    let mut theirs = items(&site);
    theirs[0]["permission"]["value"] = json!("700\u{1b}[2J");
    let gone = theirs.pop().unwrap();
    let fake = Fake::of(theirs);
    let ended = compare(&site, &fake, &[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stdout.contains("permission.value") && ended.stdout.contains("(whole item)"), "{}", ended.stdout);
    assert!(ended.stdout.contains(gone["itemId"].as_str().unwrap()) && !ended.stdout.contains('\u{1b}'));
    assert!(ended.stdout.ends_with("compared: 2 differences\n"), "{}", ended.stdout);
    let answer = compare(&site, &fake, &["--json"]).json();
    let differences = answer["differences"].as_array().unwrap();
    assert_eq!((&answer["ok"], differences.len()), (&json!(false), 2));
    assert_eq!(differences[0]["theirs"], "700\u{1b}[2J");
    assert_eq!((&differences[1]["ours"], differences[1].get("theirs")), (&gone, None));
}

#[test]
fn known_differences_and_the_order_count_only_with_strict() {
    let site = Site::golden("plain");
    let mut theirs = items(&site);
    let user = theirs.iter_mut().find(|item| item["target"]["targetType"] == "user").unwrap();
    user["target"]["targetItem"]["unixUid"] = json!(23_456);
    let known = Fake::of(theirs.clone());
    let ended = compare(&site, &known, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("known 1 × the Python proxy invents UID"), "{}", ended.stdout);
    assert_eq!(compare(&site, &known, &["--strict"]).code, Some(1));
    assert_eq!(compare(&site, &known, &["--json"]).json()["differences"][0]["known"]["decision"], "D5");

    let mut turned = items(&site);
    turned.rotate_left(1);
    let turned = Fake::of(turned);
    let ended = compare(&site, &turned, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("order 1 item out of place"), "{}", ended.stdout);
    assert_eq!(compare(&site, &turned, &["--strict"]).code, Some(1));
}

#[test]
fn pages_have_the_allowed_size_and_are_read_again_if_inconsistent() {
    let site = Site::new(simulator::World::large(150));
    let fake = Fake::start(Script { items: items(&site), largest: 100, torn: 1, ..Script::default() });
    let ended = compare(&site, &fake, &["--strict"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let requested: Vec<_> =
        fake.requests().iter().map(|query| (query["page"].clone(), query["page_size"].clone())).collect();
    let requested: Vec<_> = requested.iter().map(|(page, size)| (page.as_str(), size.as_str())).collect();
    assert_eq!(requested[..5], [("1", "500"), ("1", "100"), ("2", "100"), ("1", "100"), ("2", "100")]);

    fake.script.lock().unwrap().torn = usize::MAX;
    let ended = compare(&site, &fake, &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{ended:?}");
    assert!(ended.stderr.contains("were inconsistent 3 times in a row"), "{}", ended.stderr);
}

#[test]
fn a_token_is_sent_only_to_its_proxy_and_never_shown() {
    const TOKEN: &str = "abc.def-123";
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, &format!("{TOKEN}\n"));
    let site = Site::golden("one-project");
    let elsewhere = Fake::of(items(&site));
    let fake = Fake::start(Script { items: items(&site), largest: 500, token: Some(TOKEN), ..Script::default() });
    let ended = compare(&site, &fake, &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("--token-file"), "{}", ended.stderr);
    assert_eq!(compare(&site, &fake, &["--token-file", &path]).code, Some(0));
    let by_variable = Site::golden("one-project").with("COMPARE_TOKEN", TOKEN).with("DEBUG", "true");
    let ended = compare(&by_variable, &fake, &["--with", &elsewhere.url]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!format!("{ended:?}").contains(TOKEN), "{ended:?}");
    fake.script.lock().unwrap().redirect = Some(format!("{}/api/storage-resources/", elsewhere.url));
    let ended = compare(&site, &fake, &["--token-file", &path]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("redirects are not followed"), "{}", ended.stderr);
    assert!(elsewhere.script.lock().unwrap().tokens.is_empty());
}

#[test]
fn a_token_is_fetched_with_client_credentials() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, crate::site::SECRET);
    let site = Site::golden("one-project");
    let fake = Fake::of(items(&site));
    let token_url = site.simulator.token_url();
    let client = ["--client-id", "hpc-client", "--client-secret-file", &path, "--token-url", &token_url];
    let ended = compare(&site, &fake, &client);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let tokens = fake.script.lock().unwrap().tokens.clone();
    assert!(tokens.len() == 1 && tokens[0].starts_with("Bearer ey"), "{}", tokens.len());

    fs::write(&path, "not the secret").unwrap();
    let ended = compare(&site, &fake, &client);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("--client-id") && !ended.stderr.contains("HPC_USER"), "{}", ended.stderr);
}

#[test]
fn two_proxies_need_no_settings() {
    let site = Site::golden("plain");
    let (one, other) = (Fake::of(items(&site)), Fake::of(items(&site)));
    let bare = Site::golden("empty").without(&["STORAGE_SYSTEMS", "WALDUR_API_URL"]);
    let ended = compare(&bare, &one, &["--with", &other.url]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(bare.simulator.requests().len(), 0);
    let ended = compare(&bare, &one, &[]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
}

#[test]
fn usage_errors_and_unreadable_proxies_have_different_exit_codes() {
    let site = Site::golden("one-project");
    let fake = Fake::of(items(&site));
    for (arguments, code, text) in [
        (&["compare", "ftp://x/"][..], 2, "neither http nor https"),
        (
            &["compare", "127.0.0.1:28200"],
            2,
            "use one such as https://storage-proxy.example.org or http://127.0.0.1:8000",
        ),
        (&["compare", "localhost:28200"], 2, "use one such as https://"),
        (&["compare", "http://user:pass@x/"], 2, "credentials"),
        (&["compare", "http://x/?page=2"], 2, "query"),
        (&["compare", "http://127.0.0.1:9/"], 3, "cannot connect"),
        (
            &["compare", "http://127.0.0.1:9/", "--token-file", "/nowhere"],
            2,
            "--token-file /nowhere: it cannot be read",
        ),
        (&["compare", &format!("{}/elsewhere", fake.url)], 3, "use the base URL"),
        (&["compare", &fake.url, "--client-id", "a"], 2, "--client-secret-file"),
    ] {
        let ended = site.run(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(code), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(text) && !ended.stderr.contains("pass@"), "{arguments:?}: {ended:?}");
    }
    let ended = compare(&site.with("WALDUR_API_TOKEN", "2".repeat(40)), &fake, &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
}
