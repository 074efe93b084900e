//! The documentation of the API: Swagger UI at `/docs`, `ReDoc` at `/redoc`, and the document itself at `/openapi.json`.
//! `/` redirects browsers to `/docs`, or to the pages for operators if they are enabled.
//!
//! The pages load nothing from other hosts: scripts and styles are part of the program, and a `Content-Security-Policy`
//! enforces it. URLs in the pages are relative, so they also work below a prefix.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, LOCATION, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use utoipa_swagger_ui::SwaggerFile;
use xxhash_rust::xxh3::xxh3_64;

use super::{VERSION, caching, not_found};
use crate::compression::{Coding, Encoded};
use crate::openapi;

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Allows only scripts and requests of the same origin. Both libraries use inline styles and `data:` icons; `ReDoc` searches
/// in a worker that it creates itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Scripts and styles change only with the program. In seconds.
const A_DAY: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// The routes of the pages, the document and their assets. They need no token. `systems` are the names of the storage systems,
/// `home` is where `/` leads browsers.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(systems: &[&str], home: &'static str) -> Router<S> {
    let swagger_ui = include_str!("../../assets/swagger-ui.html");
    let redoc = include_str!("../../assets/redoc.html");
    let document = Asset::new("application/json", openapi::json(systems));
    let document = || document.clone().route();
    let part = |kind, content: &'static [u8]| Asset::new(kind, content).lasting().route();
    Router::new()
        .route("/", get(async move |headers: HeaderMap| to_home(&headers, home).await))
        .route("/openapi.json", document())
        .route("/openapi.json/", document())
        .route("/docs", page(swagger_ui, ""))
        .route("/docs/", page(swagger_ui, "../"))
        .route("/docs/start.js", part(JAVASCRIPT, include_bytes!("../../assets/swagger-ui.js")))
        .route("/docs/swagger-ui.css", part(CSS, of_swagger_ui("swagger-ui.css")))
        .route("/docs/swagger-ui-bundle.js", part(JAVASCRIPT, of_swagger_ui("swagger-ui-bundle.js")))
        .route("/redoc", page(redoc, ""))
        .route("/redoc/", page(redoc, "../"))
        .route("/redoc/redoc.standalone.js", part(JAVASCRIPT, include_bytes!("../../assets/redoc/redoc.standalone.js")))
}

/// Redirects browsers to `home`; other clients get 404.
async fn to_home(headers: &HeaderMap, home: &'static str) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_browser = accepted.into_iter().any(|value| value.to_ascii_lowercase().contains("text/html"));
    let mut response = not_found().await;
    if is_browser {
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(LOCATION, HeaderValue::from_static(home));
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// A page; `root` is the relative path from its URL to the root of the API.
fn page<S: Clone + Send + Sync + 'static>(html: &str, root: &str) -> MethodRouter<S> {
    Asset::new(HTML, html.replace("{root}", root)).route()
}

/// A file of Swagger UI, which is part of the program.
fn of_swagger_ui(name: &str) -> &'static [u8] {
    match utoipa_swagger_ui::serve(name, Arc::default()) {
        Ok(Some(SwaggerFile { bytes: Cow::Borrowed(content), .. })) => content,
        // A test checks that this does not happen.
        _ => b"",
    }
}

/// A static file, compressed at the first request.
#[derive(Debug, Clone)]
struct Asset {
    kind: &'static str,
    content: Bytes,
    etag: String,
    lasting: bool,
    encoded: Arc<Encoded>,
}

impl Asset {
    fn new(kind: &'static str, content: impl Into<Bytes>) -> Self {
        let content = content.into();
        let etag = format!("W/\"{VERSION}-{:016x}\"", xxh3_64(&content));
        Self { kind, content, etag, lasting: false, encoded: Arc::default() }
    }

    /// Allows browsers to keep it for a day without revalidation.
    fn lasting(self) -> Self {
        Self { lasting: true, ..self }
    }

