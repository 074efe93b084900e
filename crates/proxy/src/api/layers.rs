//! The middleware of all requests: request ID, access log, trace, timeout, request limit, and the response to a panic.

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::FutureExt;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, field, info, info_span};
use uuid::Uuid;

use super::failure::{self, Failure};
use super::query;
use super::waiting::{self, WaitedSlot};
use crate::auth::CallerSlot;
use crate::config::Server;
use crate::dashboard;
use crate::metrics;
use crate::telemetry::{self, ACCESS, scrub, spans};

/// Header with the ID of a request, in requests and responses.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Browsers must not guess the content type.
pub(super) const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// Maximum length of an ID sent by a client.
const MAX_ID: usize = 64;
/// Maximum number of characters of path and query in the log.
const MAX_TARGET: usize = 256;
/// The route of a request that matches none.
const NO_ROUTE: &str = "(no route)";

/// Timeout and maximum concurrency of requests.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// Maximum time for a response, in addition to the time that the client wants to wait.
    timeout: Duration,
    /// For requests that do not wait for a change.
    requests: Permits,
    /// For requests that do.
    waiting: Permits,
}

impl RequestLimits {
    /// `timeout` per request, and at the same time at most `requests`, and `waiting` that wait for a change.
    pub fn new(timeout: Duration, requests: usize, waiting: usize) -> Self {
        Self { timeout, requests: Permits::new(requests), waiting: Permits::new(waiting) }
    }

    /// The limits in the settings.
    pub(crate) fn of(server: &Server) -> Self {
        Self::new(server.request_timeout, server.max_requests, server.max_waiting)
    }

    /// Changed limits. Running requests keep counting unless their limit changes.
    #[must_use]
    pub(crate) fn with_settings(&self, server: &Server) -> Self {
        let mut limits = Self::of(server);
        for (permits, before) in [(&mut limits.requests, &self.requests), (&mut limits.waiting, &self.waiting)] {
            if permits.limit == before.limit {
                *permits = before.clone();
            }
        }
        limits
    }

    /// Number of running requests, including those whose response is still being sent to an authenticated caller. Those that wait
    /// for a change are not counted.
    pub(crate) fn running(&self) -> usize {
        self.requests.limit - self.requests.free.available_permits()
    }
}

/// One permit for each concurrent request.
#[derive(Debug, Clone)]
struct Permits {
    free: Arc<Semaphore>,
    limit: usize,
}

impl Permits {
    fn new(limit: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(limit)), limit }
    }
}

/// Adds the middleware to all routes.
pub fn wrap(router: Router, limits: RequestLimits) -> Router {
    router.layer(middleware::from_fn_with_state(limits, observe))
}

