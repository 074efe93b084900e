//! New connections.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::connection::{self, Phase};
use super::frontend::Frontend;
use super::limits::ConnectionLimits;
use super::listeners::Listener;
use super::tls;

/// How long nothing is accepted after an error: most say that something is used up, and not for how long.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the same trouble is told.
const TELL_EVERY: Duration = Duration::from_mins(1);

/// What all listeners have in common.
#[derive(Debug)]
pub(super) struct Acceptor {
    limits: ConnectionLimits,
    /// A place for each connection that may be.
    places: Arc<Semaphore>,
    full: LogThrottle,
    failing: LogThrottle,
}

impl Acceptor {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let places = Arc::new(Semaphore::new(limits.connections));
        Self { limits, places, full: LogThrottle::default(), failing: LogThrottle::default() }
    }

    /// Accepts connections, each when there is a place for it, and serves them in tasks of their own. Never resolves.
    pub(super) async fn accept(
        self: Arc<Self>,
        listener: Listener,
        front: Arc<Frontend>,
        phase: watch::Receiver<Phase>,
    ) {
        // The places are never closed.
        while let Ok(place) = self.place().await {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            };
            let (door, front, mut phase) = (self.clone(), front.clone(), phase.clone());
            tokio::spawn(async move {
                if let Some(stream) = tls::met(stream, &front, door.limits.head, &mut phase).await {
                    connection::serve(stream, front, &door.limits, phase).await;
                }
                drop(place);
            });
        }
    }

    /// Waits for a place. Until there is one, connections wait with the system.
    async fn place(&self) -> Result<OwnedSemaphorePermit, tokio::sync::AcquireError> {
        if self.places.available_permits() == 0 && self.full.is_due(Instant::now()) {
            warn!(
                connections = self.limits.connections,
                "there are as many connections as may be (4096, or three quarters of the limit on open files): new \
                 ones wait"
            );
        }
        self.places.clone().acquire_owned().await
    }

    async fn failed(&self, error: &io::Error) {
        // These concern the one connection, which is gone.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if self.failing.is_due(Instant::now()) {
            warn!(%error, "a connection cannot be accepted");
        }
        sleep(PAUSE).await;
    }

    /// Resolves when no connection is left. To be asked when nothing is accepted any more.
    pub(super) async fn empty(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        // The places are never closed.
        let _ = self.places.acquire_many(all).await;
    }
}

/// When some trouble was told last.
#[derive(Debug, Default)]
struct LogThrottle(Mutex<Option<Instant>>);

impl LogThrottle {
    /// Whether it is to be told now.
    fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.duration_since(last) >= TELL_EVERY);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_once_a_minute() {
        let told = LogThrottle::default();
        let start = Instant::now();
        let due = [0, 1, 59, 60, 61, 119, 120].map(|second| told.is_due(start + Duration::from_secs(second)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
