//! What is kept between two readings.

use std::sync::{Arc, Weak};

use catalog::Watermark;
use tokio::time::Instant;

use super::Inputs;
use super::related::Related;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) inputs: Arc<Inputs>,
    pub(super) related: Related,
    pub(super) watermark: Watermark,
    /// When the last full reading began.
    pub(super) full: Instant,
    /// Whether the inputs differ from the snapshot.
    pub(super) changed: bool,
    /// The snapshot of the inputs, while somebody uses it.
    snapshot: Weak<Snapshot>,
}

impl Held {
    pub(super) fn new(inputs: Inputs, related: Related, watermark: Watermark, full: Instant) -> Self {
        Self { inputs: Arc::new(inputs), related, watermark, full, changed: true, snapshot: Weak::new() }
    }

    /// The snapshot, if nothing has changed since it was rendered.
    pub(super) fn unchanged(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.upgrade().filter(|_| !self.changed)
    }

    pub(super) fn rendered(&mut self, snapshot: &Arc<Snapshot>) {
        self.snapshot = Arc::downgrade(snapshot);
        self.changed = false;
    }

    /// The same snapshot belongs to new inputs that are equal.
    pub(super) fn inherit(&mut self, before: &Self) {
        self.snapshot = before.snapshot.clone();
        self.changed = before.changed;
    }
}