async fn observe(State(limits): State<RequestLimits>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let method = request.method().clone();
    let caller = CallerSlot::default();
    let waited = WaitedSlot::default();
    request.extensions_mut().insert(caller.clone());
    request.extensions_mut().insert(waited.clone());
    let line = AccessLog {
        started: Instant::now(),
        method: method.clone(),
        target: target(&request),
        route: matched.clone(),
        caller,
        waited,
        response: None,
    };
    let trace = spans::request(&method, route, &id, request.headers());
    let span = info_span!("request", request_id = id, trace_id = spans::trace_id(&trace).map(field::display));
    // Boxed: the functions that it passes through would hold it several times, also while a client waits.
    let handler = Box::pin(handle(limits, request, next, line).instrument(span));
    let mut response = telemetry::traced(trace, &method, route, &id, handler).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn handle(limits: RequestLimits, request: Request, next: Next, mut line: AccessLog) -> Response {
    let is_listing = line.route.as_ref().is_some_and(|route| super::LISTING.contains(&route.as_str()));
    let wait = waiting::requested(request.headers()).filter(|_| is_listing);
    let (permits, too_many) = match wait {
        Some(_) => (&limits.waiting, "Too many requests that wait for a change (server.max_waiting)."),
        None => (&limits.requests, "Too many concurrent requests."),
    };
    let page =
        line.route.as_ref().filter(|route| dashboard::is_page(route.as_str())).map(|_| request.uri().path().to_owned());
    let failed = |response: Response| match &page {
        None => response,
        Some(path) => dashboard::failure(path, &response),
    };
    let response = match Arc::clone(&permits.free).try_acquire_owned() {
        Ok(permit) => {
            // A panic leaves no shared state inconsistent: code that holds a lock does not panic.
            let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
            let response = match timeout(limits.timeout + wait.unwrap_or_default(), handled).await {
                Ok(Ok(response)) => response,
                // The panic hook has reported the panic.
                Ok(Err(_)) => failed(failure::internal()),
                Err(_) => failed(Failure::TooSlow(limits.timeout).into_response()),
            };
            // A response occupies memory until it is read. Responses to unauthenticated clients are small or shared, and
            // keep no permit: otherwise such clients could hold all permits by not reading.
            match line.caller.username() {
                Some(_) => response.map(|body| Body::new(LimitedBody { body, _permit: permit })),
                None => response,
            }
        }
        Err(_) => failed(Failure::TooMany(too_many).into_response()),
    };
    line.response = Some((response.status(), response.body().size_hint().exact()));
    response
}

/// A body that holds the permit of its request.
struct LimitedBody {
    body: Body,
    _permit: OwnedSemaphorePermit,
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Writes the log line and the metric of a request when dropped, however the request ends.
struct AccessLog {
    started: Instant,
    method: Method,
    target: String,
    route: Option<MatchedPath>,
    caller: CallerSlot,
    waited: WaitedSlot,
    /// Status and, if known, size of the body; `None` until there is a response.
    response: Option<(StatusCode, Option<u64>)>,
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let Self { started, method, target, route, caller, waited, response } = self;
        let waited = waited.waited();
        let took = started.elapsed().saturating_sub(waited);
        let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        metrics::request(route, response.map(|(status, _)| status), took);
        let duration_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        let waited_ms = (!waited.is_zero()).then(|| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        let (method, target) = (method.as_str(), target.as_str());
        let caller = caller.username().map(|name| printable(name, MAX_TARGET));
        let caller = caller.as_deref();
        if let Some((status, bytes)) = response {
            let status = status.as_u16();
            info!(target: ACCESS, method, path = target, status, duration_ms, waited_ms, bytes, caller, "answered");
        } else {
            info!(target: ACCESS, method, path = target, duration_ms, waited_ms, caller, "cancelled by the client");
        }
    }
}

/// The ID sent by the client, if it is short and harmless; otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let valid = |id: &&str| {
        (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(valid);
    given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Path and query for the log. Only values of known parameters are shown, because a client may put a token into another one
/// by mistake. Those of the dashboard are not shown: `state` is another parameter there.
fn target(request: &Request) -> String {
    let uri = request.uri();
    let mut target = String::with_capacity(uri.path_and_query().map_or(0, |target| target.as_str().len()));
    target.push_str(uri.path());
    let is_page = dashboard::is_page(uri.path());
    for (position, parameter) in uri.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
        target.push(if position == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if query::NAMES.contains(&name) && !is_page => target.push_str(parameter),
            Some((name, _)) => target.extend([name, "=…"]),
            None if parameter.is_empty() => {}
            None => target.push('…'),
        }
    }
    match scrub(&target) {
        Cow::Borrowed(text) if is_printable(text, MAX_TARGET) => target,
        text => printable(&text, MAX_TARGET).into_owned(),
    }
}

/// At most `max` characters of an untrusted text, with control characters escaped.
fn printable(text: &str, max: usize) -> Cow<'_, str> {
    if is_printable(text, max) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for (position, c) in text.chars().enumerate() {
        if position == max {
            shown.push_str("...");
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

/// Whether a text can be shown without a look at each character.
fn is_printable(text: &str, max: usize) -> bool {
    text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_of(given: Option<&[u8]>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        }
        request_id(&headers)
    }

    #[test]
    fn a_valid_id_is_kept_and_any_other_replaced() {
        for id in ["a", "A.b-C_9", &"x".repeat(64)] {
            assert_eq!(id_of(Some(id.as_bytes())), id);
        }
        for id in [&b""[..], b"a b", b"a\"b", b"a,b", "x".repeat(65).as_bytes(), "\u{e9}".as_bytes()] {
            let made = id_of(Some(id));
            assert!(Uuid::parse_str(&made).is_ok(), "{made}");
        }
        assert_ne!(id_of(None), id_of(None));
    }

    #[test]
    fn untrusted_text_is_truncated_and_cannot_break_a_line() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{9b}c\u{fc}", 20), "a\\nb\\u{1b}[31m\\u{9b}c\u{fc}");
        assert_eq!(printable("abcdef", 3), "abc...");
        assert_eq!(printable("abc", 3), "abc");
    }

    #[test]
    fn a_token_in_a_query_is_not_shown() {
        let request = |uri: &str| target(&Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap());
        assert_eq!(request("/api/x?page=2&access_token=abc"), "/api/x?page=2&access_token=[redacted]");
        assert_eq!(request("/x?api_key=abc&state=OK&password%3Dabc&&=a"), "/x?api_key=…&state=OK&…&&=…");
        assert_eq!(request("/x?"), "/x?");
        assert_eq!(request(&format!("/{}", "a".repeat(300))).len(), MAX_TARGET + 3);
    }
}
