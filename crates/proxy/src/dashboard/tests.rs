use axum::body::{Body, to_bytes};
use http::Method;
use simulator::{Simulator, World};
use tower::ServiceExt;

use super::*;
use crate::api::{self, Service};
use crate::testing;
use program::Clock;

/// Settings of a dashboard without authentication.
const OPEN: [(&str, &str); 2] = [("DASHBOARD_ENABLED", "true"), ("DISABLE_AUTH", "true")];

async fn send(settings: &[(&str, &str)], request: Request) -> (StatusCode, http::HeaderMap, String) {
    let simulator = Simulator::start(World::empty()).await;
    let service = Service::new(&testing::settings(&simulator, settings), &Clock::system()).unwrap();
    let answer = api::router(&service).oneshot(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
    (parts.status, parts.headers, body)
}

fn get_request(path: &str) -> Request {
    Request::get(path).header("accept", "text/html").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn disabled_by_default() {
    for path in ["/ui", "/ui/", "/ui/resources"] {
        let (status, headers, _) = send(&[], get_request(path)).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::NOT_FOUND, &HeaderValue::from_static("application/json"))
        );
    }
    assert_eq!(send(&[], get_request("/")).await.1[LOCATION], "docs");
}

#[tokio::test]
async fn every_answer_is_a_page_with_strict_headers() {
    let request = |method: Method, path: &str| Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    for (method, path, status) in [
        (Method::GET, "/ui/", 200),
        (Method::HEAD, "/ui/", 200),
        (Method::GET, "/ui/nowhere", 404),
        (Method::POST, "/ui/nowhere/at/all/", 404),
        (Method::POST, "/ui/", 405),
        (Method::GET, "/ui", 308),
    ] {
        let (answered, headers, body) = send(&OPEN, request(method.clone(), path)).await;
        assert_eq!(answered, status, "{method} {path}");
        for (name, value) in HEADERS {
            assert_eq!(headers[&name], value, "{method} {path}");
        }
        if status != 308 {
            assert_eq!(headers["content-type"], "text/html; charset=utf-8", "{method} {path}");
            assert_eq!(body.starts_with("<!DOCTYPE html>"), method != Method::HEAD, "{method} {path}");
        }
        assert_eq!(headers.contains_key(ALLOW), status == 405, "{method} {path}");
    }
    assert_eq!(send(&OPEN, get_request("/")).await.1[LOCATION], "ui/");
}

#[tokio::test]
async fn without_authentication_a_banner_says_so() {
    let (_, _, body) = send(&OPEN, get_request("/ui/")).await;
    assert!(body.contains("Authentication is disabled"), "{body}");
}

#[test]
fn paths_of_pages() {
    assert!(is_page("/ui") && is_page("/ui/") && is_page("/ui/{*rest}"));
    assert!(!is_page("/uix") && !is_page("/") && !is_page("/api/ui/"));
}

#[tokio::test]
async fn failures_outside_of_handlers_are_pages_too() {
    let many = (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response();
    for (path, root) in [("/ui", "./ui/"), ("/ui/", "../ui/"), ("/ui/resources/x", "../../ui/")] {
        let page = failure(path, &many);
        assert_eq!((page.status(), &page.headers()[RETRY_AFTER]), (many.status(), &many.headers()[RETRY_AFTER]));
        assert_eq!(page.headers()[CONTENT_SECURITY_POLICY], POLICY);
        let body = String::from_utf8(to_bytes(page.into_body(), usize::MAX).await.unwrap().into()).unwrap();
        assert!(body.contains(&format!("href=\"{root}\"")), "{path}: {body}");
    }
}
