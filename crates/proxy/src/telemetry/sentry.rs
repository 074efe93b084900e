//! Sentry: errors, and traces of a share of the requests.
//!
//! Events are our `error!` lines with their chains, and panics; what was logged before, as information or a warning,
//! comes along as breadcrumbs. Transactions are requests, named by their route, with the exchanges with upstreams as
//! spans; an exchange in the background is a transaction of its own. Neither headers, queries and paths of requests nor
//! names of persons are sent; a request is known by its id. A trace that a caller began is not continued, since its header
//! would decide about sampling.
//!
//! Sentry is reached directly, never through a proxy: variables such as `HTTPS_PROXY` are not read. A host that gives no
//! answer costs events, never a request: they wait in a short queue that a thread of its own empties.

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
/// Environment of events when none is set: Sentry's own default.
const ENVIRONMENT: &str = "production";
/// Deadline for sending one envelope.
const SEND: Duration = Duration::from_secs(10);
/// How long the end of the process waits for what was not sent yet.
const FLUSH: Duration = Duration::from_secs(2);
/// Log lines that go along with an event.
const BREADCRUMBS: usize = 50;
/// Field of the log that names a caller.
const CALLER_FIELD: &str = "claimed_username";
/// Where a line of the log shows URLs with names of users in them.
const USER_TARGET: &str = "proxy::hpc_user::users";

/// The connection to Sentry; dropping it sends what is left, for two seconds at most.
pub(super) struct Reports(Arc<Client>);

impl std::fmt::Debug for Reports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reports")
    }
}

impl Drop for Reports {
    fn drop(&mut self) {
        let client = Arc::clone(&self.0);
        let (done, waiting) = mpsc::channel();
        // On a thread of its own, since closing waits for room in the queue and for the request that runs.
        thread::spawn(move || {
            client.close(Some(FLUSH));
            // An error says that nobody waits any more.
            let _ = done.send(());
        });
        // The end of the process ends the thread.
        let _ = waiting.recv_timeout(FLUSH);
    }
}

/// Connects this thread, and all that it starts later, to Sentry. `None`: there is no DSN.
pub(super) fn start(settings: &config::Sentry) -> Result<Option<Reports>, TransportError> {
    let Some(dsn) = &settings.dsn else { return Ok(None) };
    install_tls_provider();
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(SEND)
        .build()
        .map_err(TransportError::Client)?;
    let limit = EventLimit::default();
    // Not `sentry::init`, which looks into the environment for what is not given here.
    let options = ClientOptions::new()
        // The settings were judged: the DSN parses, and the share is between 0 and 1.
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
        .before_breadcrumb(impersonal)
        .before_send(move |event| if limit.admits(kind(&event), Instant::now()) { scrubbed(event) } else { None })
        .transport(Http(http));
    let client = Arc::new(Client::from(options));
    Hub::main().bind_client(Some(Arc::clone(&client)));
    Ok(Some(Reports(client)))
}

/// Makes the transport with a client that reads nothing from the environment.
struct Http(reqwest::Client);

impl TransportFactory for Http {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        Arc::new(ReqwestHttpTransportOptions::from(options).with_client(self.0.clone()).build())
    }
}

/// What turns our log lines and spans into events, breadcrumbs and traces.
pub(super) fn layers() -> [BoxedLayer; 3] {
    let own = |level| Targets::new().with_target("proxy", level);
    [
        // Before the breadcrumbs, so that an error is not its own breadcrumb.
        ErrorLayer::new().with_filter(own(LevelFilter::ERROR)).boxed(),
        BreadcrumbLayer::new().with_filter(own(LevelFilter::INFO)).boxed(),
        SpanLayer::new().with_filter(Targets::new().with_target("proxy::upstream", LevelFilter::DEBUG)).boxed(),
    ]
}

/// The breadcrumb without names of persons.
fn impersonal(mut breadcrumb: Breadcrumb) -> Option<Breadcrumb> {
    breadcrumb.data.remove(CALLER_FIELD);
    (breadcrumb.category.as_deref() != Some(USER_TARGET)).then_some(breadcrumb)
}

/// What makes two events the same: their message and the chain of their error.
fn kind(event: &Event<'_>) -> String {
    let mut kind = event.message.clone().unwrap_or_default();
    for exception in &event.exception {
        kind.push('\n');
        kind.push_str(exception.value.as_deref().unwrap_or(&exception.ty));
    }
    if let Some(Context::Other(fields)) = event.contexts.get("Rust Tracing Fields")
        && let Some(Value::String(error)) = fields.get("error")
    {
        kind.push('\n');
        kind.push_str(error);
    }
    kind
}

/// The event without anything that looks like a credential; no event, should that fail.
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

/// Answers a request with events and breadcrumbs of its own and, by chance, as a transaction. `route` is the pattern that
/// matched, never the path. A request whose caller goes away leaves no transaction.
pub(super) async fn traced(
    method: &Method,
    route: &str,
    request_id: &str,
    answer: impl Future<Output = Response>,
) -> Response {
    let outer = Hub::current();
    if outer.client().is_none() {
        return answer.await;
    }
    let hub = Arc::new(Hub::new_from_top(outer));
    let name = format!("{} {route}", known(method));
    let transaction = hub.start_transaction(TransactionContext::new(&name, "http.server"));
    hub.configure_scope(|scope| {
        scope.set_transaction(Some(&name));
        scope.set_tag("request_id", request_id);
        scope.set_span(Some(transaction.clone().into()));
    });
    let response = answer.bind_hub(hub).await;
    transaction.set_data("http.response.status_code", response.status().as_u16().into());
    transaction.set_status(span_status(response.status()));
    transaction.finish();
    response
}

/// Work that goes on when the request that began it is gone: its events and log lines stay that request's.
pub(crate) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    work.in_current_span().bind_hub(Hub::current())
}

/// A method's name; one that is nobody's is the caller's free text.
pub(super) fn known(method: &Method) -> &str {
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
    fn events_of_a_kind_have_message_and_error_in_common() {
        let of = |message: &str, error: &str, id: &str| {
            let fields = json!({ "Rust Tracing Fields": { "type": "unknown", "error": error } });
            kind(&event(json!({ "message": message, "tags": { "request_id": id }, "contexts": fields })))
        };
        assert_eq!(of("fails", "it answered 503", "1"), of("fails", "it answered 503", "2"));
        assert_ne!(of("fails", "it answered 503", "1"), of("fails", "it answered 500", "1"));
        assert_ne!(of("fails", "it answered 503", "1"), of("failed", "it answered 503", "1"));
        let panic =
            |value: &str| kind(&event(json!({ "exception": { "values": [{ "type": "panic", "value": value }] } })));
        assert_ne!(panic("a"), panic("b"));
    }

    #[test]
    fn a_credential_is_taken_out_of_every_part_of_an_event() {
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
    fn breadcrumbs_name_nobody() {
        let mut breadcrumb = Breadcrumb { category: Some(String::from("proxy::auth")), ..Breadcrumb::default() };
        breadcrumb.data.insert(CALLER_FIELD.to_owned(), "jdoe".into());
        breadcrumb.data.insert(String::from("reason"), "expired".into());
        let kept = impersonal(breadcrumb).unwrap();
        assert_eq!(kept.data.into_iter().collect::<Vec<_>>(), [(String::from("reason"), Value::from("expired"))]);
        let user = Breadcrumb { category: Some(USER_TARGET.to_owned()), ..Breadcrumb::default() };
        assert!(impersonal(user).is_none());
    }
}
