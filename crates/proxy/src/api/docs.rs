//! Pages about the API for people: Swagger UI at `/docs`, ReDoc at `/redoc`, and the document itself at `/openapi.json`.
//!
//! The pages need nothing from outside: scripts and styles are part of the program, and a `Content-Security-Policy`
//! keeps browsers from asking any other host. Addresses in the pages are relative, so they also work below a prefix.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Response};
use utoipa_swagger_ui::SwaggerFile;

use crate::openapi;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// Own scripts, requests to the own origin, nothing else. Both libraries set styles inline and draw icons from
/// `data:`; ReDoc searches in a worker that it makes itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Scripts and styles change with the program alone; in seconds.
const A_DAY: &str = "public, max-age=86400";

/// The routes of the pages, the document and their parts. They need no token.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let swagger_ui = include_str!("../assets/swagger-ui.html");
    let redoc = include_str!("../assets/redoc.html");
    Router::new()
        .route("/openapi.json", document())
        .route("/openapi.json/", document())
        .route("/docs", page(swagger_ui, ""))
        .route("/docs/", page(swagger_ui, "../"))
        .route("/docs/start.js", part(JAVASCRIPT, include_bytes!("../assets/swagger-ui.js")))
        .route("/docs/swagger-ui.css", part(CSS, of_swagger_ui("swagger-ui.css")))
        .route("/docs/swagger-ui-bundle.js", part(JAVASCRIPT, of_swagger_ui("swagger-ui-bundle.js")))
        .route("/redoc", page(redoc, ""))
        .route("/redoc/", page(redoc, "../"))
        .route("/redoc/redoc.standalone.js", part(JAVASCRIPT, include_bytes!("../assets/redoc/redoc.standalone.js")))
}

fn document<S: Clone + Send + Sync + 'static>() -> MethodRouter<S> {
    get(async || answer("application/json", Bytes::from_static(openapi::json().as_bytes())))
}

/// A page; `root` leads from its address to where `/openapi.json` is.
fn page<S: Clone + Send + Sync + 'static>(html: &str, root: &str) -> MethodRouter<S> {
    let html = Bytes::from(html.replace("{root}", root));
    get(async move || answer("text/html; charset=utf-8", html))
}

/// A script or style.
fn part<S: Clone + Send + Sync + 'static>(kind: &'static str, content: &'static [u8]) -> MethodRouter<S> {
    get(async move || {
        let mut answer = answer(kind, Bytes::from_static(content));
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(A_DAY));
        answer
    })
}

/// A file of Swagger UI; the program holds all of them.
fn of_swagger_ui(name: &str) -> &'static [u8] {
    match utoipa_swagger_ui::serve(name, Arc::default()) {
        Ok(Some(SwaggerFile { bytes: Cow::Borrowed(content), .. })) => content,
        // A test sees to it that this does not happen.
        _ => b"",
    }
}

fn answer(kind: &'static str, content: Bytes) -> Response<Body> {
    let mut answer = Response::new(Body::from(content));
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Older browsers know no `frame-ancestors`.
        (X_FRAME_OPTIONS, "DENY"),
    ];
    answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::to_bytes;
    use http::{HeaderMap, Request, StatusCode};
    use tower::ServiceExt;

    use super::*;

    async fn ask(path: &str) -> (HeaderMap, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = routes::<()>().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let (parts, body) = answer.into_parts();
        (parts.headers, String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap())
    }

    /// What the page refers to, as the browser resolves it.
    fn addresses(page: &str, html: &str) -> BTreeSet<String> {
        let base = url::Url::parse("http://proxy.example").unwrap().join(page).unwrap();
        let quoted = ["href=\"", "src=\"", "spec-url=\""].into_iter().flat_map(|key| html.split(key).skip(1));
        let texts = quoted.map(|rest| rest.split('"').next().unwrap()).filter(|text| *text != "data:,");
        texts.map(|text| base.join(text).unwrap().to_string()).collect()
    }

    #[tokio::test]
    async fn pages_refer_to_what_is_served_here_alone() {
        let swagger_ui = ["docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "openapi.json"];
        let redoc = ["openapi.json", "redoc/redoc.standalone.js"];
        for (page, parts) in
            [("/docs", &swagger_ui[..]), ("/docs/", &swagger_ui), ("/redoc", &redoc), ("/redoc/", &redoc)]
        {
            let (_, html) = ask(page).await;
            for prefix in ["", "/below"] {
                let expected = parts.iter().map(|part| format!("http://proxy.example{prefix}/{part}"));
                assert_eq!(addresses(&format!("{prefix}{page}"), &html), expected.collect(), "{prefix}{page}");
            }
            for part in parts {
                let (_, content) = ask(&format!("/{part}")).await;
                assert!(content.len() > 100, "{part}");
            }
        }
    }

    #[tokio::test]
    async fn browsers_are_told_what_they_may_do() {
        for (path, kind) in [
            ("/docs", "text/html; charset=utf-8"),
            ("/docs/swagger-ui.css", CSS),
            ("/docs/swagger-ui-bundle.js", JAVASCRIPT),
            ("/redoc/", "text/html; charset=utf-8"),
            ("/redoc/redoc.standalone.js", JAVASCRIPT),
            ("/openapi.json", "application/json"),
        ] {
            let (headers, _) = ask(path).await;
            assert_eq!(headers[CONTENT_TYPE], kind, "{path}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
            assert_eq!(headers[REFERRER_POLICY], "no-referrer", "{path}");
            assert_eq!(headers[X_FRAME_OPTIONS], "DENY", "{path}");
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none';") && !policy.contains("http"), "{path}");
            assert_eq!(headers.contains_key(CACHE_CONTROL), [CSS, JAVASCRIPT].contains(&kind), "{path}");
        }
    }

    #[tokio::test]
    async fn the_document_is_served_as_it_is_committed() {
        for path in ["/openapi.json", "/openapi.json/"] {
            assert_eq!(ask(path).await.1, openapi::json());
        }
    }
}
