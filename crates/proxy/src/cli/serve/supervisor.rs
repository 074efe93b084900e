//! What systemd is told (`sd_notify(3)`). Without systemd all of it does nothing.

use sd_notify::NotifyState;
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

/// Everything is listened on, and all settings are in force.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The settings are read anew, until `ready`.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "there is no monotonic time"),
    }
}

/// Nothing new is accepted.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says again and again that the program's threads do their work, where systemd waits for it (`WatchdogSec=`).
pub(super) async fn ping() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else { return };
    debug!(seconds = limit.as_secs_f64(), "the watchdog is on");
    let mut ticks = tokio::time::interval(limit / 3);
    loop {
        ticks.tick().await;
        // This passes through the queue of all tasks, so that a ping goes out only while that moves. Sending waits where
        // systemd does not listen, and no request is to wait for it.
        let sent = tokio::spawn(async { spawn_blocking(|| tell(&[NotifyState::Watchdog])).await });
        // An error says that the program ends.
        let _ = sent.await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd cannot be told");
    }
}
