//! The log.

use tracing_subscriber::filter::EnvFilter;

use crate::settings::{LogFormat, Settings};

/// Writes the log to standard output, as the Python proxy does: for people or as JSON; with `DEBUG` the mapping of each
/// resource and each upstream exchange too.
pub fn log_to_stdout(settings: &Settings) {
    // The libraries underneath log at their debug level what may hold credentials.
    let filter =
        EnvFilter::new(if settings.debug { "warn,proxy=debug,settings=info" } else { "warn,proxy=info,settings=info" });
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // An error says that a test has set a log already.
    let _ = match settings.log.format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
