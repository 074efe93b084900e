//! Sentry: errors, and traces of a share of the requests.
//!
//! Events are our `error!` lines with their error chains, and panics; earlier information and warnings become breadcrumbs.
//! Transactions are requests, named by their route, with upstream exchanges as spans; an exchange in the background is a
//! transaction of its own. Headers, queries and paths of requests and names of people are never sent; a request is
//! identified by its ID. The trace of a caller is not continued, because its header would control sampling.
//!
//! Connections to Sentry are direct: variables such as `HTTPS_PROXY` are not read. A host that does not respond costs
//! events, never a request: events wait in a short queue, which a separate thread empties.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::Response;
use secrecy::ExposeSecret;
use sentry::integrations::backtrace::ProcessStacktraceIntegration;
use sentry::integrations::contexts::ContextIntegration;
use sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer, SpanLayer};
use sentry::protocol::{Context, Event, SpanStatus};
use sentry::transports::ReqwestHttpTransportOptions;
use sentry::{
    Breadcrumb, Client, ClientOptions, Hub, SentryFutureExt, TransactionContext, Transport, TransportFactory,
    TransportOptions,
};
use serde_json::Value;
use tokio::time::Instant;
use tracing::Instrument;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;

use super::event_limit::EventLimit;
use super::{BoxedLayer, scrub};
use crate::config;
use crate::transport::{TransportError, install_tls_provider};

const RELEASE: &str = concat!("hpc-storage-proxy@", env!("CARGO_PKG_VERSION"));
/// Environment of events if none is set: Sentry's own default.
const ENVIRONMENT: &str = "production";
/// Timeout for sending one envelope.
const SEND: Duration = Duration::from_secs(10);
/// Time for sending queued envelopes when the process ends.
const FLUSH: Duration = Duration::from_secs(2);
/// Number of log lines attached to an event.
const BREADCRUMBS: usize = 50;
/// Log field with the name of a caller.
const CALLER_FIELD: &str = "claimed_username";
/// Target of log lines with URLs that contain user names.
const USER_TARGET: &str = "proxy::hpc_user::users";

/// The connection to Sentry; dropping it sends the queue, for at most [`FLUSH`].
pub(super) struct Connection(Arc<Client>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let client = Arc::clone(&self.0);
        let (done, waiting) = mpsc::channel();
        // In a separate thread, because closing waits for room in the queue and for the current request.
        thread::spawn(move || {
            client.close(Some(FLUSH));
            // Fails only if the receiver no longer waits.
            let _ = done.send(());
        });
        // The thread ends with the process.
        let _ = waiting.recv_timeout(FLUSH);
    }
}

/// Connects this thread, and those that it starts later, to Sentry; `None` if there is no DSN.
pub(super) fn start(settings: &config::Sentry) -> Result<Option<Connection>, TransportError> {
    let Some(dsn) = &settings.dsn else { return Ok(None) };
    install_tls_provider();
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(SEND)
        .build()
        .map_err(TransportError::Client)?;
    let limit = EventLimit::default();
    // Not `sentry::init`, which reads missing options from the environment.
    let options = ClientOptions::new()
        // The settings are validated: the DSN parses, and the rate is between 0 and 1.
        .dsn(dsn.expose_secret().trim())
        .traces_sample_rate(settings.traces_sample_rate)
        .release(RELEASE)
        .environment(settings.environment.clone().unwrap_or_else(|| ENVIRONMENT.to_owned()))
        .send_default_pii(false)
        .max_breadcrumbs(BREADCRUMBS)
        .in_app_include(["proxy", "catalog"])
        .integrations([
            Arc::new(ContextIntegration::default()) as Arc<dyn sentry::Integration>,
            Arc::new(ProcessStacktraceIntegration),
        ])
        .before_breadcrumb(without_names)
        .before_send(move |event| if limit.admits(key_of(&event), Instant::now()) { scrubbed(event) } else { None })
        .transport(Http(http));
    let client = Arc::new(Client::from(options));
    Hub::main().bind_client(Some(Arc::clone(&client)));
    Ok(Some(Connection(client)))
}

/// Creates the transport with a client that reads nothing from the environment.
struct Http(reqwest::Client);

impl TransportFactory for Http {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        Arc::new(ReqwestHttpTransportOptions::from(options).with_client(self.0.clone()).build())
    }
}

/// The layers that turn our log lines and spans into events, breadcrumbs and traces.
pub(super) fn layers() -> [BoxedLayer; 3] {
    let own = |level| Targets::new().with_target("proxy", level);
    [
        // Before the breadcrumbs, so that an error is not a breadcrumb of itself.
        ErrorLayer::new().with_filter(own(LevelFilter::ERROR)).boxed(),
        BreadcrumbLayer::new().with_filter(own(LevelFilter::INFO)).boxed(),
        SpanLayer::new().with_filter(Targets::new().with_target("proxy::upstream", LevelFilter::DEBUG)).boxed(),
    ]
}

/// Removes names of people; `None` drops the breadcrumb.
fn without_names(mut breadcrumb: Breadcrumb) -> Option<Breadcrumb> {
    breadcrumb.data.remove(CALLER_FIELD);
    (breadcrumb.category.as_deref() != Some(USER_TARGET)).then_some(breadcrumb)
}

