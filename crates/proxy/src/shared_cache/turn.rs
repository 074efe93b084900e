//! What a replica may do, and what it knows then.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::snapshot::Snapshot;

/// A reading as it is published, without what was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// When it began: microseconds by the server's clock.
    pub(super) began: u64,
    /// Since when the snapshot says what it says: seconds of Unix time.
    pub(super) modified: u64,
    /// Fingerprint of the snapshot.
    pub(super) content: u64,
    /// Whose it is.
    pub(super) by: Uuid,
    /// Digest of the identities that were published with it, as sealed: older ones would bring back what has changed since.
    pub(super) identities: [u8; 32],
}

/// What a replica that needs a reading does.
#[derive(Debug)]
pub enum Turn {
    /// It takes what another one has read.
    Take(Taken),
    /// It reads for all.
    Read(Lease),
    /// It reads for itself.
    Alone,
}

/// A reading of another replica, or an earlier one of this.
#[derive(Debug)]
pub struct Taken {
    /// What was read.
    pub snapshot: Arc<Snapshot>,
    /// When reading began, or a little earlier.
    pub began: Instant,
    /// Since when the snapshot says what it says.
    pub modified: SystemTime,
}

/// The right to read for all.
#[derive(Debug)]
pub struct Lease {
    pub(super) token: String,
    pub(super) at: Moment,
    /// What is published.
    pub(super) head: Option<Head>,
    /// Whether what is published with the head may be of use.
    pub(super) sound: bool,
}

/// One moment by two clocks: the server's, in microseconds, and our own, which may be a little early.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) server: u64,
    pub(super) own: Instant,
}

impl Moment {
    /// How long ago the server's clock showed this; `None` for what is yet to come.
    pub(super) fn since(&self, server: u64) -> Option<Duration> {
        self.server.checked_sub(server).map(Duration::from_micros)
    }

    /// When the server's clock showed this, or a little earlier.
    pub(super) fn own(&self, server: u64) -> Option<Instant> {
        // The machine may be younger than that.
        self.since(server).and_then(|since| self.own.checked_sub(since))
    }
}

impl Head {
    /// Since when the snapshot says what it says, if it is the one with this fingerprint.
    pub fn modified(&self, content: u64) -> Option<SystemTime> {
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(self.modified)).filter(|_| self.content == content)
    }
}

impl Lease {
    /// What was published when the lease was granted.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}
