//! Read-only pages for operators below `/ui/` (`dashboard.enabled`).
//!
//! Every page is complete HTML without scripts. A middleware authenticates before any handler of a page runs, so a handler that
//! forgets the [`Operator`] is not public. Operators sign in at the realm ([`login`]); a session is in a cookie ([`session`]).

mod export;
mod filter;
mod health;
mod layout;
mod login;
mod pages;
mod routes;
mod session;
mod story;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, StatusCode};
use maud::{Markup, html};

use crate::auth::{CallerSlot, DEV_USER, Verifier};
use crate::config;
use layout::Frame;
pub use login::KeyError;
use login::SignIn;
pub use routes::Sources;

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
    /// How operators sign in; `None` when authentication is disabled.
    sign_in: Option<SignIn>,
    /// The path of `dashboard.public_url` without a trailing slash: what links begin with.
    base: String,
}

impl Dashboard {
    /// # Errors
    ///
    /// None in practice.
    pub fn new(settings: &config::Dashboard, verifier: &Arc<Verifier>) -> Result<Self, KeyError> {
        let path = settings.sign_in.as_ref().map_or("", |sign_in| sign_in.public_url.path());
        Ok(Self {
            base: path.trim_end_matches('/').to_owned(),
            settings: settings.clone(),
            sign_in: settings.sign_in.as_ref().map(|settings| SignIn::new(settings, verifier)).transpose()?,
        })
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
    /// The claim `preferred_username`, never blank; [`DEV_USER`] when authentication is disabled.
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
pub fn router<S: Clone + Send + Sync + 'static>(dashboard: Arc<Dashboard>, sources: Sources) -> Router<S> {
    let pages = routes::pages(Arc::clone(&dashboard), sources)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&dashboard), authenticate));
    Router::new()
        .merge(pages)
        .merge(routes::assets())
        .route("/ui", get(to_start))
        .route("/ui/login", get(login::login))
        .route("/ui/callback", get(login::callback))
        .route("/ui/logout", post(login::logout).fallback(not_posted))
        .route("/ui/{*rest}", any(not_found))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_response(with_headers))
        .with_state(dashboard)
}

/// Authenticates the operator before a page is made.
async fn authenticate(State(dashboard): State<Arc<Dashboard>>, request: Request, next: Next) -> Response {
    let Some(sign_in) = &dashboard.sign_in else {
        return as_operator(DEV_USER, request, next).await;
    };
    let target = request.uri().path_and_query().map_or(PREFIX, PathAndQuery::as_str).to_owned();
    let (session, cookie) = match sign_in.session(&dashboard, request.headers(), &target).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let mut response = if session.missing.is_empty() {
        as_operator(&session.username, request, next).await
    } else {
        sign_in.forbidden(&dashboard, &session, &target)
    };
    response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    response
}

/// Runs the handler for this operator.
async fn as_operator(username: &str, mut request: Request, next: Next) -> Response {
    if let Some(slot) = request.extensions().get::<CallerSlot>() {
        slot.set(username);
    }
    request.extensions_mut().insert(Operator { username: username.to_owned() });
    next.run(request).await
}

async fn to_start(State(dashboard): State<Arc<Dashboard>>) -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(LOCATION, dashboard.path("/ui/"))]).into_response()
}

async fn not_found(State(dashboard): State<Arc<Dashboard>>) -> Response {
    let text = "There is no page at this address.";
    message(&dashboard.frame(None), StatusCode::NOT_FOUND, "Page not found", text)
}

async fn method_not_allowed(State(dashboard): State<Arc<Dashboard>>) -> Response {
    not_allowed(&dashboard, "GET, HEAD", "This page can only be read.")
}

async fn not_posted(State(dashboard): State<Arc<Dashboard>>) -> Response {
    not_allowed(&dashboard, "POST", "This address only accepts the button “Sign out”.")
}

fn not_allowed(dashboard: &Dashboard, allow: &'static str, text: &str) -> Response {
    let page = message(&dashboard.frame(None), StatusCode::METHOD_NOT_ALLOWED, "Not possible", text);
    ([(ALLOW, allow)], page).into_response()
}

/// A failure outside of the handlers as a page, with the status and headers of `response`, for the request of this path.
pub(crate) fn failure(path: &str, response: &Response) -> Response {
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
    page(frame, status, title, &content)
}

/// A page that is not in the navigation.
fn page(frame: &Frame<'_>, status: StatusCode, title: &str, content: &Markup) -> Response {
    (status, layout::page(frame, title, None, content)).into_response()
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
