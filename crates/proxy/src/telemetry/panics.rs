//! Reports each panic as one log line and one Sentry event.

use std::panic::{self, Location, PanicHookInfo};

use sentry::Hub;
use sentry::integrations::panic::PanicIntegration;
use tracing::error;

use super::{PANIC, scrub};

/// Installs the panic hook, which replaces the default text on standard error.
///
/// Sentry's own hook is not used: it would wait for Sentry in the panicking thread, which serves requests.
pub(super) fn report() {
    panic::set_hook(Box::new(|info| {
        log(info);
        Hub::with_active(|hub| hub.capture_event(PanicIntegration::new().event_from_panic_info(info)));
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let reason = scrub(info.payload_as_str().unwrap_or("a value that is not text")).into_owned();
    let location = info.location().map(Location::to_string).unwrap_or_default();
    let thread = std::thread::current();
    error!(target: PANIC, reason, location, thread = thread.name(), "panicked");
}
