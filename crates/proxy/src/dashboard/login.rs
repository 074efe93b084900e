//! Sign-in and sign-out of operators.
//!
//! A page without a session redirects to `/ui/login`, which sends the browser to the realm; the realm sends it to `/ui/callback`. What
//! belongs to a sign-in is in a cookie whose name contains its `state`, so several tabs can sign in at once, and a sign-in that another
//! browser began cannot be completed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use http::header::{LOCATION, ORIGIN, REFRESH, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use maud::{Markup, html};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio::sync::Semaphore;
use tracing::{error, info, warn};
use url::{Url, form_urlencoded};

use super::session::{Cookies, SIGN_IN_TIME, Session, SignInState};
use super::{Dashboard, PREFIX, message};
use crate::auth::{CodeFlow, GrantError, Verifier};
use crate::config;
use crate::metrics::{self, SignIn as Outcome};
use program::{error_chain, lock};

/// Longest path to which a sign-in returns.
const MAX_RETURN: usize = 1024;
/// Maximum number of sign-ins that are completed at the same time. Anybody can send such requests: while the realm is slow, they must not use
/// up those that `server.max_requests` allows.
const MAX_COMPLETING: usize = 32;
/// How long the result of a refresh is kept, for requests that were sent with the old cookie.
const REMEMBERED: Duration = Duration::from_mins(1);

/// Sign-in of operators.
#[derive(Debug)]
pub(super) struct SignIn {
    flow: Arc<CodeFlow>,
    cookies: Cookies,
    /// Scheme, host and port under which browsers reach the proxy.
    origin: String,
    /// `dashboard.public_url`, for the page after sign-out.
    public_url: Url,
    completing: Semaphore,
    refreshes: Refreshes,
}

/// The key of the cookies cannot be derived, which is a bug.
#[derive(Debug, Error)]
#[error("cannot derive the key of the dashboard's cookies")]
pub struct KeyError;

impl SignIn {
    pub(super) fn new(settings: &config::SignIn, verifier: &Arc<Verifier>) -> Result<Self, KeyError> {
        let flow = CodeFlow::new(Arc::clone(verifier), settings);
        let cookies = Cookies::new(settings, flow.issuer().unwrap_or_default()).map_err(|_| KeyError)?;
        Ok(Self {
            flow: Arc::new(flow),
            cookies,
            origin: settings.public_url.origin().ascii_serialization(),
            public_url: settings.public_url.clone(),
            completing: Semaphore::new(MAX_COMPLETING),
            refreshes: Refreshes::default(),
        })
    }

    /// The session of a request, and the cookie to send if it was refreshed; or the answer instead of the page.
    pub(super) async fn session(
        &self,
        dashboard: &Dashboard,
        headers: &HeaderMap,
        target: &str,
    ) -> Result<(Session, Option<HeaderValue>), Response> {
        let Some(session) = self.cookies.session(headers) else { return Err(to_login(dashboard, target)) };
        if self.flow.now() < session.valid_until {
            return Ok((session, None));
        }
        match self.refreshes.refresh(&self.flow, &session).await {
            Ok(session) => match self.cookies.set_session(&session) {
                Some(cookie) => Ok((session, Some(cookie))),
                None => Err(too_large(dashboard)),
            },
            Err(GrantError::Ended) => {
                info!(caller = session.username, "the operator's session at the realm has ended");
                Err(with_cookies(to_login(dashboard, target), [self.cookies.remove_session()]))
            }
            Err(error) => Err(failed(dashboard, &error, target)),
        }
    }

    /// The page for an operator without the required roles.
    pub(super) fn forbidden(&self, dashboard: &Dashboard, session: &Session, target: &str) -> Response {
        let plural = if session.missing.len() == 1 { "role" } else { "roles" };
        let content = html! {
            h1 { "You lack a role" }
            p { "You are signed in as " strong { (session.username) } ". To see these pages, you need the " (plural) " "
                @for (number, role) in session.missing.iter().enumerate() {
                    @if number > 0 { ", " }
                    code { (role) }
                }
                " in the realm " code { (self.flow.issuer().unwrap_or_default()) } ". Ask its administrators for it, then check again." }
            p { a href=(login_path(dashboard, target)) { "Check again" } }
            (sign_out(dashboard))
        };
        page(dashboard, StatusCode::FORBIDDEN, "You lack a role", &content)
    }
}

