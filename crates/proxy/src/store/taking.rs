//! Refreshing where other replicas read, too: taking what one of them has read, or reading for all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use super::{Outcome, Store};
use crate::metrics;
use crate::reading::Reading;
use crate::shared_cache::{Taken, Turn};

/// How a refresh has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The upstreams are read.
    Success,
    /// Another replica has read them.
    Taken,
    /// They could not be read.
    Failure,
}

/// A reading of our own, and how it has ended.
fn ended(outcome: Outcome) -> (Outcome, Ending) {
    let ending = if outcome.is_ok() { Ending::Success } else { Ending::Failure };
    (outcome, ending)
}

impl Store {
    /// Takes what another replica has read, or reads.
    pub(super) async fn take_or_read(&self, asked: Instant, max_age: Duration) -> (Outcome, Ending) {
        let Some(shared) = &self.shared else { return ended(self.read(None).await) };
        let before = self.newest.load_full();
        let newest = before.as_deref();
        let lease = match shared.turn(asked, max_age, newest).await {
            Turn::Take(taken) => return (Ok(self.take(taken, newest)), Ending::Taken),
            Turn::Alone => return ended(self.read(None).await),
            Turn::Read(lease) => lease,
        };
        if let Some((known, ago)) = shared.identities(&lease).await {
            self.source.identities().go_on_from(known, ago);
        }
        let outcome = shared.keeping(&lease, self.read(lease.head())).await;
        if let Ok(reading) = &outcome {
            let identities = self.source.identities().known();
            let (snapshot, modified) = (Arc::clone(&reading.snapshot), reading.modified);
            let shared = Arc::clone(shared);
            // Nobody waits for it here.
            tokio::spawn(async move { shared.publish(lease, snapshot, modified, identities).await });
        } else {
            // Perhaps another replica has read since this one did, and its reading may stand in.
            if let Some(taken) = shared.last(&lease, newest).await {
                self.take(taken, newest);
            }
            shared.release(lease).await;
        }
        ended(outcome)
    }

    /// Makes another replica's reading the newest one.
    fn take(&self, taken: Taken, before: Option<&Reading>) -> Arc<Reading> {
        metrics::taken();
        let Taken { snapshot, began, modified } = taken;
        let same = before.filter(|before| Arc::ptr_eq(&before.snapshot, &snapshot));
        if same.is_none() {
            self.source.report(&snapshot);
        }
        if before.is_none() {
            info!(items = snapshot.len(), "the catalogue is taken from another replica");
        } else {
            debug!(items = snapshot.len(), "the catalogue is taken from another replica");
        }
        let encoded = same.map(|same| Arc::clone(&same.encoded)).unwrap_or_default();
        let reading = Arc::new(Reading { snapshot, began, encoded, modified });
        self.newest.store(Some(Arc::clone(&reading)));
        reading
    }
}
