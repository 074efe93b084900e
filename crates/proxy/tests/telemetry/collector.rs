//! A fake OpenTelemetry collector that receives spans by OTLP over HTTP and stores them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::net::TcpListener;

/// The received requests.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    received: Arc<Mutex<Vec<Received>>>,
    address: String,
}

struct Received {
    headers: HeaderMap,
    body: Bytes,
}

/// A decoded span.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    /// Hexadecimal, as in `traceparent`.
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) failed: bool,
    attributes: Vec<(String, String)>,
}

impl Collector {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap().to_string(), ..Self::default() };
        let router = Router::new().route("/v1/traces", post(keep)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    /// The base URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value of a header in each received request.
    pub(crate) fn headers(&self, name: &str) -> Vec<String> {
        let received = self.received.lock().unwrap();
        received.iter().map(|received| received.headers[name].to_str().unwrap().to_owned()).collect()
    }

    /// All received bodies. Texts are readable in protobuf.
    pub(crate) fn everything(&self) -> String {
        let received = self.received.lock().unwrap();
        received.iter().map(|received| String::from_utf8_lossy(&received.body).into_owned()).collect()
    }

    /// The resource attributes of all spans.
    pub(crate) fn resources(&self) -> Vec<Vec<(String, String)>> {
        let requests = self.requests();
        let resources = requests.iter().flat_map(|request| &request.resource_spans).map(|spans| &spans.resource);
        resources.map(|resource| texts(&resource.as_ref().unwrap().attributes)).collect()
    }

    /// All spans.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter().flat_map(|request| request.resource_spans);
        let scopes = requests.flat_map(|resource| resource.scope_spans);
        let spans = scopes.flat_map(|scope| scope.spans).map(|span| Span {
            kind: span.kind(),
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
            attributes: texts(&span.attributes),
            name: span.name,
        });
        spans.collect()
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let received = self.received.lock().unwrap();
        received.iter().map(|received| ExportTraceServiceRequest::decode(received.body.clone()).unwrap()).collect()
    }
}

impl Span {
    /// The value of this attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The names of all attributes.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.attributes.iter().map(|(key, _)| key.as_str()).collect()
    }
}

async fn keep(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    collector.received.lock().unwrap().push(Received { headers, body });
}

fn hex(bytes: &[u8]) -> String {
    let digit = |digit: u8| char::from_digit(digit.into(), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn texts(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