/// The button that signs out.
pub(super) fn sign_out(dashboard: &Dashboard) -> Markup {
    html! {
        form method="post" action=(dashboard.path("/ui/logout")) { button { "Sign out" } }
    }
}

fn page(dashboard: &Dashboard, status: StatusCode, title: &str, content: &Markup) -> Response {
    super::page(&dashboard.frame(None), status, title, content)
}

fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    response.headers_mut().extend(cookies.into_iter().map(|cookie| (SET_COOKIE, cookie)));
    response
}

fn see_other(to: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response()
}

/// The path of the sign-in that returns to this path and query, or to the path if both are too long: reverse proxies refuse large headers.
fn login_path(dashboard: &Dashboard, target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let target = [target, path].into_iter().find(|target| target.len() <= MAX_RETURN).unwrap_or_default();
    let to: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
    format!("{}?to={to}", dashboard.path("/ui/login"))
}

fn to_login(dashboard: &Dashboard, target: &str) -> Response {
    see_other(&login_path(dashboard, target))
}

/// The page for a failure at the realm. `to` is where a new sign-in returns.
fn failed(dashboard: &Dashboard, error: &GrantError, to: &str) -> Response {
    let (status, text) = match error {
        GrantError::Ended => {
            warn!("a sign-in failed: the realm does not accept its code");
            (
                StatusCode::BAD_REQUEST,
                "The realm does not accept this sign-in: it was completed before, or it took too long.",
            )
        }
        GrantError::Unavailable(source) => {
            error!(error = error_chain(&**source), "an operator cannot sign in");
            (StatusCode::BAD_GATEWAY, "The identity provider cannot be reached. Try again in a minute.")
        }
        GrantError::Client(_) | GrantError::Redirect(_) | GrantError::Token(_) => {
            error!(error = error_chain(error), "an operator cannot sign in");
            (
                StatusCode::BAD_GATEWAY,
                "The identity provider and this service do not understand each other. The log of hpc-storage-proxy says what its \
                 administrators have to change.",
            )
        }
    };
    let mut response = retry(dashboard, status, "Sign-in failed", text, to);
    if status == StatusCode::BAD_GATEWAY {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}

/// How a sign-in ends with this error.
fn outcome(error: &GrantError) -> Outcome {
    match error {
        GrantError::Ended => Outcome::Invalid,
        GrantError::Unavailable(_) => Outcome::Unavailable,
        GrantError::Client(_) | GrantError::Redirect(_) | GrantError::Token(_) => Outcome::Misconfigured,
    }
}

fn too_large(dashboard: &Dashboard) -> Response {
    error!(
        "the realm's refresh token does not fit into a cookie of 4096 bytes; remove protocol mappers from the client dashboard.client_id"
    );
    let text =
        "The realm's answer is too large. The log of hpc-storage-proxy says what its administrators have to change.";
    message(&dashboard.frame(None), StatusCode::BAD_GATEWAY, "Sign-in failed", text)
}

/// A page with a link that signs in again.
fn retry(dashboard: &Dashboard, status: StatusCode, title: &str, text: &str, to: &str) -> Response {
    let content = html! {
        h1 { (title) }
        p { (text) }
        p { a href=(login_path(dashboard, to)) { "Sign in again" } }
    };
    page(dashboard, status, title, &content)
}

/// Path and query of a page, if the text is one: a sign-in must not lead to another site.
fn return_path(text: &str) -> Option<String> {
    let base = Url::parse("http://localhost").ok()?;
    let is_local = text.starts_with('/') && !text.contains('\\') && !text.chars().any(char::is_control);
    let url = base.join(text).ok().filter(|url| is_local && url.origin() == base.origin())?;
    let mut path = url.path().to_owned();
    let page = path.strip_prefix(PREFIX)?.strip_prefix('/')?;
    if matches!(page.trim_end_matches('/'), "login" | "callback" | "logout") {
        return None;
    }
    if let Some(query) = url.query() {
        path.extend(["?", query]);
    }
    (path.len() <= MAX_RETURN).then_some(path)
}

fn parameters(query: Option<&str>) -> HashMap<String, String> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect()
}

