//! Refreshes with a shared cache: uses another replica's reading, or reads and publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{Outcome, Store};
use crate::metrics;
use crate::reading::Reading;
use crate::shared_cache::{Shared, Turn};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The upstreams have been read.
    Success,
    /// Another replica's reading is used.
    Shared,
    Failure,
}

fn ended(outcome: Outcome) -> (Outcome, Ending) {
    let ending = if outcome.is_ok() { Ending::Success } else { Ending::Failure };
    (outcome, ending)
}

impl Store {
    /// Uses another replica's reading, or reads the upstreams.
    pub(super) async fn take_or_read(&self, requested: Instant, max_age: Duration) -> (Outcome, Ending) {
        let Some(shared) = &self.shared else { return ended(self.read(None).await) };
        let before = self.newest.load_full();
        let newest = before.as_deref();
        let lease = match shared.turn(requested, max_age, newest).await {
            Turn::Take(reading) => return (Ok(self.take(reading, newest)), Ending::Shared),
            Turn::Alone => return ended(self.read(None).await),
            Turn::Read(lease) => lease,
        };
        if let Some((identities, ago)) = shared.identities(&lease).await {
            self.source.identities().adopt(identities, ago);
        }
        let outcome = shared.keeping(&lease, self.read(lease.head())).await;
        if let Ok(reading) = &outcome {
            let identities = self.source.identities().export();
            let (snapshot, modified) = (Arc::clone(&reading.snapshot), reading.modified);
            let shared = Arc::clone(shared);
            // In the background.
            tokio::spawn(async move { shared.publish(lease, snapshot, modified, identities).await });
        } else {
            // Another replica's reading may be younger than ours, for use while the upstreams fail.
            if let Some(reading) = shared.last(&lease, newest).await {
                self.take(reading, newest);
            }
            shared.release(lease).await;
        }
        ended(outcome)
    }

    /// Makes another replica's reading the newest one.
    fn take(&self, shared: Shared, before: Option<&Reading>) -> Arc<Reading> {
        metrics::taken();
        let Shared { snapshot, began, modified } = shared;
        let same = before.filter(|before| Arc::ptr_eq(&before.snapshot, &snapshot));
        if same.is_none() {
            self.source.log_skipped(&snapshot);
        }
        if before.is_none() {
            info!(items = snapshot.len(), "using the catalogue of another replica");
        } else {
            debug!(items = snapshot.len(), "using the catalogue of another replica");
        }
        let encoded = same.map(|same| Arc::clone(&same.encoded)).unwrap_or_default();
        let reading = Arc::new(Reading { snapshot, began, encoded, modified });
        self.replace(&reading);
        reading
    }
}
