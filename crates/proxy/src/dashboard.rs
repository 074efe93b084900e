//! Read-only pages for operators below `/ui/` (`dashboard.enabled`).
//!
//! Every page is complete HTML without scripts. A middleware authenticates before any handler of a page runs, so a handler that
//! forgets the [`Operator`] is not public.

mod layout;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use maud::{Markup, html};
use tracing::error;

use crate::auth::{AuthError, Caller, CallerSlot, Verifier};
use crate::config;
use layout::Frame;
use program::error_chain;

/// Where the pages are.
const PREFIX: &str = "/ui";

/// Allows only styles, images and forms of the same origin.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; \
                      base-uri 'none'";

/// Headers of every answer.
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // With `no-referrer`, browsers would send `Origin: null` with forms.
    (REFERRER_POLICY, "same-origin"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Older browsers do not support `frame-ancestors`.
    (X_FRAME_OPTIONS, "DENY"),
    (CACHE_CONTROL, "no-store"),
];

/// The state of the pages.
#[derive(Debug)]
pub struct Dashboard {
    pub(crate) settings: config::Dashboard,
    verifier: Arc<Verifier>,
    /// The path of `dashboard.public_url` without a trailing slash: what links begin with.
    base: String,
}

impl Dashboard {
    pub fn new(settings: &config::Dashboard, verifier: Arc<Verifier>) -> Self {
        let path = settings.sign_in.as_ref().map_or("", |sign_in| sign_in.public_url.path());
        Self { base: path.trim_end_matches('/').to_owned(), settings: settings.clone(), verifier }
    }

    /// The URL path of a page, for links: `path` begins with `/ui/`.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// What surrounds the content of a page.
    fn frame<'a>(&'a self, operator: Option<&'a Operator>) -> Frame<'a> {
        Frame {
            root: &self.base,
            username: operator.map(|operator| operator.username.as_str()),
            open_to_all: self.settings.sign_in.is_none(),
        }
    }
}

/// The person who looks at a page. Only pages behind the middleware have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The claim `preferred_username`, never blank; [`DEV_USER`](crate::auth::DEV_USER) when authentication is disabled.
    pub username: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        // Absent only if the route is not behind the middleware, which is a bug.
        parts.extensions.get().cloned().ok_or_else(|| StatusCode::INTERNAL_SERVER_ERROR.into_response())
    }
}

/// Whether a path belongs to the pages.
pub(crate) fn is_page(path: &str) -> bool {
    path.strip_prefix(PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// All routes of the pages.
pub fn router<S: Clone + Send + Sync + 'static>(dashboard: Arc<Dashboard>) -> Router<S> {
    let pages = Router::new()
        .route("/ui/", get(start))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&dashboard), authenticate));
    Router::new()
        .merge(pages)
        .route("/ui", get(to_start))
        .route("/ui/{*rest}", any(not_found))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_response(with_headers))
        .with_state(dashboard)
}

/// Authenticates the operator before a page is made.
async fn authenticate(State(dashboard): State<Arc<Dashboard>>, mut request: Request, next: Next) -> Response {
    let Caller { username, .. } = match dashboard.verifier.caller(request.headers()).await {
        Ok(caller) => caller,
        Err(error) => return refused(&dashboard, &error),
    };
    if let Some(slot) = request.extensions().get::<CallerSlot>() {
        slot.set(&username);
    }
    request.extensions_mut().insert(Operator { username });
    next.run(request).await
}

fn refused(dashboard: &Dashboard, error: &AuthError) -> Response {
    let status = match error {
        AuthError::Refused(_) => StatusCode::UNAUTHORIZED,
        AuthError::Forbidden { .. } => StatusCode::FORBIDDEN,
        AuthError::Unavailable(source) => {
            error!(error = error_chain(&**source), "cannot authenticate an operator");
            StatusCode::BAD_GATEWAY
        }
    };
    message(&dashboard.frame(None), status, "You cannot see this page", &error.to_string())
}

async fn start(State(dashboard): State<Arc<Dashboard>>, operator: Operator) -> Markup {
    let content = html! {
        h1 { "Storage" }
        ul {
            li { a href=(dashboard.path("/docs")) { "Documentation of the API" } }
            li { a href=(dashboard.settings.waldur_url) { "Waldur" } }
        }
    };
    layout::page(&dashboard.frame(Some(&operator)), "Storage", &content)
}

async fn to_start(State(dashboard): State<Arc<Dashboard>>) -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, dashboard.path("/ui/"))]).into_response()
}

async fn not_found(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let text = "There is no page at this address.";
    message(&dashboard.frame(None), StatusCode::NOT_FOUND, "Page not found", text)
}

async fn method_not_allowed(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let text = "This page can only be read.";
    let page = message(&dashboard.frame(None), StatusCode::METHOD_NOT_ALLOWED, "Not possible", text);
    ([(ALLOW, "GET, HEAD")], page).into_response()
}

/// A failure outside of the handlers as a page, with the status and headers of `response`, for the request of this path.
pub(crate) fn failure(path: &str, response: Response) -> Response {
    let text = match response.status() {
        StatusCode::SERVICE_UNAVAILABLE => "There are too many requests at the moment. Try again in a few seconds.",
        StatusCode::GATEWAY_TIMEOUT => "Another service is slow. Try again in a minute.",
        _ => "An internal error occurred. The log of hpc-storage-proxy contains the details.",
    };
    // Relative, because the prefix of a reverse proxy is not known here.
    let root = match path.matches('/').count() {
        0 | 1 => String::from("."),
        depth => vec![".."; depth - 1].join("/"),
    };
    let frame = Frame { root: &root, username: None, open_to_all: false };
    let mut page = message(&frame, response.status(), "This page cannot be shown now", text);
    page.headers_mut().extend(response.headers().get(RETRY_AFTER).map(|value| (RETRY_AFTER, value.clone())));
    set_headers(&mut page);
    page
}

/// A page that only says something.
fn message(frame: &Frame<'_>, status: StatusCode, title: &str, text: &str) -> Response {
    let content = html! {
        h1 { (title) }
        p { (text) }
        p { a href={ (frame.root) "/ui/" } { "Go to the first page" } }
    };
    (status, layout::page(frame, title, &content)).into_response()
}

async fn with_headers(mut response: Response) -> Response {
    set_headers(&mut response);
    response
}

/// Sets the headers of every answer. A `Cache-Control` that is already there stays: styles may be kept.
fn set_headers(response: &mut Response) {
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests;