/// Identifies repeated events: by message and error chain.
fn key_of(event: &Event<'_>) -> String {
    let mut key = event.message.clone().unwrap_or_default();
    for exception in &event.exception {
        key.push('\n');
        key.push_str(exception.value.as_deref().unwrap_or(&exception.ty));
    }
    if let Some(Context::Other(fields)) = event.contexts.get("Rust Tracing Fields")
        && let Some(Value::String(error)) = fields.get("error")
    {
        key.push('\n');
        key.push_str(error);
    }
    key
}

/// The event without anything that looks like a credential; `None` if that fails.
fn scrubbed(event: Event<'static>) -> Option<Event<'static>> {
    let mut value = serde_json::to_value(event).ok()?;
    scrub_all(&mut value);
    serde_json::from_value(value).ok()
}

fn scrub_all(value: &mut Value) {
    match value {
        Value::String(text) => *text = scrub(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(scrub_all),
        Value::Object(fields) => fields.values_mut().for_each(scrub_all),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Runs the handler of a request with its own events and breadcrumbs and, if sampled, as a transaction. `route` is the
/// matched pattern, never the path. A request that the client cancels leaves no transaction.
pub(super) async fn traced(
    method: &Method,
    route: &str,
    request_id: &str,
    handler: impl Future<Output = Response>,
) -> Response {
    let outer = Hub::current();
    if outer.client().is_none() {
        return handler.await;
    }
    let hub = Arc::new(Hub::new_from_top(outer));
    let name = format!("{} {route}", method_name(method));
    let transaction = hub.start_transaction(TransactionContext::new(&name, "http.server"));
    hub.configure_scope(|scope| {
        scope.set_transaction(Some(&name));
        scope.set_tag("request_id", request_id);
        scope.set_span(Some(transaction.clone().into()));
    });
    let response = handler.bind_hub(hub).await;
    transaction.set_data("http.response.status_code", response.status().as_u16().into());
    transaction.set_status(span_status(response.status()));
    transaction.finish();
    response
}

/// Attributes events and log lines of `work` to the current request, even if the work outlives it.
pub(crate) fn in_current_request<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.in_current_span().bind_hub(Hub::current())
}

/// The name of a standard method; `other` for any other, which is free text of the client.
pub(super) fn method_name(method: &Method) -> &str {
    match *method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH | Method::DELETE | Method::OPTIONS => {
            method.as_str()
        }
        _ => "other",
    }
}

fn span_status(status: StatusCode) -> SpanStatus {
    match status {
        StatusCode::UNAUTHORIZED => SpanStatus::Unauthenticated,
        StatusCode::FORBIDDEN => SpanStatus::PermissionDenied,
        StatusCode::NOT_FOUND => SpanStatus::NotFound,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => SpanStatus::Unavailable,
        status if status.is_client_error() => SpanStatus::InvalidArgument,
        status if status.is_server_error() => SpanStatus::InternalError,
        _ => SpanStatus::Ok,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(value: Value) -> Event<'static> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn events_with_the_same_message_and_error_have_the_same_key() {
        let of = |message: &str, error: &str, id: &str| {
            let fields = json!({ "Rust Tracing Fields": { "type": "unknown", "error": error } });
            key_of(&event(json!({ "message": message, "tags": { "request_id": id }, "contexts": fields })))
        };
        assert_eq!(of("fails", "it answered 503", "1"), of("fails", "it answered 503", "2"));
        assert_ne!(of("fails", "it answered 503", "1"), of("fails", "it answered 500", "1"));
        assert_ne!(of("fails", "it answered 503", "1"), of("failed", "it answered 503", "1"));
        let panic =
            |value: &str| key_of(&event(json!({ "exception": { "values": [{ "type": "panic", "value": value }] } })));
        assert_ne!(panic("a"), panic("b"));
    }

    #[test]
    fn credentials_are_removed_from_every_part_of_an_event() {
        let token = "0123456789abcdef0123456789abcdef01234567";
        let event = event(json!({
            "message": format!("saw {token}"),
            "exception": { "values": [{ "type": "panic", "value": format!("Token {token}") }] },
            "tags": { "tag": token },
            "extra": { "list": [{ "deep": token }] },
            "breadcrumbs": { "values": [{ "message": token, "data": { "error": [token] } }] },
            "contexts": { "Rust Tracing Fields": { "type": "unknown", "error": token } },
        }));
        assert!(serde_json::to_string(&event).unwrap().matches(token).count() >= 7);
        let event = scrubbed(event).unwrap();
        assert!(!serde_json::to_string(&event).unwrap().contains(token));
        assert_eq!(event.message.unwrap(), "saw [redacted]");
    }

    #[test]
    fn breadcrumbs_contain_no_names() {
        let mut breadcrumb = Breadcrumb { category: Some(String::from("proxy::auth")), ..Breadcrumb::default() };
        breadcrumb.data.insert(CALLER_FIELD.to_owned(), "jdoe".into());
        breadcrumb.data.insert(String::from("reason"), "expired".into());
        let kept = without_names(breadcrumb).unwrap();
        assert_eq!(kept.data.into_iter().collect::<Vec<_>>(), [(String::from("reason"), Value::from("expired"))]);
        let user = Breadcrumb { category: Some(USER_TARGET.to_owned()), ..Breadcrumb::default() };
        assert!(without_names(user).is_none());
    }
}