    fn route<S: Clone + Send + Sync + 'static>(self) -> MethodRouter<S> {
        get(async move |headers: HeaderMap| self.answer(&headers).await)
    }

    async fn answer(&self, request: &HeaderMap) -> Response {
        let mut answer = Response::new(Body::empty());
        let headers = [
            (CONTENT_SECURITY_POLICY, POLICY),
            (REFERRER_POLICY, "no-referrer"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // Older browsers do not support `frame-ancestors`.
            (X_FRAME_OPTIONS, "DENY"),
            (VARY, "Accept-Encoding"),
        ];
        answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            answer.headers_mut().insert(ETAG, etag);
        }
        if self.lasting {
            answer.headers_mut().insert(CACHE_CONTROL, A_DAY);
        }
        if caching::is_current(request, &self.etag) {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return answer;
        }
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(self.kind));
        let mut content = self.content.clone();
        if let Some(coding) = Coding::preferred(request)
            && let Some(encoded) = self.encoded.get(String::new(), coding, std::slice::from_ref(&content)).await
        {
            answer.headers_mut().insert(CONTENT_ENCODING, coding.header());
            content = encoded;
        }
        *answer.body_mut() = Body::from(content);
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::body::to_bytes;
    use http::Request;
    use tower::ServiceExt;

    use super::*;

    const SYSTEMS: [&str; 2] = ["capstor", "vast"];

    async fn ask(path: &str) -> (HeaderMap, String) {
        let answer = send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let (parts, body) = answer.into_parts();
        (parts.headers, String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap())
    }

    async fn send(request: Request<Body>) -> Response {
        routes::<()>(&SYSTEMS, "docs").oneshot(request).await.unwrap()
    }

    /// The URLs in a page, as a browser resolves them.
    fn addresses(page: &str, html: &str) -> BTreeSet<String> {
        let base = url::Url::parse("http://proxy.example").unwrap().join(page).unwrap();
        let quoted = ["href=\"", "src=\"", "spec-url=\""].into_iter().flat_map(|key| html.split(key).skip(1));
        let texts = quoted.map(|rest| rest.split('"').next().unwrap()).filter(|text| *text != "data:,");
        texts.map(|text| base.join(text).unwrap().to_string()).collect()
    }

    #[tokio::test]
    async fn pages_refer_only_to_files_of_this_server() {
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
    async fn security_headers_are_set() {
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
    async fn the_document_is_served() {
        for path in ["/openapi.json", "/openapi.json/"] {
            assert_eq!(ask(path).await.1, openapi::json(&SYSTEMS));
        }
    }

    #[tokio::test]
    async fn assets_are_compressed_and_revalidated() {
        for path in
            ["/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "/redoc/redoc.standalone.js"]
        {
            let get = |name, value: &str| Request::get(path).header(name, value).body(Body::empty()).unwrap();
            for (accepted, coding) in [("gzip", "gzip"), ("zstd", "zstd"), ("gzip, deflate, br, zstd", "zstd")] {
                let answer = send(get(http::header::ACCEPT_ENCODING, accepted)).await;
                assert_eq!(answer.headers()[CONTENT_ENCODING], coding, "{path}");
                assert_eq!(answer.headers()[VARY], "Accept-Encoding", "{path}");
                let packed = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
                assert!(packed.len() * 2 < ask(path).await.1.len(), "{path}");
            }
            let (headers, _) = ask(path).await;
            assert!(!headers.contains_key(CONTENT_ENCODING), "{path}");
            let known = send(get(http::header::IF_NONE_MATCH, headers[ETAG].to_str().unwrap())).await;
            assert_eq!((known.status(), &known.headers()[ETAG]), (StatusCode::NOT_MODIFIED, &headers[ETAG]), "{path}");
            assert!(to_bytes(known.into_body(), 1).await.unwrap().is_empty(), "{path}");
            assert_eq!(send(get(http::header::IF_NONE_MATCH, "\"x\"")).await.status(), StatusCode::OK, "{path}");
        }
    }

    #[tokio::test]
    async fn the_root_redirects_browsers_to_the_documentation() {
        for (accepted, status) in
            [("text/html,application/xhtml+xml,*/*;q=0.8", 307), ("*/*", 404), ("application/json", 404)]
        {
            let answer = send(Request::get("/").header(ACCEPT, accepted).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), status, "{accepted}");
            assert_eq!(
                answer.headers().get(LOCATION).map(|to| to.to_str().unwrap()),
                (status == 307).then_some("docs")
            );
            assert_eq!(answer.headers()[VARY], "Accept");
        }
    }

    /// Swagger UI would need `/docs/oauth2-redirect` for other schemes than `http`.
    #[test]
    fn authorizing_needs_no_redirect() {
        let document: serde_json::Value = serde_json::from_str(&openapi::json(&[])).unwrap();
        let schemes = document["components"]["securitySchemes"].as_object().unwrap();
        assert!(!schemes.is_empty() && schemes.values().all(|scheme| scheme["type"] == "http"), "{schemes:?}");
    }
}
