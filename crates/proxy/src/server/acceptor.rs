//! Accepts connections.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::connection::{self, Phase};
use super::frontend::Frontend;
use super::limits::{ConnectionLimits, MAX_CONNECTIONS};
use super::listeners::Listener;
use super::tls;
use program::lock;

/// Pause after an error: most errors mean that a resource is exhausted.
const PAUSE: Duration = Duration::from_millis(100);
/// Minimum time between two log lines about the same problem.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Accepts connections on all listeners, within one limit.
#[derive(Debug)]
pub(super) struct Acceptor {
    limits: ConnectionLimits,
    /// One permit for each connection.
    permits: Arc<Semaphore>,
    full: LogThrottle,
    failing: LogThrottle,
}

impl Acceptor {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.connections));
        Self { limits, permits, full: LogThrottle::default(), failing: LogThrottle::default() }
    }

    /// Accepts connections as permits become free, and serves each in its own task. Never resolves.
    pub(super) async fn accept(
        self: Arc<Self>,
        listener: Listener,
        front: Arc<Frontend>,
        phase: watch::Receiver<Phase>,
    ) {
        // The semaphore is never closed.
        while let Ok(permit) = self.permit().await {
            let stream = match listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    self.log_and_pause(&error).await;
                    continue;
                }
            };
            let (acceptor, front, mut phase) = (self.clone(), front.clone(), phase.clone());
            tokio::spawn(async move {
                if let Some(stream) = tls::handshake(stream, &front, &acceptor.limits, &mut phase).await {
                    connection::serve(stream, front, &acceptor.limits, phase).await;
                }
                drop(permit);
            });
        }
    }

    /// Waits for a permit. Until then connections wait in the operating system's queue.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, tokio::sync::AcquireError> {
        if self.permits.available_permits() == 0 && self.full.is_due(Instant::now()) {
            warn!(
                connections = self.limits.connections,
                "the limit on connections is reached ({MAX_CONNECTIONS}, or three quarters of the limit on open files): \
                 new connections wait"
            );
        }
        self.permits.clone().acquire_owned().await
    }

    async fn log_and_pause(&self, error: &io::Error) {
        // These errors concern one connection only, which is already closed.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
            return;
        }
        if self.failing.is_due(Instant::now()) {
            warn!(%error, "cannot accept a connection");
        }
        sleep(PAUSE).await;
    }

    /// Resolves when no connection is left. Call it after accepting has stopped.
    pub(super) async fn wait_until_empty(&self) {
        let all = u32::try_from(self.limits.connections).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.permits.acquire_many(all).await;
    }
}

/// Limits how often a problem is logged.
#[derive(Debug, Default)]
struct LogThrottle(Mutex<Option<Instant>>);

impl LogThrottle {
    /// Whether to log the problem now; `true` at most once per [`LOG_INTERVAL`].
    fn is_due(&self, now: Instant) -> bool {
        let mut last = lock(&self.0);
        let due = last.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL);
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
    fn a_problem_is_logged_once_a_minute() {
        let throttle = LogThrottle::default();
        let start = Instant::now();
        let due = [0, 1, 59, 60, 61, 119, 120].map(|second| throttle.is_due(start + Duration::from_secs(second)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }
}
