//! The log, panic reports and, if configured, Sentry and OpenTelemetry.
//!
//! The log goes to standard output, one line per event, with UTC times, as text or JSON, and with its
//! priority if systemd's journal reads it. Lines of a request have its ID in
//! the span `request`. `DEBUG` adds the mapping of each resource and each upstream exchange. Libraries log warnings only,
//! because their debug logs may contain credentials.

mod event_limit;
mod log_writer;
mod otlp;
mod panics;
mod plain_fields;
mod scrub;
mod sentry;
pub(crate) mod spans;

use std::io::{self, IsTerminal};

use axum::http::Method;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry_otlp::ExporterBuildError;
use program::journal::Prioritized;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Settings};
use crate::transport::TransportError;

use plain_fields::PlainFields;

pub(crate) use log_writer::lost_lines;
pub(crate) use scrub::scrub;
pub(crate) use sentry::in_current_request;

/// Target of the log line for each request.
pub(crate) const ACCESS: &str = "access";
/// Target of the log lines that show the settings in force.
pub(crate) const SETTINGS: &str = "settings";
/// Target of the log line for a panic.
const PANIC: &str = "panic";

/// Keeps the log, Sentry and traces running. Dropping it sends what is queued for Sentry and for the collector, for at most
/// two seconds each, and then writes the rest of the log.
#[derive(Debug)]
#[must_use = "dropping it ends the log, Sentry and traces"]
pub struct Telemetry {
    _sentry: Option<sentry::Connection>,
    _traces: Option<otlp::Export>,
    /// Dropped last, because the others may log.
    _log: log_writer::FlushOnDrop,
}

/// Why telemetry could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The HTTP client for Sentry or the trace collector.
    #[error("cannot create the HTTP client for Sentry or the trace collector")]
    Client(#[from] TransportError),
    /// The trace exporter.
    #[error("cannot create the trace exporter; check otlp.endpoint and otlp.headers")]
    Traces(#[from] ExporterBuildError),
}

/// Starts the log and panic reports; Sentry if there is a DSN, and traces if there is a collector. Call it once, before any
/// other thread starts and outside of any runtime.
///
/// # Errors
///
/// An HTTP client or exporter cannot be created. A host that does not respond is not an error.
pub fn start(settings: &Settings) -> Result<Telemetry, StartError> {
    let sentry = sentry::start(&settings.sentry)?;
    let traces = otlp::start(&settings.otlp)?;
    let (writer, flush) = log_writer::start();
    let mut layers = vec![log(settings, writer)];
    if sentry.is_some() {
        layers.extend(sentry::layers());
    }
    // Fails only if the process has a log already.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    panics::report();
    Ok(Telemetry { _sentry: sentry, _traces: traces, _log: flush })
}

/// Runs the handler of a request with its own span, Sentry scope and transaction. `route` is the matched pattern, never
/// the path.
pub(crate) async fn traced(
    span: Context,
    method: &Method,
    route: &str,
    request_id: &str,
    handler: impl Future<Output = Response>,
) -> Response {
    let response = sentry::traced(method, route, request_id, handler).with_context(span.clone()).await;
    spans::answered(&span, response.status());
    response
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log(settings: &Settings, writer: NonBlocking) -> BoxedLayer {
    let own = if settings.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("proxy", own)
        .with_targets([(ACCESS, LevelFilter::INFO), (SETTINGS, LevelFilter::INFO)]);
    let lines = tracing_subscriber::fmt::layer().with_writer(Prioritized::new(writer, io::stdout()));
    match settings.log.format {
        LogFormat::Human if io::stdout().is_terminal() => lines.with_ansi(true).with_filter(filter).boxed(),
        LogFormat::Human => lines.with_ansi(false).fmt_fields(PlainFields).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    }
}