/// Begins a sign-in.
pub(super) async fn login(
    State(dashboard): State<Arc<Dashboard>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let to = parameters(query.as_deref()).get("to").and_then(|to| return_path(to));
    let to = to.unwrap_or_else(|| format!("{PREFIX}/"));
    let Some(sign_in) = &dashboard.sign_in else { return see_other(&dashboard.path(&to)) };
    // Another tab may have completed a sign-in. With a missing role, a new one finds out whether it was granted.
    if let Ok((Session { missing, .. }, cookie)) = sign_in.session(&dashboard, &headers, &to).await
        && missing.is_empty()
    {
        return with_cookies(see_other(&dashboard.path(&to)), cookie);
    }
    let (url, state, attempt) = match sign_in.flow.begin().await {
        Ok(begun) => begun,
        Err(error) => {
            metrics::sign_in(outcome(&error));
            return failed(&dashboard, &error, &to);
        }
    };
    let room = sign_in.cookies.make_room(&headers);
    let began = SignInState { attempt, to, began: sign_in.flow.now() };
    let Some(cookie) = sign_in.cookies.set_sign_in(&state, &began) else { return too_large(&dashboard) };
    // Not a redirect: if a form with an expired session leads here, browsers forbid redirects to other sites (`form-action`).
    let content = html! {
        h1 { "Signing in" }
        p { a href=(url) { "Continue to the sign-in page" } }
    };
    let mut response = page(&dashboard, StatusCode::OK, "Signing in", &content);
    if let Ok(refresh) = HeaderValue::try_from(format!("0; url={url}")) {
        response.headers_mut().insert(REFRESH, refresh);
    }
    with_cookies(response, room.into_iter().chain([cookie]))
}

