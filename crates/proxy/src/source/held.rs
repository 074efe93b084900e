//! What is kept between two readings.

use std::sync::{Arc, Weak};

use catalog::{Catalogue, Watermark};
use tokio::time::Instant;

use super::Inputs;
use super::full::Renewal;
use super::related::Related;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(super) struct Held {
    pub(super) inputs: Arc<Inputs>,
    pub(super) related: Related,
    pub(super) watermark: Watermark,
    /// When the last full reading began.
    pub(super) full: Instant,
    /// The snapshot of the inputs, while it is in use; empty once they have changed.
    pub(super) snapshot: Weak<Snapshot>,
    /// A full reading that runs in the background.
    pub(super) renewal: Option<Renewal>,
    /// The catalogue of the last snapshot, to build the next one from.
    pub(super) catalogue: Option<Catalogue>,
}
