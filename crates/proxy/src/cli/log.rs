//! The log of commands that write their result to standard output.

use std::io;

use tracing_subscriber::filter::EnvFilter;

use super::terminal::Terminal;

/// Writes the log to standard error: warnings; with `DEBUG` also the mapping of each resource and each exchange.
pub(super) fn to_stderr(debug: bool, terminal: Terminal) {
    // The commands report skipped resources themselves, and do not use the shared cache.
    let filter =
        EnvFilter::new(if debug { "warn,proxy=debug" } else { "warn,proxy::source=error,proxy::shared=error" });
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // Fails only if a test has already installed a log.
    let _ = log.with_ansi(terminal.log_colour).try_init();
}
