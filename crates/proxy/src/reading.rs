//! A snapshot with the times that belong to it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::compression::Encoded;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub struct Reading {
    pub snapshot: Arc<Snapshot>,
    /// When reading the upstreams began: nothing in the snapshot is older.
    pub(crate) began: Instant,
    /// Compressed responses made from the snapshot.
    pub encoded: Arc<Encoded>,
    /// When the snapshot's content last changed, as wall-clock time.
    pub modified: SystemTime,
}

impl Reading {
    /// When reading the upstreams began: nothing in the snapshot is older.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The maximum age of the snapshot's content.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }
}
