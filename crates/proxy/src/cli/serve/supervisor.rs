//! Notifies systemd (`sd_notify(3)`). Does nothing without systemd.

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

/// The proxy listens and all settings are in force.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// A reload has started; `ready` ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot read the monotonic clock"),
    }
}

/// The proxy no longer accepts connections.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Pings the watchdog of systemd regularly, if it is enabled (`WatchdogSec=`).
pub(super) async fn ping() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    debug!(seconds = limit.as_secs_f64(), "the watchdog is on");
    let mut ticks = tokio::time::interval(limit / 3);
    loop {
        ticks.tick().await;
        // A new task, so that pings stop if the runtime no longer schedules tasks. A blocking thread, because sending
        // blocks if systemd does not read.
        let sent = tokio::spawn(async { spawn_blocking(|| notify(&[NotifyState::Watchdog])).await });
        // Fails only while the runtime shuts down.
        let _ = sent.await;
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify systemd");
    }
}
