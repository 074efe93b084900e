//! What the process tells about itself: the log, panics and, when it is switched on, Sentry.
//!
//! The log goes to standard output, one line an event, with UTC times: for people, or as JSON. Lines that belong to a
//! request carry its id in the span `request`. `DEBUG` adds the mapping of each resource and each upstream exchange; the
//! libraries underneath stay at warnings, since their debug logs may hold credentials.

mod panics;
mod scrub;
mod sentry;
mod storm;

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::{LogFormat, Settings};
use crate::upstream::TransportError;

pub(crate) use scrub::scrub;
pub(crate) use sentry::{carried, traced};

/// Target of the line that each request gets.
pub(crate) const ACCESS: &str = "access";
/// Target of the lines that show the settings in force.
pub(crate) const SETTINGS: &str = "settings";
/// Target of the line that a panic gets.
const PANIC: &str = "panic";

/// Log, panic reports and Sentry until it is dropped; then what Sentry has not got yet is sent, for two seconds at most.
#[derive(Debug)]
#[must_use = "when it is dropped, Sentry ends"]
pub struct Telemetry {
    _sentry: Option<sentry::Reports>,
}

/// Starts the log, panic reports and, with a DSN, Sentry. Once for the process, before any other thread is started.
///
/// # Errors
///
/// Sentry's HTTP client cannot be built. That its host gives no answer is no error.
pub fn start(settings: &Settings) -> Result<Telemetry, TransportError> {
    let sentry = sentry::start(&settings.sentry)?;
    let mut layers = vec![log(settings)];
    if sentry.is_some() {
        layers.extend(sentry::layers());
    }
    // An error says that the process has a log already.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    panics::report();
    Ok(Telemetry { _sentry: sentry })
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

fn log(settings: &Settings) -> BoxedLayer {
    let own = if settings.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target("proxy", own)
        .with_targets([(ACCESS, LevelFilter::INFO), (SETTINGS, LevelFilter::INFO)]);
    let lines = tracing_subscriber::fmt::layer();
    match settings.log.format {
        LogFormat::Human => lines.with_ansi(io::stdout().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_filter(filter).boxed(),
    }
}
