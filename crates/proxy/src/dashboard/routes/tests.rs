use std::sync::Condvar;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use http::HeaderMap;
use serde_json::{Value, json};
use simulator::{Simulator, World};
use tower::ServiceExt;

use super::*;
use crate::api::{self, Service};
use crate::testing;
use program::Clock;

/// A proxy without authentication, with the simulator's example world.
async fn proxy() -> (Simulator, Service) {
    let simulator = Simulator::start(World::demo()).await;
    let settings = [("DASHBOARD_ENABLED", "true"), ("DISABLE_AUTH", "true")];
    let service = Service::new(&testing::settings(&simulator, &settings), &Clock::system()).unwrap();
    (simulator, service)
}

async fn get(service: &Service, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let (parts, body) = api::router(service).oneshot(request).await.unwrap().into_parts();
    (parts.status, parts.headers, String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap())
}

fn pages(service: &Service) -> Pages {
    let sources = Sources {
        store: Arc::clone(&service.store),
        reports: Arc::clone(&service.reports),
        verifier: Arc::clone(&service.verifier),
        has_push: false,
        clock: service.clock.clone(),
    };
    Pages::new(service.dashboard.clone().unwrap(), sources)
}

async fn put_report(service: &Service, report: &Value) {
    let request = Request::put("/api/provisioners/alpha/status").body(Body::from(report.to_string())).unwrap();
    let answer = api::router(service).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}

fn report(service: &Service, id: &str) -> Value {
    let now = super::super::text::rfc3339(OffsetDateTime::from(service.clock.now()));
    json!({
        "program": "test 1", "reportedAt": now, "nextWithinSeconds": 600, "pass": {"endedAt": now, "durationSeconds": 1.0},
        "systems": [{"name": "capstor", "terabyte": "TB"}],
        "resources": [{
            "id": id, "system": "capstor", "path": "/x", "observed": "unmarked",
            "hold": {"kind": "conflict", "turn": "operator", "reason": "a strange directory", "commands": ["adopt it"]},
        }],
    })
}

#[tokio::test]
async fn every_page_is_served_and_shows_a_new_report() {
    let (_simulator, service) = proxy().await;
    for (path, text) in [
        ("/ui/", "nobody reports about it"),
        ("/ui/resources", "<tbody>"),
        ("/ui/changes", "Nobody reports about "),
        ("/ui/trash", "No provisioner reports usage."),
    ] {
        let (status, headers, page) = get(&service, path).await;
        assert_eq!((status, &headers["content-type"]), (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap()));
        assert!(page.contains(text), "{path}: {page}");
    }
    let (_, headers, json) = get(&service, "/ui/resources.json?status=active&turn=nobody").await;
    assert_eq!(headers["content-disposition"], "attachment; filename=\"storage-resources.json\"");
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    let id = rows[0]["id"].as_str().unwrap();
    assert!(rows.iter().all(|row| row["status"] == "active" && row["turn"] == "nobody"), "{json}");
    put_report(&service, &report(&service, id)).await;
    let (_, _, page) = get(&service, &format!("/ui/resources/{id}")).await;
    assert!(page.contains("a strange directory") && page.contains("adopt it"), "{page}");
    assert!(page.contains("From the report of <bdi>alpha</bdi>."), "{page}");
    let (_, _, page) = get(&service, "/ui/").await;
    assert!(page.contains("turn=operator") && page.contains("alpha reports about it"), "{page}");
    let (_, headers, csv) = get(&service, "/ui/resources.csv?hold=conflict").await;
    assert_eq!(headers["content-type"], "text/csv; charset=utf-8; header=present");
    assert_eq!(csv.lines().count(), 2, "{csv}");
}

#[tokio::test]
async fn an_unknown_resource_is_not_found() {
    let (_simulator, service) = proxy().await;
    for id in ["x", "00000000-0000-0000-0000-000000000000", "%ff"] {
        let (status, _, page) = get(&service, &format!("/ui/resources/{id}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{id}");
        assert!(page.contains("There is no such resource"), "{id}: {page}");
    }
}

#[tokio::test]
async fn pages_work_without_waldur() {
    let (simulator, service) = proxy().await;
    drop(simulator);
    for path in ["/ui/", "/ui/resources", "/ui/changes", "/ui/trash", "/ui/resources.csv"] {
        let (status, _, page) = get(&service, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(path.ends_with("csv") || page.contains("Waldur has not been read yet"), "{path}: {page}");
    }
}

#[tokio::test]
async fn the_stylesheet_and_the_icon_are_served() {
    let (_simulator, service) = proxy().await;
    for (path, kind) in [("/ui/style.css?v=1", "text/css; charset=utf-8"), ("/ui/icon.svg", "image/svg+xml")] {
        let (status, headers, _) = get(&service, path).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
        assert_eq!(headers["cache-control"], "public, max-age=3600");
    }
}

#[tokio::test]
async fn the_story_is_made_once_for_the_same_data() {
    let (_simulator, service) = proxy().await;
    let pages = pages(&service);
    let reading = pages.reading().await.unwrap();
    let now = OffsetDateTime::from(service.clock.now());
    let story = |now| pages.story(Some(&reading.snapshot), now);
    let first = story(now);
    assert!(Arc::ptr_eq(&first, &story(now + time::Duration::hours(1))));
    let id = first.rows[0].id.unwrap().to_string();
    put_report(&service, &report(&service, &id)).await;
    let second = story(now);
    assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &story(now)));
    // The provisioner has become silent.
    assert!(story(now + time::Duration::hours(1)).provisioners[0].is_silent);
}

/// Otherwise the API would wait for processors.
#[tokio::test(flavor = "multi_thread")]
async fn many_pages_are_made_one_after_another() {
    let (_simulator, service) = proxy().await;
    let pages = Arc::new(pages(&service));
    let limit = pages.making.available_permits();
    assert!(limit <= (available_parallelism().unwrap().get() / 2).max(1));
    let running = Arc::new((Mutex::new(0), Condvar::new()));
    let page = |_| {
        let running = Arc::clone(&running);
        Arc::clone(&pages).answer(Operator { username: "x".into() }, move |_, _| {
            let (count, changed) = &*running;
            let mut count = lock(count);
            *count += 1;
            changed.notify_all();
            // Time for the other ones.
            let waited = changed.wait_timeout_while(count, Duration::from_millis(100), |count| *count <= limit);
            let (mut count, waited) = waited.unwrap();
            let answer = if waited.timed_out() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            *count -= 1;
            answer.into_response()
        })
    };
    for answer in futures::future::join_all((0..=2 * limit).map(page)).await {
        assert_eq!(answer.status(), StatusCode::OK, "more than {limit} at the same time");
    }
}
