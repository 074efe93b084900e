//! What the process tells about itself: the log, panics and, where they are switched on, Sentry and OpenTelemetry.
//!
//! The log goes to standard output, one line an event, with UTC times: for people, or as JSON. Lines that belong to a
//! request carry its id in the span `request`. `DEBUG` adds the mapping of each resource and each upstream exchange; the
//! libraries underneath stay at warnings, since their debug logs may hold credentials.

mod event_limit;
mod lines;
mod otlp;
mod panics;
mod scrub;
mod sentry;
pub(crate) mod spans;

use std::io::{self, IsTerminal};

use axum::http::Method;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::context::FutureExt;
use opentelemetry_otlp::ExporterBuildError;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, Settings};
use crate::transport::TransportError;

pub(crate) use lines::lost as lost_lines;
pub(crate) use scrub::scrub;
pub(crate) use sentry::carried;

/// Target of the line that each request gets.
pub(crate) const ACCESS: &str = "access";
/// Target of the lines that show the settings in force.
pub(crate) const SETTINGS: &str = "settings";
/// Target of the line that a panic gets.
const PANIC: &str = "panic";

/// Log, panic reports, Sentry and traces until it is dropped; then what Sentry and the collector have not got yet is sent,
/// for two seconds each at most, and then the rest of the log.
#[derive(Debug)]
#[must_use = "when it is dropped, the log, Sentry and traces end"]
pub struct Telemetry {
    _sentry: Option<sentry::Reports>,
    _traces: Option<otlp::Recording>,
    /// Last, since the others may log.
    _lines: lines::Rest,
}

/// What cannot be set up.
#[derive(Debug, Error)]
pub enum StartError {
    /// A client for Sentry or the collector of traces.
    #[error("Sentry or the collector of traces cannot be reached like that")]
    Client(#[from] TransportError),
    /// The exporter of traces.
    #[error("traces cannot be sent like that; check otlp.endpoint and otlp.headers")]
    Traces(#[from] ExporterBuildError),
}

/// Starts the log, panic reports, with a DSN Sentry, and with a collector traces. Once for the process, before any other
/// thread is started and outside of any runtime.
///
/// # Errors
///
/// An HTTP client cannot be built. That a host gives no answer is no error.
pub fn start(settings: &Settings) -> Result<Telemetry, StartError> {
    let sentry = sentry::start(&settings.sentry)?;
    let traces = otlp::start(&settings.otlp)?;
    let (lines, rest) = lines::start();
    let mut layers = vec![log(settings, lines)];
    if sentry.is_some() {
        layers.extend(sentry::layers());
    }
    // An error says that the process has a log already.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    panics::report();
    Ok(Telemetry { _sentry: sentry, _traces: traces, _lines: rest })
}

/// Answers a request, whose span this is, with events, breadcrumbs and a transaction of its own. `route` is the pattern
/// that matched, never the path.
pub(crate) async fn traced(
    span: Context,
    method: &Method,
    route: &str,
    request_id: &str,
    answer: impl Future<Output = Response>,
) -> Response {
    let response = sentry::traced(method, route, request_id, answer).with_context(span.clone()).await;
    spans::answered(&span, response.status());
    response
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log(settings: &Settings, lines: NonBlocking) -> BoxedLayer {
    let own = if settings.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("proxy", own)
        .with_targets([(ACCESS, LevelFilter::INFO), (SETTINGS, LevelFilter::INFO)]);
    let lines = tracing_subscriber::fmt::layer().with_writer(lines);
    match settings.log.format {
        LogFormat::Human => lines.with_ansi(io::stdout().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    }
}
