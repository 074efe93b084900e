//! How a replica gets its next reading.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::snapshot::Snapshot;

/// A published reading without its snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// When reading began, in microseconds by the server's clock.
    pub(super) began: u64,
    /// When the snapshot's content last changed, in seconds of Unix time.
    pub(super) modified: u64,
    /// Fingerprint of the snapshot.
    pub(super) content: u64,
    /// The replica that published it.
    pub(super) by: Uuid,
    /// Digest of the identities that were published with it, as sealed. Older ones must not be used.
    pub(super) identities: [u8; 32],
}

/// What a replica that needs a reading does.
#[derive(Debug)]
pub enum Turn {
    /// Use another replica's reading.
    Take(Shared),
    /// Read the upstreams and publish the result.
    Read(Lease),
    /// Read the upstreams without publishing.
    Alone,
}

/// A reading from the shared cache.
#[derive(Debug)]
pub struct Shared {
    pub snapshot: Arc<Snapshot>,
    /// When reading began, or slightly earlier.
    pub began: Instant,
    /// When the snapshot's content last changed.
    pub modified: SystemTime,
}

/// The right to read the upstreams for all replicas.
#[derive(Debug)]
pub struct Lease {
    pub(super) token: String,
    pub(super) at: Moment,
    /// The published head when the lease was granted.
    pub(super) head: Option<Head>,
    /// Whether the publication may be usable.
    pub(super) sound: bool,
}

/// The same time by two clocks: the server's, in microseconds, and our own, which may be slightly early.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) server: u64,
    pub(super) own: Instant,
}

impl Moment {
    /// The time since the server's clock showed this; `None` for the future.
    pub(super) fn since(&self, server: u64) -> Option<Duration> {
        self.server.checked_sub(server).map(Duration::from_micros)
    }

    /// When the server's clock showed this, or slightly earlier.
    pub(super) fn own(&self, server: u64) -> Option<Instant> {
        // Fails if the machine was started later.
        self.since(server).and_then(|since| self.own.checked_sub(since))
    }
}

impl Head {
    /// When the snapshot's content last changed, if it has this fingerprint.
    pub fn modified(&self, content: u64) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.modified)).filter(|_| self.content == content)
    }
}

impl Lease {
    /// The published head when the lease was granted.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}
