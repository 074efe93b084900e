//! OpenTelemetry spans: a request, a refresh with its phases, and each attempt at an exchange with an upstream.
//!
//! Their attributes are chosen here individually: no path, query, header or name of a person. A client's `traceparent` is
//! the parent of its request's span. Upstreams get one of our spans, or the client's if nothing is recorded here. A span
//! ends at the latest when its last [`Context`] is dropped, so aborted work ends its span too.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use opentelemetry::context::{FutureExt as _, WithContext};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, TraceId, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use reqwest::Url;

use super::scrub;
use super::sentry::method_name;

/// Whether spans are recorded. Otherwise only the client's trace is passed on.
static RECORDING: AtomicBool = AtomicBool::new(false);
/// Name of the instrumentation scope.
const SCOPE: &str = "hpc-storage-proxy";

/// Records the spans of requests from now on.
pub(super) fn record() {
    RECORDING.store(true, Ordering::Relaxed);
}

/// The span of a request, below the client's span if it sent one. `route` is the matched pattern, never the path.
pub(crate) fn request(method: &Method, route: &str, request_id: &str, headers: &HeaderMap) -> Context {
    let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Received(headers));
    if !RECORDING.load(Ordering::Relaxed) {
        return caller;
    }
    let attributes = vec![
        KeyValue::new("http.request.method", method_name(method).to_owned()),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("request_id", scrub(request_id).into_owned()),
    ];
    span(&caller, SpanKind::Server, format!("{} {route}", method_name(method)), attributes)
}

/// Ends the span of a request with its status.
pub(crate) fn answered(span: &Context, status: StatusCode) {
    let span = span.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
    span.end();
}

/// The ID of the trace.
pub(crate) fn trace_id(span: &Context) -> Option<TraceId> {
    let id = span.span().span_context().trace_id();
    (id != TraceId::INVALID).then_some(id)
}

/// Runs `work` in a new span below the current one.
pub(crate) fn within<'a, F: Future + Send + 'a>(name: &'static str, work: F) -> WithContext<BoxFuture<'a, F::Output>> {
    // Boxed, because the future that awaits it would grow with every span.
    work.boxed().with_context(phase(&Context::current(), name))
}

/// A span below `parent` that lasts until it is dropped.
pub(crate) fn phase(parent: &Context, name: &'static str) -> Context {
    span(parent, SpanKind::Internal, name.to_owned(), Vec::new())
}

/// The span of an attempt at an exchange, counted from 1. Adds the trace headers to the request.
pub(crate) fn attempt(upstream: &'static str, request: &mut reqwest::Request, attempt: usize) -> Context {
    let method = request.method().as_str().to_owned();
    let name = format!("{method} {upstream}");
    let mut attributes = vec![KeyValue::new("http.request.method", method), KeyValue::new("peer.service", upstream)];
    attributes.extend(address(request.url()));
    if attempt > 1 {
        let repetition = i64::try_from(attempt - 1).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("http.request.resend_count", repetition));
    }
    let span = span(&Context::current(), SpanKind::Client, name, attributes);
    TraceContextPropagator::new().inject_context(&span, &mut Sent(request.headers_mut()));
    span
}

/// Ends the span of an attempt: with its status if there is one, and with `fault` if there is none or it is an error.
pub(crate) fn attempted(span: &Context, status: Option<StatusCode>, fault: &'static str) {
    let span = span.span();
    if let Some(status) = status {
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    }
    if status.is_none_or(|status| status.is_client_error() || status.is_server_error()) {
        span.set_attribute(KeyValue::new("error.type", fault));
        span.set_status(Status::error(""));
    }
    span.end();
}

fn span(parent: &Context, kind: SpanKind, name: String, attributes: Vec<KeyValue>) -> Context {
    let tracer = global::tracer(SCOPE);
    let span = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
    parent.with_span(tracer.build_with_context(span, parent))
}

/// Host and port of the URL, nothing else.
fn address(url: &Url) -> impl Iterator<Item = KeyValue> {
    let host = url.host_str().map(|host| KeyValue::new("server.address", host.to_owned()));
    let port = url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port)));
    host.into_iter().chain(port)
}

/// Headers of a received request.
struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Headers of a request to send.
struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        // Omit the header of an empty trace state.
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn passed_on(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let request = request(&Method::GET, "/", "id", &pairs.collect());
        let mut exchange = reqwest::Request::new(Method::GET, Url::parse("https://waldur.example/x?token=y").unwrap());
        let _within = request.attach();
        attempt("Waldur", &mut exchange, 1);
        exchange.headers().clone()
    }

    #[test]
    fn a_clients_trace_is_passed_on_even_if_nothing_is_recorded_here() {
        let headers = passed_on(&[("traceparent", PARENT), ("tracestate", "a=1,b=2")]);
        assert_eq!(headers["traceparent"], PARENT);
        assert_eq!(headers["tracestate"], "a=1,b=2");
        assert!(!passed_on(&[("traceparent", PARENT)]).contains_key("tracestate"));
    }

    #[test]
    fn an_invalid_trace_is_not_passed_on() {
        assert!(passed_on(&[]).is_empty());
        for parent in ["", "00", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-x-y-z", "a\tb"] {
            assert!(passed_on(&[("traceparent", parent), ("tracestate", "a=1")]).is_empty(), "{parent}");
        }
    }

    #[test]
    fn only_host_and_port_of_a_url_are_recorded() {
        let url = Url::parse("https://user:hunter2@waldur.example/api/jdoe?token=x").unwrap();
        let attributes: Vec<_> = address(&url).map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        assert_eq!(attributes, ["server.address=waldur.example", "server.port=443"]);
    }
}
