//! What wraps every request: its id, its line in the log, its trace, its deadline, and the answer when its handler panics
//! or there are too many requests.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
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
use crate::auth::CallerSlot;
use crate::metrics;
use crate::telemetry::{self, ACCESS, scrub, spans};

/// Header with the id of a request, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Browsers are not to guess what an answer might be.
pub(super) const NO_SNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// Longest id that a caller may give.
const LONGEST_ID: usize = 64;
/// Characters of path and query that are logged.
const LONGEST_TARGET: usize = 256;
/// Stands for the route of a request that has none.
const NO_ROUTE: &str = "(no route)";

/// What requests may take.
#[derive(Debug, Clone)]
pub struct RequestLimits {
    /// How long a client waits at most.
    timeout: Duration,
    /// A place for each request that may run.
    places: Arc<Semaphore>,
    /// How many places there are.
    requests: usize,
}

impl RequestLimits {
    /// So long, and so many at one time.
    pub fn new(timeout: Duration, requests: usize) -> Self {
        Self { timeout, places: Arc::new(Semaphore::new(requests)), requests }
    }

    /// The limits after a change: requests that run count on, unless so many others may run.
    #[must_use]
    pub fn changed(&self, timeout: Duration, requests: usize) -> Self {
        if requests == self.requests { Self { timeout, ..self.clone() } } else { Self::new(timeout, requests) }
    }

    /// Requests that run now, and those of callers who still take the answer.
    pub(crate) fn running(&self) -> usize {
        self.requests - self.places.available_permits()
    }
}

/// Wraps all routes of a router.
pub fn around(router: Router, limits: RequestLimits) -> Router {
    router.layer(middleware::from_fn_with_state(limits, observe))
}

async fn observe(State(limits): State<RequestLimits>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let method = request.method().clone();
    let caller = CallerSlot::default();
    request.extensions_mut().insert(caller.clone());
    let line = Line {
        started: Instant::now(),
        method: method.to_string(),
        target: target(&request),
        route: matched.clone(),
        caller,
        answer: None,
    };
    let trace = spans::request(&method, route, &id, request.headers());
    let span = info_span!("request", request_id = id, trace_id = spans::trace_id(&trace).map(field::display));
    let answer = answer(limits, request, next, line).instrument(span);
    let mut response = telemetry::traced(trace, &method, route, &id, answer).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn answer(limits: RequestLimits, request: Request, next: Next, mut line: Line) -> Response {
    let response = match Arc::clone(&limits.places).try_acquire_owned() {
        Ok(place) => {
            // Nothing that a handler shares is left half changed: its locks are held by functions that do not panic.
            let handled = AssertUnwindSafe(next.run(request)).catch_unwind();
            let response = match timeout(limits.timeout, handled).await {
                Ok(Ok(response)) => response,
                // The panic itself is reported where it happens.
                Ok(Err(_)) => failure::internal(),
                Err(_) => Failure::TooSlow(limits.timeout).into_response(),
            };
            // An answer holds memory until it is taken. Those of strangers are small or shared by all, and keep no place:
            // else strangers could take all of them, and never read.
            match line.caller.username() {
                Some(_) => response.map(|body| Body::new(Placed { body, _place: place })),
                None => response,
            }
        }
        Err(_) => Failure::TooMany.into_response(),
    };
    line.answer = Some((response.status(), response.body().size_hint().exact()));
    response
}

/// A body that keeps the place of its request.
struct Placed {
    body: Body,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
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

/// The line that a request gets in the log, and its place among the numbers, when it ends, however it ends.
struct Line {
    started: Instant,
    method: String,
    target: String,
    route: Option<MatchedPath>,
    caller: CallerSlot,
    /// Status, and bytes of the body if known; `None` until there is an answer.
    answer: Option<(StatusCode, Option<u64>)>,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { started, method, target, route, caller, answer } = self;
        let took = started.elapsed();
        let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        metrics::request(route, answer.map(|(status, _)| status), took);
        let duration_ms = (took.as_secs_f64() * 10_000.0).round() / 10.0;
        let caller = caller.username().map(|name| shown(name, LONGEST_TARGET));
        if let Some((status, bytes)) = answer {
            let status = status.as_u16();
            info!(target: ACCESS, method, path = target, status, duration_ms, bytes, caller, "answered");
        } else {
            info!(target: ACCESS, method, path = target, duration_ms, caller, "the caller went away");
        }
    }
}

/// The id that the caller gives, if it is fit to be repeated; otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let fit = |id: &&str| {
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(fit);
    given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Path and query as the log shows them. A query may hold what a caller mistook for a place for tokens, so that values are
/// shown of the parameters alone that there are.
fn target(request: &Request) -> String {
    let uri = request.uri();
    let mut target = uri.path().to_owned();
    for (position, parameter) in uri.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
        target.push(if position == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if query::NAMES.contains(&name) => target.push_str(parameter),
            Some((name, _)) => target.extend([name, "=…"]),
            None if parameter.is_empty() => {}
            None => target.push('…'),
        }
    }
    shown(&scrub(&target), LONGEST_TARGET)
}

/// At most `longest` characters of a foreign text, control characters escaped.
fn shown(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for (position, c) in text.chars().enumerate() {
        if position == longest {
            shown.push_str("...");
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
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
    fn a_fit_id_is_kept_and_any_other_replaced() {
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
    fn foreign_text_is_cut_and_cannot_break_a_line() {
        assert_eq!(shown("a\nb\u{1b}[31m\u{9b}c\u{fc}", 20), "a\\nb\\u{1b}[31m\\u{9b}c\u{fc}");
        assert_eq!(shown("abcdef", 3), "abc...");
        assert_eq!(shown("abc", 3), "abc");
    }

    #[test]
    fn a_token_in_a_query_is_not_shown() {
        let request = |uri: &str| target(&Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap());
        assert_eq!(request("/api/x?page=2&access_token=abc"), "/api/x?page=2&access_token=[redacted]");
        assert_eq!(request("/x?api_key=abc&state=OK&password%3Dabc&&=a"), "/x?api_key=…&state=OK&…&&=…");
        assert_eq!(request("/x?"), "/x?");
        assert_eq!(request(&format!("/{}", "a".repeat(300))).len(), LONGEST_TARGET + 3);
    }
}
