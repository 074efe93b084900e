//! Settings that the catalogue depends on.

use crate::quota::InodeRule;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Name that clients filter by.
    pub name: String,
    /// The name in the `{system}` segment of a path and in `storageSystem`: the system's name, or the offering's slug
    /// (decision D2).
    pub identifier: String,
    /// Slug of the offering that sells this system.
    pub offering_slug: String,
}

/// Settings that the catalogue depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The systems in the order of the settings.
    pub systems: Vec<System>,
    /// Name of the file system, the same in every item.
    pub file_system: String,
    pub inodes: InodeRule,
    /// Ignore the target items in `backend_metadata`.
    pub ignore_metadata_targets: bool,
    /// Generate missing identities (decisions D5, D6).
    pub development_mode: bool,
    /// The proxy's public URL without a trailing slash, if it relays callbacks. `None`: callback links point to Waldur.
    pub relay: Option<String>,
    /// Base URL of Waldur's API without a trailing slash, for links of resources without an order.
    pub waldur: String,
}