/// Completes a sign-in.
pub(super) async fn callback(
    State(dashboard): State<Arc<Dashboard>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let home = format!("{PREFIX}/");
    let Some(sign_in) = &dashboard.sign_in else { return see_other(&dashboard.path(&home)) };
    let parameters = parameters(query.as_deref());
    let parameter = |name: &str| parameters.get(name).map(String::as_str);
    let state = parameter("state").unwrap_or_default();
    let known = sign_in.cookies.sign_in(&headers, state);
    let Some(SignInState { attempt, to, began }) = known else {
        // The browser's button "back", for example.
        if sign_in.cookies.session(&headers).is_some() {
            return see_other(&dashboard.path(&home));
        }
        info!("a sign-in was refused: this browser did not begin it, or has completed it");
        metrics::sign_in(Outcome::Invalid);
        let text = "This browser did not begin this sign-in, or it took too long, or cookies are blocked.";
        return retry(&dashboard, StatusCode::BAD_REQUEST, "Sign-in failed", text, &home);
    };
    let used = sign_in.cookies.remove_sign_in(state);
    let refuse = |outcome, status, text: &str| {
        metrics::sign_in(outcome);
        with_cookies(retry(&dashboard, status, "Sign-in failed", text, &to), [used.clone()])
    };
    let age = sign_in.flow.now().saturating_sub(began);
    if !(0..=SIGN_IN_TIME).contains(&age) {
        return refuse(Outcome::Invalid, StatusCode::BAD_REQUEST, "The sign-in took longer than ten minutes.");
    }
    // Another realm may have been mixed in (RFC 9207).
    if parameter("iss").is_some_and(|issuer| Some(issuer) != sign_in.flow.issuer()) {
        warn!("a sign-in was refused: its answer is from another issuer");
        return refuse(
            Outcome::Invalid,
            StatusCode::BAD_REQUEST,
            "The answer is from another identity provider than the configured one.",
        );
    }
    if let Some(code) = parameter("error") {
        let code: String = code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
        warn!(code, "a sign-in failed at the realm");
        return match code.as_str() {
            "access_denied" => refuse(
                Outcome::Declined,
                StatusCode::FORBIDDEN,
                "The sign-in was cancelled, or the identity provider refused it.",
            ),
            "temporarily_unavailable" | "server_error" => refuse(
                Outcome::Unavailable,
                StatusCode::BAD_GATEWAY,
                "The identity provider has a problem. Try again in a minute.",
            ),
            _ => refuse(
                Outcome::Misconfigured,
                StatusCode::BAD_GATEWAY,
                &format!(
                    "The identity provider answered with the error {code:?}. Report it to the administrators if it happens again."
                ),
            ),
        };
    }
    let Some(code) = parameter("code").filter(|code| !code.is_empty()) else {
        return refuse(Outcome::Invalid, StatusCode::BAD_REQUEST, "The answer of the identity provider is incomplete.");
    };
    let Ok(_permit) = sign_in.completing.try_acquire() else {
        let text = "There are too many sign-ins at the moment. Try again in a few seconds.";
        return refuse(Outcome::Unavailable, StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let session = match sign_in.flow.finish(code, attempt).await {
        Ok(grant) => Session::from(grant),
        Err(error) => {
            metrics::sign_in(outcome(&error));
            return with_cookies(failed(&dashboard, &error, &to), [used]);
        }
    };
    let missing = (!session.missing.is_empty()).then(|| session.missing.join(", "));
    info!(caller = session.username, missing, "an operator signed in");
    let Some(cookie) = sign_in.cookies.set_session(&session) else {
        metrics::sign_in(Outcome::Misconfigured);
        return with_cookies(too_large(&dashboard), [used]);
    };
    metrics::sign_in(if session.missing.is_empty() { Outcome::Success } else { Outcome::Forbidden });
    with_cookies(see_other(&dashboard.path(&to)), [used, cookie])
}

/// Ends the session, here and at the realm.
pub(super) async fn logout(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Response {
    let home = format!("{PREFIX}/");
    let Some(sign_in) = &dashboard.sign_in else { return see_other(&dashboard.path(&home)) };
    if !is_same_origin(&headers, &sign_in.origin) {
        warn!("a sign-out was refused: another site sent it, or dashboard.public_url is not the URL that browsers use");
        let text = "The request to sign out did not come from these pages.";
        return retry(&dashboard, StatusCode::FORBIDDEN, "Not signed out", text, &home);
    }
    let mut elsewhere = None;
    if let Some(session) = sign_in.cookies.session(&headers) {
        match sign_in.flow.end(&session.refresh_token()).await {
            Ok(()) => info!(caller = session.username, "an operator signed out"),
            Err(error) => {
                error!(
                    caller = session.username,
                    error = error_chain(&error),
                    "an operator's session at the realm was not ended"
                );
                elsewhere = Some(sign_in.flow.end_session_url(&sign_in.public_url).await);
            }
        }
    }
    let content = html! {
        h1 { "Signed out" }
        @match &elsewhere {
            None => p { "You are signed out here and at the identity provider." },
            Some(url) => p {
                "You are signed out here. The identity provider did not answer, so you may still be signed in there. "
                @if let Some(url) = url { a href=(url) { "Sign out there" } }
            },
        }
        p { a href=(login_path(&dashboard, &home)) { "Sign in again" } }
    };
    with_cookies(page(&dashboard, StatusCode::OK, "Signed out", &content), [sign_in.cookies.remove_session()])
}

/// Whether a form of these pages sent the request. Browsers say so in at least one of two headers.
fn is_same_origin(headers: &HeaderMap, origin: &str) -> bool {
    match (headers.get(ORIGIN), headers.get("sec-fetch-site")) {
        (Some(given), None) => given == origin,
        (Some(given), Some(site)) => given == origin && site == "same-origin",
        (None, Some(site)) => site == "same-origin",
        (None, None) => false,
    }
}

type Refresh = Shared<BoxFuture<'static, Result<Session, GrantError>>>;

/// Refreshes of sessions: one at a time for each session, because some realms accept a refresh token only once. Its result also answers
/// requests that arrive shortly after with the old cookie.
#[derive(Default)]
struct Refreshes(Arc<Mutex<HashMap<Vec<u8>, Refresh>>>);

impl std::fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refreshes").finish_non_exhaustive()
    }
}

impl Refreshes {
    async fn refresh(&self, flow: &Arc<CodeFlow>, session: &Session) -> Result<Session, GrantError> {
        let token = session.refresh_token();
        let key = digest(&SHA256, token.expose_secret().as_bytes()).as_ref().to_vec();
        let refresh = lock(&self.0).entry(key.clone()).or_insert_with(|| self.start(flow, session, key)).clone();
        refresh.await
    }

    /// Starts a refresh in a task of its own: the new token must not be lost if the browser disconnects. It removes itself from the map.
    fn start(&self, flow: &Arc<CodeFlow>, session: &Session, key: Vec<u8>) -> Refresh {
        let (flow, subject, token) = (Arc::clone(flow), session.subject.clone(), session.refresh_token());
        let task = tokio::spawn(async move { flow.refresh(&token, &subject).await.map(Session::from) });
        // A panic was reported by the hook.
        let refresh = async move { task.await.unwrap_or(Err(GrantError::Ended)) }.boxed().shared();
        let (known, result) = (Arc::clone(&self.0), refresh.clone());
        tokio::spawn(async move {
            if result.await.is_ok() {
                tokio::time::sleep(REMEMBERED).await;
            }
            lock(&known).remove(&key);
        });
        refresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_returns_only_to_pages() {
        for (text, path) in [
            ("/ui/", "/ui/"),
            ("/ui/resources?system=capstor&q=a%20b", "/ui/resources?system=capstor&q=a%20b"),
            ("/ui/resources/../changes#x", "/ui/changes"),
            ("/ui/ä", "/ui/%C3%A4"),
        ] {
            assert_eq!(return_path(text).as_deref(), Some(path), "{text}");
        }
        let long = format!("/ui/{}", "x".repeat(MAX_RETURN));
        for text in [
            "",
            "/",
            "/ui",
            "ui/",
            "/api/version",
            "/uix/",
            "//evil.example.org/ui/",
            "///evil.example.org/ui/",
            "/\\evil.example.org/ui/",
            "\\\\evil.example.org/ui/",
            "https://evil.example.org/ui/",
            "http://localhost@evil.example.org/ui/",
            "javascript:alert(1)//ui/",
            "/ui/../../evil",
            "/ui/%2e%2e/api/",
            "/\t/evil.example.org/ui/",
            "/ui/\nx",
            " /ui/",
            "/ui/login",
            "/ui/login/?to=/ui/login",
            "/ui/callback?code=x",
            "/ui/logout",
            &long,
        ] {
            assert_eq!(return_path(text), None, "{text}");
        }
    }

    #[test]
    fn only_forms_of_these_pages_sign_out() {
        let headers = |origin: Option<&'static str>, site: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))));
            headers.extend(
                site.map(|site| (http::HeaderName::from_static("sec-fetch-site"), HeaderValue::from_static(site))),
            );
            headers
        };
        let ours = "https://storage.example.org";
        for (origin, site, accepted) in [
            (Some(ours), None, true),
            (Some(ours), Some("same-origin"), true),
            (None, Some("same-origin"), true),
            (None, None, false),
            (Some("null"), None, false),
            (Some("null"), Some("same-origin"), false),
            (Some("https://storage.example.org.evil.example"), None, false),
            (Some("https://evil.example.org"), Some("cross-site"), false),
            (Some("http://storage.example.org"), Some("cross-site"), false),
            (Some(ours), Some("same-site"), false),
            (None, Some("none"), false),
        ] {
            assert_eq!(is_same_origin(&headers(origin, site), ours), accepted, "{origin:?} {site:?}");
        }
    }
}
