//! The spans of OpenTelemetry: a request, a refresh with its phases, and each attempt at an exchange with an upstream.
//!
//! What they say is chosen here, one by one: no path, no query, no header and no name of a person. A caller's
//! `traceparent` is the parent of its request's span, and upstreams get one of ours, or the caller's where nothing is
//! recorded here. A span ends at the latest when its last [`Context`] is dropped, so whatever is cut off ends too.

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
use super::sentry::known;

/// Name under which the spans say who made them.
const SCOPE: &str = "hpc-storage-proxy";

/// The span of a request, below the caller's if it tells one. `route` is the pattern that matched, never the path.
pub(crate) fn request(method: &Method, route: &str, request_id: &str, headers: &HeaderMap) -> Context {
    let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Received(headers));
    let attributes = vec![
        KeyValue::new("http.request.method", known(method).to_owned()),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("request_id", scrub(request_id).into_owned()),
    ];
    span(&caller, SpanKind::Server, format!("{} {route}", known(method)), attributes)
}

/// The request was answered.
pub(crate) fn answered(span: &Context, status: StatusCode) {
    let span = span.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() {
        span.set_status(Status::error(""));
    }
    span.end();
}

/// The id of the trace that goes on here, or begins.
pub(crate) fn trace_id(span: &Context) -> Option<TraceId> {
    let id = span.span().span_context().trace_id();
    (id != TraceId::INVALID).then_some(id)
}

/// Does work in a span below the one that is current now, wherever and whenever it is done.
pub(crate) fn within<'a, F: Future + Send + 'a>(name: &'static str, work: F) -> WithContext<BoxFuture<'a, F::Output>> {
    // Boxed, since what waits for it would grow with every span.
    work.boxed().with_context(phase(&Context::current(), name))
}

/// A span below `parent` that lasts until it is dropped.
pub(crate) fn phase(parent: &Context, name: &'static str) -> Context {
    span(parent, SpanKind::Internal, name.to_owned(), Vec::new())
}

/// The span of the attempt number `attempt`, from 1, to have an answer of an upstream; the request says so in its headers.
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

/// How the attempt went: its status if it was answered, and else, or where that tells of a fault, what the fault is.
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

/// Host and port, nothing else of the URL.
fn address(url: &Url) -> impl Iterator<Item = KeyValue> {
    let host = url.host_str().map(|host| KeyValue::new("server.address", host.to_owned()));
    let port = url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port)));
    host.into_iter().chain(port)
}

/// Headers of a request that came.
struct Received<'a>(&'a HeaderMap);

impl Extractor for Received<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Headers of a request that goes.
struct Sent<'a>(&'a mut HeaderMap);

impl Injector for Sent<'_> {
    fn set(&mut self, key: &str, value: String) {
        // Without a state there is no header of it.
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
    fn a_callers_trace_goes_on_though_nothing_is_recorded_here() {
        let headers = passed_on(&[("traceparent", PARENT), ("tracestate", "a=1,b=2")]);
        assert_eq!(headers["traceparent"], PARENT);
        assert_eq!(headers["tracestate"], "a=1,b=2");
        assert!(!passed_on(&[("traceparent", PARENT)]).contains_key("tracestate"));
    }

    #[test]
    fn what_is_no_trace_is_not_passed_on() {
        assert!(passed_on(&[]).is_empty());
        for parent in ["", "00", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-x-y-z", "a\tb"] {
            assert!(passed_on(&[("traceparent", parent), ("tracestate", "a=1")]).is_empty(), "{parent}");
        }
    }

    #[test]
    fn of_an_address_only_host_and_port_are_told() {
        let url = Url::parse("https://user:hunter2@waldur.example/api/jdoe?token=x").unwrap();
        let told: Vec<_> = address(&url).map(|pair| format!("{}={}", pair.key, pair.value)).collect();
        assert_eq!(told, ["server.address=waldur.example", "server.port=443"]);
    }
}
